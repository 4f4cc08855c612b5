"""GET /v1/spaces/{id}: what a vector space is, and its fingerprint."""

from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

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
