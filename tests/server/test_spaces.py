"""The vector spaces of the server's chains: GET /v1/spaces/{id}, and one space for the life of a chain."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from hf_gateway.server.dispatch.chain import MAX_VARIANTS_COUNT
from hf_gateway.server.dispatch.chains import RUN_VARIABLE
from hf_gateway.spaces import binding
from tests.servers.loopback import Reply, hang
from tests.servers.openai import FakeOpenAI
from tests.servers.tei import FakeTEI
from tests.support.databases import a_ledger
from tests.support.gateway_server import RunningServer, gateway_server
from tests.support.late import COLLECTED
from tests.support.server_keys import bearer, make_key

if COLLECTED:
    from hf_gateway.spaces.fingerprint import CANARIES, Fingerprint


def get_space(client: httpx.Client, space_id: str) -> httpx.Response:
    return client.get(f"/v1/spaces/{quote(space_id, safe='')}")


def test_describes_the_space_that_an_answer_names(client: httpx.Client) -> None:
    space_id = client.post("/v1/embeddings", json={"input": "x"}).headers["x-hf-gateway-space"]
    answer = get_space(client, space_id)
    found = answer.json()
    assert (found["id"], found["chains"], found["canaries"]) == (space_id, ["docs"], list(CANARIES))
    assert answer.headers["x-hf-gateway-space"] == space_id
    assert (found["space"]["dimension"], found["space"]["normalized"]) == (64, True)
    assert found["fingerprint"] is None


def test_has_the_fingerprint_by_which_targets_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_GATEWAY_CHECK_SPACE", "1")
    with FakeTEI() as fake:
        config = f'[chains.docs]\nmodel = "{fake.model_id}"\ntargets = ["tei:{fake.url}"]\n'
        with gateway_server(config) as running, running.client() as client:
            space_id = client.post("/v1/embeddings", json={"input": "x"}).headers["x-hf-gateway-space"]
            answer = get_space(client, space_id)
        expected = fake.embed(list(CANARIES[:1]))[0]
    found = answer.json()
    measured = Fingerprint.from_dict({**found["fingerprint"], "version": 1, "space": found["space"], "source": ""})
    assert measured.authority == "server"
    assert measured.rows["document"][0] == pytest.approx(expected, abs=1e-6)
    assert fake.url not in answer.text


def test_describes_the_space_of_shorter_vectors_once_they_were_asked_for() -> None:
    with FakeTEI() as fake:
        config = f'[chains.docs]\nmodel = "{fake.model_id}"\ntargets = ["tei:{fake.url}"]\n'
        with gateway_server(config) as running, running.client() as client:
            headers = client.post("/v1/embeddings", json={"input": "x", "dimensions": 4}).headers
            found = get_space(client, headers["x-hf-gateway-space"]).json()
    assert (found["chains"], found["space"]["dimension"]) == (["docs"], 4)


def test_an_unknown_space_is_404_with_the_nearest_one(client: httpx.Client, server: RunningServer) -> None:
    space = server.state.chains.chains[0].space
    assert space is not None
    answer = get_space(client, f"{space.model}#000000000000")
    assert answer.status_code == 404
    error = answer.json()["error"]
    assert (error["code"], error["type"]) == ("space_not_found", "not_found_error")
    assert f"did you mean {space.id!r}?" in error["message"]


def test_a_chain_that_the_caller_may_not_use_has_no_space(tmp_path: Path) -> None:
    with a_ledger("sqlite", tmp_path) as url:
        allowed, other = (make_key(url, scopes={"read"}, chains={name}) for name in ("docs", "other"))
        with gateway_server(database=url) as running, running.client() as client:
            space = running.state.chains.chains[0].space
            assert space is not None
            path = f"/v1/spaces/{quote(space.id, safe='')}"
            assert client.get(path, headers=bearer(allowed)).status_code == 200
            answer = client.get(path, headers=bearer(other))
    assert answer.status_code == 404
    assert "did you mean" not in answer.text


def separate(url: str, **settings: str) -> str:
    """Return a chain whose first target that answers fixes the space."""
    more = "".join(f"{name} = {value}\n" for name, value in settings.items())
    targets = f'targets = ["openai:{url}", "hash:64"]\non_space_change = "separate"\nmax_retries = 0\n'
    return f'[chains.docs]\nmodel = "owner/model"\n{targets}{more}'


def served(client: httpx.Client, **more: Any) -> str | int:
    """Return by which target a text is embedded, or the status of the refusal."""
    answer = client.post("/embed", json={"inputs": ["a text"], **more})
    return answer.headers["x-hf-gateway-served-by"] if answer.status_code == 200 else answer.status_code


class TestFirstAnswerFixesTheSpace:
    @pytest.mark.parametrize("first", [{}, {"truncate": True}])
    def test_for_requests_that_truncate_or_do_not(self, first: dict[str, Any]) -> None:
        with FakeOpenAI(models=None) as fake, gateway_server(separate(fake.url)) as running, running.client() as client:
            assert served(client, **first) == "openai:owner/model"
            fake.always(Reply(500, "down"))
            found = [served(client, **more) for more in ({}, {"truncate": True}, {"truncate": False})]
        assert found == [503, 503, 503]

    def test_for_what_a_reload_builds(self) -> None:
        with (
            FakeOpenAI(models=None) as fake,
            gateway_server(separate(fake.url)) as running,
            running.client(headers=bearer(make_key(running.state.database.url, scopes={"embed", "admin"}))) as client,
        ):
            assert served(client) == "openai:owner/model"
            fake.always(Reply(500, "down"))
            Path("hf-gateway.toml").write_text(separate(fake.url, timeout="31"), encoding="utf-8")
            assert client.post("/admin/reload").json()["built"] == ["docs"]
            assert served(client) == 503
            # Another model is another chain.
            other = separate(fake.url).replace("owner/model", "owner/other")
            Path("hf-gateway.toml").write_text(other, encoding="utf-8")
            assert client.post("/admin/reload").json()["built"] == ["docs"]
            assert served(client) == "hash:64"

    def test_for_the_other_workers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(RUN_VARIABLE, "one-run")
        with FakeOpenAI(models=None) as fake:
            with gateway_server(separate(fake.url)) as running, running.client() as client:
                assert served(client) == "openai:owner/model"
            fake.always(Reply(500, "down"))
            monkeypatch.setattr(binding, "_SETTLED", {})  # another process knows the file alone
            with gateway_server(separate(fake.url)) as running, running.client() as client:
                assert served(client) == 503
            monkeypatch.setenv(RUN_VARIABLE, "another-run")
            with gateway_server(separate(fake.url)) as running, running.client() as client:
                assert served(client) == "hash:64"

    def test_and_vectors_in_another_form_are_of_the_first_target(self) -> None:
        with FakeOpenAI(models=None) as fake, gateway_server(separate(fake.url)) as running, running.client() as client:
            fake.always(Reply(500, "down"))
            assert served(client, dimensions=8) == 502
            assert served(client) == "hash:64"
            fake.recover()
            answer = client.post("/embed", json={"inputs": ["a text"], "dimensions": 8})
        assert answer.status_code == 400
        assert "since its first answer" in answer.text


def test_a_form_that_is_kept_no_more_ends_its_requests_first() -> None:
    with FakeOpenAI(models=None) as fake:
        config = f'[chains.docs]\nmodel = "owner/model"\ntargets = ["openai:{fake.url}"]\nmax_retries = 0\n'
        with gateway_server(config) as running, running.client() as client, ThreadPoolExecutor(1) as pool:
            gate = hang()
            fake.fail(gate, path="/v1/embeddings")
            held = pool.submit(served, client, truncate=True, dimensions=8)
            fake.wait_for(1, "/v1/embeddings")
            for size in range(1, MAX_VARIANTS_COUNT + 4):
                assert served(client, dimensions=size) == "openai:owner/model"
            gate.release()
            assert held.result(60) == "openai:owner/model"


def test_a_targets_number_of_many_digits_is_no_target(client: httpx.Client) -> None:
    answer = client.post("/v1/embeddings", json={"input": "x"}, headers={"x-hf-gateway-target": "9" * 5000})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "target_not_found")
