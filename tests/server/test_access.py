"""Who may call what, over HTTP: every route of the table, with every kind of credential that is not enough for it."""

import dataclasses
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from hf_gateway.cli import main
from hf_gateway.server.access.caller import ANONYMOUS_SCOPES, PUBLIC, SCOPES
from hf_gateway.server.access.keys import new_key
from tests.servers.issuer import AUDIENCE, JWKS, FakeIssuer
from tests.support.databases import a_ledger
from tests.support.gateway_server import START_S, RunningServer, ServerProcess, gateway_server, serving
from tests.support.late import COLLECTED
from tests.support.server_keys import bearer, expire, make_key, public_part, revoke

if COLLECTED:
    from hf_gateway.server.access.authenticator import KeyAuthenticator
    from hf_gateway.server.application import ROUTES, build_state
    from hf_gateway.server.dispatch.call import Answer
    from hf_gateway.server.dispatch.routing import Route
    from hf_gateway.server.surfaces.admin import SURFACE
    from hf_gateway.settings.server import ServerSettings

CHAINS = """
[chains.docs]
targets = ["hash:64"]

[chains.other]
targets = ["hash:32"]
"""


@pytest.fixture(autouse=True)
def _without_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep walks over all routes from asking the Hub."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with a_ledger(request.param, tmp_path) as made:
        yield made


@pytest.fixture
def one_url(tmp_path: Path) -> Iterator[str]:
    """For what is the same in every database."""
    with a_ledger("sqlite", tmp_path) as made:
        yield made


def path_of(route: "Route") -> str:
    return re.sub(r"\{\w+:path\}", "x", route.path).replace("{id}", "abcdefghijkm")


def statuses(client: httpx.Client, headers: Any) -> dict[str, int]:
    """Call every route that needs a scope, with a body that is an object; returns the statuses by route."""
    return {
        f"{route.method} {route.path}": client.request(
            route.method, path_of(route), content=b"{}", headers=headers
        ).status_code
        for route in ROUTES
        if route.scope != PUBLIC
    }


def others_of(route: "Route") -> frozenset[str]:
    """Return the scopes that do not admit to a route."""
    return frozenset(SCOPES) - {route.scope, *route.other_scopes}


class TestEveryRoute:
    """Denied by default (CVE-2026-35029, vLLM #58144): the table is walked, so that a new route is in the test by itself."""

    def test_is_refused_without_a_valid_key(self, url: str) -> None:
        """Bifrost #937: the password protected one path alone."""
        good, expired, revoked = (make_key(url) for _ in range(3))
        expire(url, expired)
        revoke(url, revoked)
        other_secret = new_key(public_part(good))[0]
        cases = {
            "without a key": {},
            "an unknown key": bearer(new_key()[0]),
            "another secret": bearer(other_secret),
            "an expired key": bearer(expired),
            "a revoked key": bearer(revoked),
            "a dummy": bearer("sk-1234"),
            "a token": bearer("eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0."),
            "Basic": {"authorization": "Basic dXNlcjpwYXNz"},
            "apikey": {"apikey": good},
        }
        with gateway_server(CHAINS, database=url) as running, running.client() as client:
            for case, headers in cases.items():
                found = statuses(client, headers)
                assert set(found.values()) == {401}, (case, found)

    def test_is_refused_with_every_scope_but_its_own_and_not_with_its_own(self, url: str) -> None:
        kinds = {
            scopes
            for route in ROUTES
            for scopes in (frozenset({route.scope}), others_of(route))
            if route.scope != PUBLIC
        }
        made = {scopes: make_key(url, scopes=scopes) for scopes in kinds}
        with gateway_server(CHAINS, database=url) as running, running.client() as client:
            for route in ROUTES:
                if route.scope == PUBLIC:
                    continue
                answers = [
                    client.request(route.method, path_of(route), content=b"{}", headers=bearer(made[scopes]))
                    for scopes in (others_of(route), frozenset({route.scope}))
                ]
                assert answers[0].status_code == 403, route.path
                assert f"needs a key with the scope '{route.scope}'" in answers[0].text
                assert answers[1].status_code not in (401, 403), (route.path, answers[1].text)

    def test_that_is_about_all_is_refused_to_a_tenant_and_to_a_key_of_some_chains(self, one_url: str) -> None:
        makers: list[dict[str, Any]] = [{"tenant": "acme"}, {"chains": frozenset({"docs"})}]
        narrow = [make_key(one_url, **rights) for rights in makers]
        with gateway_server(CHAINS, database=one_url) as running, running.client() as client:
            found = [route for route in ROUTES if route.of_all]
            assert {"/admin/status", "/admin/in-flight", "/metrics"} <= {route.path for route in found}
            for route in found:
                for key in narrow:
                    answer = client.request(route.method, path_of(route), content=b"{}", headers=bearer(key))
                    assert (answer.status_code, answer.json()["code"]) == (403, "not_of_all"), route.path

    def test_that_is_open_shows_nothing_of_the_configuration(self, one_url: str) -> None:
        make_key(one_url)
        with gateway_server(CHAINS, database=one_url) as running, running.client() as client:
            for route in ROUTES:
                # The page's own files are the same everywhere, and name examples.
                if route.scope == PUBLIC and route.path != "/openapi.json" and "{name}" not in route.path:
                    answer = client.request(route.method, path_of(route))
                    assert answer.status_code < 400
                    assert "docs" not in answer.text
                    assert "hash" not in answer.text

    @pytest.mark.parametrize(
        "path",
        [
            "//v1/models",
            "/v1//models",
            "/v1/models/",
            "/V1/models",
            "/v1/./models",
            "/livez/../v1/models",
            "/livez/%2e%2e/v1/models",
            "/livez;/v1/models",
            "/livez%2f..%2fv1%2fmodels",
            "/v1/models%00",
            "/v1/models%23/livez",
            "/v1/models?x=/livez",
            "/livez#/../v1/models",
            "/%76%31/models",
            "http://localhost/v1/models",
            "/admin/keys?/livez",
            "/admin%2fkeys",
        ],
    )
    def test_has_no_second_path_that_is_open(self, path: str, one_url: str) -> None:
        make_key(one_url)
        with gateway_server(CHAINS, database=one_url) as running:
            status, body = raw_request(running, f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        assert status in (400, 401, 404) or (status, body) == (200, "ok")
        assert "docs" not in body

    @pytest.mark.parametrize("host", ["localhost/#@evil", "localhost/livez?", "localhost/livez#", "a/../livez"])
    def test_is_chosen_by_the_path_and_never_by_the_host(self, host: str, one_url: str) -> None:
        """CVE-2026-49468 and CVE-2026-48710: a Host header changed the path that rights were decided by."""
        make_key(one_url)
        with gateway_server(CHAINS, database=one_url) as running:
            status, body = raw_request(running, f"GET /v1/models HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n")
        assert status == 400
        assert "docs" not in body


def raw_request(running: RunningServer, text: str) -> tuple[int, str]:
    """Send bytes as they are, which HTTP clients would correct."""
    port = int(running.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), 30) as connection:
        connection.sendall(text.encode("latin-1"))
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = answer.decode("latin-1").partition("\r\n\r\n")
    return int(head.split()[1]), body


class TestKeys:
    def test_a_second_header_does_not_skip_the_first_ones_restrictions(self, one_url: str) -> None:
        """GHSA-57q6-fvp4-pqmm."""
        weak, strong = make_key(one_url, scopes={"read"}), make_key(one_url)
        with gateway_server(CHAINS, database=one_url) as running, running.client() as client:
            for first, second in ((weak, strong), (strong, weak)):
                for name in ("x-api-key", "api-key"):
                    answer = client.get("/admin/keys", headers={**bearer(first), name: second})
                    assert answer.status_code == 400
                    assert answer.json()["code"] == "several_credentials"
            status, _ = raw_request(
                running,
                f"GET /admin/keys HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {weak}\r\n"
                f"authorization: Bearer {strong}\r\nconnection: close\r\n\r\n",
            )
            assert status == 400

    def test_every_header_form_is_accepted(self, one_url: str) -> None:
        key = make_key(one_url)
        with gateway_server(CHAINS, database=one_url) as running, running.client() as client:
            for headers in (bearer(key), {"x-api-key": key}, {"api-key": key}):
                assert client.get("/v1/models", headers=headers).status_code == 200

    @pytest.mark.parametrize(
        "credential",
        [
            "' OR '1'='1",
            "x' UNION SELECT id, sha256 FROM gateway_keys --",
            "hfg_abcdefghijkm_' OR 1=1; DROP TABLE gateway_keys; --",
            "hfg_%_%",
            "hfg_" + "a" * 12 + "_" + "'" * 43,
        ],
    )
    def test_a_credential_is_never_part_of_a_statement(self, credential: str, url: str) -> None:
        """CVE-2026-42208: SQL injection by the bearer value, before login."""
        key = make_key(url)
        with gateway_server(CHAINS, database=url) as running, running.client() as client:
            for headers in (
                bearer(credential),
                {"x-api-key": credential},
                {"cookie": f"hf_gateway_session={credential}"},
            ):
                assert client.get("/v1/models", headers=headers).status_code == 401
            assert client.get("/v1/models", headers=bearer(key)).status_code == 200

    def test_what_is_stored_is_no_password(self, url: str) -> None:
        """GHSA-69x8-hrgq-fjj8: a hash was shown, and accepted as a key."""
        from hf_gateway.server.access.keys import digest

        key = make_key(url)
        stored = digest(key)
        with gateway_server(CHAINS, database=url) as running, running.client() as client:
            for text in (stored.hex(), f"hfg_{public_part(key)}_{stored.hex()[:43]}", public_part(key)):
                assert client.get("/v1/models", headers=bearer(text)).status_code == 401
            listed = client.get("/admin/keys", headers=bearer(key)).text
            assert stored.hex() not in listed
            assert "sha256" not in listed

    def test_a_key_is_not_known_by_its_beginning(self, one_url: str) -> None:
        """CVE-2026-35030 and vLLM #18892: what is remembered of a key, by a part of it, served another."""
        key = make_key(one_url)
        with gateway_server(CHAINS, database=one_url) as running, running.client() as client:
            assert client.get("/v1/models", headers=bearer(key)).status_code == 200
            for place in (20, 30, len(key) - 1):
                forged = key[:place] + ("A" if key[place] != "A" else "B") + key[place + 1 :]
                assert client.get("/v1/models", headers=bearer(forged)).status_code == 401

    def test_a_key_is_in_no_error_and_no_log(self, one_url: str) -> None:
        """litellm #18731, #30670: an expired key was echoed, a refused one logged."""
        key, expired = make_key(one_url, scopes={"embed"}), make_key(one_url)
        expire(one_url, expired)
        with ServerProcess(CHAINS, environment={"HF_GATEWAY_SERVER_DATABASE": one_url}) as process:
            with process.client() as client:
                for each in (key, expired, new_key()[0]):
                    secret = each[17:]
                    answers = [
                        client.get("/admin/keys", headers=bearer(each)),
                        client.post("/v1/embeddings", headers=bearer(each), content=each),
                        client.post("/v1/embeddings", headers=bearer(each), json={"model": each, "input": "x"}),
                        client.get("/v1/models", params={"api_key": each}),
                        client.get(f"/{each}"),
                        client.get("/v1/models", headers={**bearer(each), "x-api-key": "another"}),
                        client.get("/v1/models", headers={"authorization": f"Basic {each}"}),
                    ]
                    for answer in answers:
                        assert answer.status_code >= 400
                        assert secret not in answer.text
                        assert secret not in str(answer.headers)
            for each in (key, expired):
                assert each[17:] not in process.log

    def test_callers_keys_do_not_go_upstream(self, one_url: str) -> None:
        from tests.servers.openai import FakeOpenAI

        key = make_key(one_url)
        with FakeOpenAI(models=None) as upstream:
            chains = f'[chains.up]\nmodel = "org/model"\ntargets = ["openai:{upstream.url}"]\n'
            with gateway_server(chains, database=one_url) as running, running.client() as client:
                answer = client.post("/v1/embeddings", json={"input": "x"}, headers={**bearer(key), "x-api-key": key})
                assert answer.status_code == 200
            assert upstream.requests
            for request in upstream.requests:
                assert key not in str(dict(request.headers)) + request.body.decode()
                assert request.bearer is None


class TestChanges:
    """A change takes at most 5 seconds, which is how long an answer of the database is remembered."""

    def test_a_change_by_the_server_itself_holds_at_once(self, url: str) -> None:
        admin, key = make_key(url), make_key(url, scopes={"read"})
        with gateway_server(CHAINS, database=url) as running, running.client() as client:
            assert client.get("/v1/models", headers=bearer(key)).status_code == 200
            assert client.delete(f"/admin/keys/{public_part(key)}", headers=bearer(admin)).status_code == 200
            assert client.get("/v1/models", headers=bearer(key)).status_code == 401

    def test_a_revocation_by_the_command_holds_when_the_memory_ends(self, url: str) -> None:
        key = make_key(url)
        with gateway_server(CHAINS, database=url) as running, running.client() as client:
            clock = Clock(running)
            assert client.get("/v1/models", headers=bearer(key)).status_code == 200
            assert main(["keys", "revoke", public_part(key), "--database", url]) == 0
            clock.passed = 4.9
            assert client.get("/v1/models", headers=bearer(key)).status_code == 200
            clock.passed = 5.0
            assert client.get("/v1/models", headers=bearer(key)).status_code == 401

    def test_expiry_is_checked_after_the_memory(self, one_url: str) -> None:
        import datetime as dt

        expires = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
        key = make_key(one_url, expires=expires)
        with gateway_server(CHAINS, database=one_url) as running, running.client() as client:
            clock = Clock(running)
            assert client.get("/v1/models", headers=bearer(key)).status_code == 200
            clock.moved = 3601.0
            assert client.get("/v1/models", headers=bearer(key)).status_code == 401

    def test_requests_with_the_same_key_ask_the_database_once(self, one_url: str) -> None:
        key = make_key(one_url)
        with gateway_server(CHAINS, database=one_url) as running, running.client() as client:
            # One that stands still: on a loaded machine the requests may take longer than the memory lasts.
            Clock(running)
            asked = []
            run = running.state.database.run

            async def counting(work: Any) -> Any:
                asked.append(work)
                return await run(work)

            running.state.database.run = counting  # type: ignore[method-assign]
            for _ in range(20):
                assert client.get("/v1/models", headers=bearer(key)).status_code == 200
            assert len(asked) == 1
            # What is unknown is not remembered: a key may be made the next moment.
            for _ in range(2):
                assert client.get("/v1/models", headers=bearer(new_key()[0])).status_code == 401
            assert len(asked) == 3


class Clock:
    """The two clocks by which a server looks callers up, moved by a test. passed: seconds; moved: those of the date."""

    def __init__(self, running: RunningServer) -> None:
        self._began = time.monotonic()
        self.passed = self.moved = 0.0
        running.state.authenticator = KeyAuthenticator(
            running.state.database,
            now=lambda: time.time() + self.moved,
            monotonic=lambda: self._began + self.passed,
        )


class TestTenants:
    def test_a_key_uses_and_sees_its_own_chains_alone(self, one_url: str) -> None:
        key = make_key(one_url, chains=frozenset({"docs"}))
        with gateway_server(CHAINS, database=one_url) as running, running.client(headers=bearer(key)) as client:
            assert [each["id"] for each in client.get("/v1/models").json()["data"]] == ["docs"]
            assert client.get("/v1/models/other").status_code == 404
            assert client.post("/v1/embeddings", json={"model": "docs", "input": "x"}).status_code == 200
            assert client.post("/v1/embeddings", json={"model": "other", "input": "x"}).status_code == 403

    def test_an_administrator_of_a_tenant_sees_and_makes_its_keys_alone(self, url: str) -> None:
        mine, foreign = make_key(url, tenant="acme"), make_key(url, tenant="globex")
        with gateway_server(CHAINS, database=url) as running, running.client(headers=bearer(mine)) as client:
            listed = client.get("/admin/keys").json()["keys"]
            assert [each["id"] for each in listed] == [public_part(mine)]
            body = {"name": "new", "scopes": ["read"]}
            assert client.post("/admin/keys", json=body).json()["tenant"] == "acme"
            refused = client.post("/admin/keys", json={**body, "tenant": "globex"})
            assert (refused.status_code, refused.json()["code"]) == (403, "not_narrower")
            place = f"/admin/keys/{public_part(foreign)}"
            for answer in (
                client.patch(place, json={"name": "taken"}),
                client.post(f"{place}/rotate", json={}),
                client.delete(place),
            ):
                assert (answer.status_code, answer.json()["code"]) == (404, "key_not_found")
            assert client.get("/v1/models", headers=bearer(foreign)).status_code == 200

    def test_what_a_tenant_reads_of_the_ledger_is_its_own(self, url: str) -> None:
        """Whatever a route asks for: the database returns no other rows."""
        from hf_gateway import Gateway
        from hf_gateway.ledger.usage import UsageFilter, usage_report
        from hf_gateway.observing.observer import tagged
        from tests.support.ledgers import kept

        with kept(url) as book:
            for tenant in ("acme", "acme", "globex", None):
                with tagged(tenant=tenant):
                    Gateway(targets=["hash:8"]).embed(["a text"])
            assert book.flush()
        acme, globex, auditor = (make_key(url, tenant=tenant) for tenant in ("acme", "globex", None))

        async def usage(call: Any) -> Answer:
            asked = UsageFilter(tenant=call.query("tenant"))
            report = await call.read_ledger(lambda engine: usage_report(engine, "tenant", asked))
            found = {str(name): figures.requests for name, figures in report.groups.items()}
            return Answer(json.dumps(found).encode())

        route = Route("GET", "/usage", SURFACE, "read", usage, "Usage, as a new route might read it")
        state = build_state(ServerSettings(database=url), routes=(route,))
        with serving(state) as running, running.client() as client:
            for key, seen in (
                (acme, {"acme": 2}),
                (globex, {"globex": 1}),
                (auditor, {"acme": 2, "globex": 1, "None": 1}),
            ):
                assert client.get("/usage", headers=bearer(key)).json() == seen
            assert client.get("/usage", params={"tenant": "globex"}, headers=bearer(acme)).json() == {}

    def test_a_key_does_not_learn_the_names_of_other_chains(self, one_url: str) -> None:
        key = make_key(one_url, chains=frozenset({"docs"}))
        with gateway_server(CHAINS, database=one_url) as running, running.client(headers=bearer(key)) as client:
            answer = client.post("/v1/embeddings", json={"model": "othe", "input": "x"})
            assert answer.status_code == 404
            assert "other" not in answer.text

    def test_calls_are_in_the_ledger_under_tenant_and_key(self, one_url: str) -> None:
        from tests.support.ledgers import kept, rows

        key = make_key(one_url, tenant="acme")
        with kept(one_url) as book, gateway_server(CHAINS, database=one_url) as running, running.client() as client:
            body = {"model": "docs", "input": "x"}
            assert client.post("/v1/embeddings", json=body, headers=bearer(key)).status_code == 200
            assert book.flush()
            (row,) = rows(one_url, kind="request")
            assert (row["tenant"], row["caller_key"]) == ("acme", public_part(key))


class TestAdministration:
    def test_a_key_is_shown_once_and_works(self, url: str) -> None:
        admin = make_key(url)
        with gateway_server(CHAINS, database=url) as running, running.client(headers=bearer(admin)) as client:
            body = {
                "name": "app",
                "tenant": "acme",
                "scopes": ["embed", "read"],
                "chains": ["docs"],
                "expires": "2090-01-01T00:00:00Z",
                "parallel": 4,
                "usd_per_day": "1.50",
            }
            answer = client.post("/admin/keys", json=body)
            made = answer.json()
            assert answer.headers["cache-control"] == "no-store"
            assert {name: made[name] for name in body if name not in ("usd_per_day", "expires")} == {
                name: value for name, value in body.items() if name not in ("usd_per_day", "expires")
            }
            assert client.get("/v1/models", headers=bearer(made["key"])).status_code == 200
            shown = client.get("/admin/keys").text
            assert made["id"] in shown
            assert made["key"] not in shown
            changed = client.patch(f"/admin/keys/{made['id']}", json={"parallel": None, "scopes": ["read"]}).json()
            assert (changed["parallel"], changed["scopes"], changed["chains"]) == (None, ["read"], ["docs"])
            place = f"/admin/keys/{made['id']}"
            rotated = client.post(f"{place}/rotate", json={"grace_seconds": 60}).json()
            assert rotated["id"] == made["id"]
            for key in (made["key"], rotated["key"]):
                assert client.get("/v1/models", headers=bearer(key)).status_code == 200
            final = client.post(f"{place}/rotate", json={}).json()
            for key, status in ((made["key"], 401), (rotated["key"], 401), (final["key"], 200)):
                assert client.get("/v1/models", headers=bearer(key)).status_code == status

    def test_a_key_with_a_budget_of_its_own_makes_no_keys_without_one(self, one_url: str) -> None:
        admin = make_key(one_url)
        with gateway_server(CHAINS, database=one_url) as running, running.client(headers=bearer(admin)) as client:
            body = {"name": "admin", "scopes": list(SCOPES), "usd_per_day": 1}
            made = client.post("/admin/keys", json=body).json()
            refused = client.post("/admin/keys", json={**body, "usd_per_day": None}, headers=bearer(made["key"]))
            assert (refused.status_code, refused.json()["code"]) == (403, "not_narrower")

    @pytest.mark.parametrize(
        ("body", "words"),
        [
            ({"name": "x"}, "scopes"),
            ({"name": "x", "scopes": ["everything"]}, "unknown scope"),
            ({"name": "x", "scopes": []}, "could do nothing"),
            ({"name": "x", "scopes": ["read"], "expires": "2020-01-01T00:00:00Z"}, "in the past"),
            ({"name": "x", "scopes": ["read"], "parallel": 0}, "parallel"),
            ({"name": "x", "scopes": ["read"], "key": "hfg_my_own"}, "key"),
            ({"name": "x", "scopes": ["read"], "usd_per_day": -1}, "usd_per_day"),
            ({"name": "x", "scopes": ["read"], "tenant": "*"}, "cannot be a tenant"),
        ],
    )
    def test_rights_that_cannot_be_are_refused(self, body: Any, words: str, one_url: str) -> None:
        admin = make_key(one_url)
        with gateway_server(CHAINS, database=one_url) as running, running.client(headers=bearer(admin)) as client:
            answer = client.post("/admin/keys", json=body)
            assert answer.status_code == 400
            assert words in answer.json()["error"]
            assert len(client.get("/admin/keys").json()["keys"]) == 1


class TestWithoutKeys:
    def test_loopback_may_use_and_read_and_never_administer(self) -> None:
        with gateway_server(CHAINS) as running, running.client() as client:
            for route in ROUTES:
                answer = client.request(route.method, path_of(route), content=b"{}")
                refused = route.scope not in (PUBLIC, *ANONYMOUS_SCOPES)
                assert (answer.status_code == 401) == refused, route.path
            # Clients insist on sending some key.
            assert client.get("/v1/models", headers=bearer("ollama")).status_code == 200
            assert client.get("/v1/models", headers=bearer(new_key()[0])).status_code == 401

    def test_makes_no_database_for_that(self, tmp_path: Path) -> None:
        url = f"sqlite:///{tmp_path / 'none.sqlite'}"
        with gateway_server(CHAINS, database=url) as running, running.client() as client:
            assert client.get("/v1/models").status_code == 200
        assert not (tmp_path / "none.sqlite").exists()

    def test_the_first_key_ends_it_for_good(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        url = f"sqlite:///{tmp_path / 'keys.sqlite'}"
        with gateway_server(CHAINS, database=url) as running, running.client() as client:
            clock = Clock(running)
            assert client.get("/v1/models").status_code == 200
            assert main(["keys", "create", "--name", "first", "--scopes", "all", "--database", url]) == 0
            key = capsys.readouterr().out.strip()
            assert client.get("/admin/keys", headers=bearer(key)).status_code == 200
            clock.passed = 6.0
            assert client.get("/v1/models").status_code == 401
            # Revoking the last key does not open the server again.
            assert main(["keys", "revoke", public_part(key), "--database", url]) == 0
            clock.passed = 20.0
            assert client.get("/v1/models").status_code == 401

    def test_a_request_that_arrived_beyond_loopback_needs_a_key(self) -> None:
        """However the application was started: an ASGI server of another make knows nothing of our rules."""
        import asyncio

        from hf_gateway.server.application import app_of

        async def status(server: tuple[str, int] | None, **settings: Any) -> int:
            app = app_of(build_state(ServerSettings(**settings)))
            sent: list[dict[str, Any]] = []
            scope = {
                "type": "http",
                "method": "GET",
                "path": "/v1/models",
                "raw_path": b"/v1/models",
                "query_string": b"",
                "headers": [(b"host", b"192.0.2.7")],
                "client": ("192.0.2.9", 1),
                "server": server,
                "scheme": "http",
            }

            async def receive() -> dict[str, Any]:
                await asyncio.Event().wait()  # the client has sent all, and stays
                raise AssertionError

            async def send(message: Any) -> None:
                sent.append(message)

            await app(scope, receive, send)
            return int(sent[0]["status"])

        assert asyncio.run(status(("127.0.0.1", 80))) == 200
        assert asyncio.run(status(("::1", 80))) == 200
        assert asyncio.run(status(("192.0.2.7", 80))) == 401
        assert asyncio.run(status(("192.0.2.7", 80), insecure_no_auth=True)) == 200

    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "gateway.example"])
    def test_it_does_not_listen_beyond_loopback(self, host: str, capsys: pytest.CaptureFixture[str]) -> None:
        """litellm #37054, Bifrost #518: an open server by default."""
        assert main(["serve", "--host", host, "--port", "0"]) == 2
        err = capsys.readouterr().err
        assert "hf-gateway keys create" in err
        assert "--insecure-no-auth" in err

    def test_unless_that_is_said_aloud(self) -> None:
        with ServerProcess(CHAINS, "--host", "0.0.0.0", "--insecure-no-auth") as process:
            port = process.url.rpartition(":")[2]
            answer = httpx.get(f"http://127.0.0.1:{port}/v1/models", trust_env=False, timeout=START_S)
            assert answer.status_code == 200
        assert "NO AUTHENTICATION" in process.log

    def test_a_server_that_requires_keys_starts_without_one(self, one_url: str) -> None:
        """In a container it starts before anybody can make a key in it; until then it answers no caller."""
        own = {"HF_GATEWAY_SERVER_DATABASE": one_url, "HF_GATEWAY_SERVER_REQUIRE_KEY": "true"}
        with ServerProcess(CHAINS, "--host", "0.0.0.0", environment=own) as process:
            base = f"http://127.0.0.1:{process.url.rpartition(':')[2]}"
            assert httpx.get(f"{base}/readyz", trust_env=False, timeout=START_S).status_code == 200
            assert httpx.get(f"{base}/v1/models", trust_env=False, timeout=START_S).status_code == 401
            key = make_key(one_url)
            assert (
                httpx.get(f"{base}/v1/models", headers=bearer(key), trust_env=False, timeout=START_S).status_code == 200
            )

    def test_it_is_not_closed_and_open(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HF_GATEWAY_SERVER_REQUIRE_KEY", "true")
        assert main(["serve", "--insecure-no-auth", "--port", "0"]) == 2
        assert "require_key and insecure_no_auth contradict each other" in capsys.readouterr().err

    def test_with_a_key_it_listens_anywhere(self, one_url: str) -> None:
        key = make_key(one_url)
        with ServerProcess(CHAINS, "--host", "0.0.0.0", environment={"HF_GATEWAY_SERVER_DATABASE": one_url}) as process:
            port = process.url.rpartition(":")[2]
            base = f"http://127.0.0.1:{port}/v1/models"
            assert httpx.get(base, trust_env=False, timeout=START_S).status_code == 401
            assert httpx.get(base, headers=bearer(key), trust_env=False, timeout=START_S).status_code == 200
        assert "NO AUTHENTICATION" not in process.log
        assert key not in process.log

    def test_there_is_no_master_key(self) -> None:
        """litellm #42019: a known default key opened everything."""
        environment = {"HF_GATEWAY_SERVER_MASTER_KEY": "sk-1234"}
        with (
            pytest.raises(AssertionError, match="no setting of the server"),
            ServerProcess(CHAINS, environment=environment),
        ):
            pass


class TestDatabase:
    def test_a_postgresql_that_is_away_refuses_and_comes_back(self) -> None:
        from tests.support.ledgers import Proxy, in_schema, schema

        with schema() as name, Proxy() as proxy:
            key = make_key(in_schema(name))
            proxy.start()
            url = in_schema(name, port=proxy.port)
            with gateway_server(CHAINS, database=url) as running, running.client(headers=bearer(key)) as client:
                clock = Clock(running)
                assert client.get("/v1/models").status_code == 200
                proxy.stop()
                # What is remembered serves; nothing is accepted unseen.
                assert client.get("/v1/models").status_code == 200
                answer = client.get("/v1/models", headers=bearer(new_key()[0]))
                assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
                clock.passed = 10.0
                assert client.get("/v1/models").status_code == 503
                assert client.get("/livez").status_code == 200
                proxy.start()
                assert client.get("/v1/models").status_code == 200

    def test_a_postgresql_is_not_changed_unasked(self, capsys: pytest.CaptureFixture[str]) -> None:
        """litellm #23257, #39365: served with a schema whose migration had failed."""
        from tests.support.ledgers import in_schema, schema

        with schema() as name:
            url = in_schema(name)
            Path("gateway.toml").write_text(f'[server]\ndatabase = "{url}"\n', encoding="utf-8")
            assert main(["serve", "--port", "0", "--config", "gateway.toml"]) == 2
            assert "creates or upgrades them" in capsys.readouterr().err

    def test_a_database_that_does_not_answer_is_wrong_usage_at_start(self, capsys: pytest.CaptureFixture[str]) -> None:
        Path("gateway.toml").write_text(
            '[server]\ndatabase = "postgresql://ann:secret@127.0.0.1:1/none"\n', encoding="utf-8"
        )
        assert main(["serve", "--port", "0", "--config", "gateway.toml"]) == 2
        err = capsys.readouterr().err
        assert "cannot be used" in err
        assert "secret" not in err

    @pytest.mark.parametrize("variable", ["HF_GATEWAY_BUDGETS", "HF_GATEWAY_LEDGER_CONTENT"])
    def test_a_wrong_switch_is_said_before_an_address_is_printed(
        self, variable: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv(variable, "treu")
        assert main(["serve", "--port", "0"]) == 2
        printed = capsys.readouterr()
        assert printed.err.startswith(f"hf-gateway: {variable} is one of")
        assert printed.out == ""


class TestLedger:
    def test_a_process_records_calls_and_keeps_to_budgets_of_keys(self, one_url: str) -> None:
        from decimal import Decimal

        from hf_gateway.ledger import models
        from hf_gateway.ledger.budget import Budget
        from hf_gateway.ledger.budgets import set_budget
        from hf_gateway.ledger.prices import Price, PriceEntry
        from hf_gateway.ledger.store import open_ledger
        from tests.servers.openai import FakeOpenAI
        from tests.support.ledgers import rows

        rich, poor = make_key(one_url, tenant="acme"), make_key(one_url, tenant="acme")
        with FakeOpenAI(models=None) as upstream:
            target = f"openai:{upstream.url}"
            with open_ledger(one_url) as engine:
                price = PriceEntry("*", "feature-extraction", target, Price(Decimal(1), None))
                models.set_entry(engine, price)
                set_budget(engine, Budget(f"key:{public_part(poor)}", "day", Decimal("0.000000001")))
            chains = f'[chains.up]\nmodel = "org/model"\ntargets = ["{target}"]\n'
            with ServerProcess(chains, environment={"HF_GATEWAY_SERVER_DATABASE": one_url}) as process:
                with process.client() as client:
                    body = {"input": "x"}
                    assert client.post("/v1/embeddings", json=body, headers=bearer(rich)).status_code == 200
                    refused = client.post("/v1/embeddings", json=body, headers=bearer(poor))
                    assert refused.status_code == 402
                    assert f"the budget of the key '{public_part(poor)}'" in refused.text
                process.signal(signal.SIGTERM)
                assert process.wait() == 0
        found = [(row["tenant"], row["caller_key"], row["status"]) for row in rows(one_url, kind="request")]
        assert found == [("acme", public_part(rich), "ok"), ("acme", public_part(poor), "failed")]

    def test_a_second_database_is_not_wanted(self, one_url: str, tmp_path: Path) -> None:
        other = f"sqlite:///{tmp_path / 'other.sqlite'}"
        environment = {"HF_GATEWAY_SERVER_DATABASE": one_url, "HF_GATEWAY_LEDGER": other}
        with pytest.raises(AssertionError, match="are in one database"), ServerProcess(CHAINS, environment=environment):
            pass

    def test_the_command_makes_keys_where_the_server_looks(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        Path("hf-gateway.toml").write_text(
            f'{CHAINS}[server]\ndatabase = "sqlite:///{tmp_path}/server.sqlite"\n', encoding="utf-8"
        )
        assert main(["keys", "create", "--name", "first"]) == 0
        key = capsys.readouterr().out.strip()
        assert main(["keys", "list", "--database", "mysql://ann:secret@h/d"]) == 2
        assert capsys.readouterr().err.startswith("hf-gateway: --database names 'mysql'")
        with gateway_server(Path("hf-gateway.toml").read_text(encoding="utf-8")) as running, running.client() as client:
            assert client.get("/v1/models").status_code == 401
            assert client.get("/v1/models", headers=bearer(key)).status_code == 200


class TestTokens:
    @pytest.fixture
    def issuer(self) -> Iterator[FakeIssuer]:
        with FakeIssuer() as made:
            yield made

    def config(self, issuer: FakeIssuer) -> str:
        return CHAINS + f'[server.jwt."{issuer.url}"]\naudience = ["{AUDIENCE}"]\njwks_url = "{issuer.url}{JWKS}"\n'

    def test_a_token_of_a_configured_issuer_is_a_credential(self, issuer: FakeIssuer) -> None:
        with gateway_server(self.config(issuer)) as running, running.client() as client:
            assert client.get("/v1/models").status_code == 401
            token = issuer.token(scope="read", chains=["docs"])
            answer = client.get("/v1/models", headers=bearer(token))
            assert [each["id"] for each in answer.json()["data"]] == ["docs"]
            assert client.post("/v1/embeddings", json={"input": "x"}, headers=bearer(token)).status_code == 403
            assert client.get("/admin/keys", headers=bearer(issuer.token(scope="admin"))).status_code == 403
            assert client.get("/v1/models", headers=bearer(issuer.token(aud="x"))).status_code == 401

    def test_every_route_refuses_a_token_without_its_scope(self, issuer: FakeIssuer) -> None:
        config = self.config(issuer) + f"scopes = {list(SCOPES)}\n"
        with gateway_server(config) as running, running.client() as client:
            for route in ROUTES:
                if route.scope == PUBLIC:
                    continue
                token = issuer.token(scope=" ".join(others_of(route)))
                answer = client.request(route.method, path_of(route), content=b"{}", headers=bearer(token))
                assert answer.status_code == 403, route.path

    def test_a_listing_of_unencrypted_keys_is_refused_at_start(self, capsys: pytest.CaptureFixture[str]) -> None:
        Path("gateway.toml").write_text('[server.jwt."http://login.example"]\naudience = ["x"]\n', encoding="utf-8")
        assert main(["serve", "--port", "0", "--config", "gateway.toml"]) == 2
        assert "over https" in capsys.readouterr().err


class TestBrowser:
    ORIGIN = {"sec-fetch-site": "same-origin"}

    def test_signs_in_once_and_scripts_cannot_read_the_cookie(self, url: str) -> None:
        key = make_key(url, tenant="acme", scopes={"read", "embed"})
        with gateway_server(CHAINS, database=url) as running, running.client() as client:
            answer = client.post("/ui/session", headers={**bearer(key), **self.ORIGIN})
            assert answer.json()["tenant"] == "acme"
            cookie = answer.headers["set-cookie"]
            assert key not in cookie
            assert {part.strip() for part in cookie.split(";")[1:]} >= {"HttpOnly", "SameSite=Strict", "Path=/"}
            assert client.get("/v1/models", headers=self.ORIGIN).status_code == 200
            assert client.get("/admin/keys", headers=self.ORIGIN).status_code == 403
            assert client.post("/ui/session", headers=self.ORIGIN).json()["key"] == public_part(key)
            client.delete("/ui/session", headers=self.ORIGIN)
            assert client.get("/v1/models", headers=self.ORIGIN).status_code == 401

    def test_a_key_of_some_chains_is_told_no_names_of_others(self, url: str) -> None:
        key = make_key(url, scopes={"read", "embed", "chat"}, chains={"docs"})
        with gateway_server(CHAINS, database=url) as running, running.client(headers=bearer(key)) as client:
            for path in ("/api/show", "/api/chat", "/v1/embeddings"):
                answer = client.post(
                    path, json={"model": "zzz", "input": "x", "messages": [{"role": "user", "content": "x"}]}
                )
                assert answer.status_code == 404
                assert "this key may use no model 'zzz'" in answer.text
                assert "there are" not in answer.text

    def test_the_end_of_an_invented_session_costs_others_nothing(self, url: str) -> None:
        key = make_key(url, scopes={"read"})
        with gateway_server(CHAINS, database=url) as running, running.client() as client:
            asked: list[str] = []
            run = running.state.database.run

            async def counted(work: Any, *more: Any, **named: Any) -> Any:
                asked.append("asked")
                return await run(work, *more, **named)

            assert client.get("/v1/models", headers=bearer(key)).status_code == 200
            running.state.database.run = counted  # type: ignore[method-assign]
            for number in range(5):
                cookie = {"cookie": f"hf_gateway_session=hfs_{number}{'a' * 42}"}
                assert client.delete("/ui/session", headers={**cookie, **self.ORIGIN}).status_code == 204
                assert client.get("/v1/models", headers=bearer(key)).status_code == 200
            assert len(asked) == 5  # each end of a session, and none of the others

    def test_the_cookie_ends_with_its_key_and_its_server_side(self, url: str) -> None:
        key = make_key(url)
        with gateway_server(CHAINS, database=url) as running, running.client() as client:
            value = client.post("/ui/session", headers=bearer(key)).cookies["hf_gateway_session"]
            client.cookies.clear()
            stolen = {"cookie": f"hf_gateway_session={value}"}
            assert client.get("/v1/models", headers=stolen).status_code == 200
            running.state.authenticator.forget()
            assert main(["keys", "rotate", public_part(key), "--database", url]) == 0
            assert client.get("/v1/models", headers=stolen).status_code == 401

    def test_the_cookie_of_another_origins_page_does_not_count(self, one_url: str) -> None:
        key = make_key(one_url)
        config = CHAINS + '[server]\ncors_origins = ["https://app.example.org"]\n'
        with gateway_server(config, database=one_url) as running, running.client() as client:
            client.post("/ui/session", headers=bearer(key))
            listed = {"origin": "https://app.example.org", "sec-fetch-site": "cross-site"}
            answer = client.get("/v1/models", headers=listed)
            assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (401, listed["origin"])
            with_key = client.get("/v1/models", headers={**listed, **bearer(key)})
            assert with_key.status_code == 200
            assert "access-control-allow-credentials" not in with_key.headers
            assert client.post("/ui/session", headers={**listed, **bearer(key)}).status_code == 403
            assert client.get("/v1/models", headers={"origin": "https://evil.example"}).status_code == 403

    def test_is_secure_where_a_trusted_proxy_ends_tls(self, one_url: str) -> None:
        key = make_key(one_url)
        config = CHAINS + '[server]\ntrusted_proxies = ["127.0.0.1"]\nroot_path = "/ai"\n'
        with gateway_server(config, database=one_url) as running, running.client() as client:
            headers = {**bearer(key), "x-forwarded-proto": "https"}
            cookie = client.post("/ai/ui/session", headers=headers).headers["set-cookie"]
            assert "; Secure" in cookie
            assert "Path=/ai;" in cookie
            assert "; Secure" not in client.post("/ui/session", headers=bearer(key)).headers["set-cookie"]

    def test_of_a_server_without_keys_needs_no_cookie(self) -> None:
        with gateway_server(CHAINS) as running, running.client() as client:
            answer = client.post("/ui/session", headers=self.ORIGIN)
            assert answer.json()["needs_key"] is False
            assert "set-cookie" not in answer.headers

    def test_every_route_refuses_a_foreign_page(self) -> None:
        with gateway_server(CHAINS) as running, running.client() as client:
            for route in ROUTES:
                for headers in ({"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}):
                    answer = client.request(route.method, path_of(route), content=b"{}", headers=headers)
                    assert (answer.status_code, "origin" in answer.text) == (403, True), route.path

    def test_a_preflight_request_is_answered_for_listed_origins_alone(self) -> None:
        config = CHAINS + '[server]\ncors_origins = ["https://app.example.org"]\n'
        wanted = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
        with gateway_server(config) as running, running.client() as client:
            answer = client.options("/v1/embeddings", headers={"origin": "https://app.example.org", **wanted})
            assert answer.status_code == 204
            assert "authorization" in answer.headers["access-control-allow-headers"]
            assert answer.headers.get_list("access-control-allow-origin") == ["https://app.example.org"]
            assert (
                client.options("/v1/embeddings", headers={"origin": "https://evil.example", **wanted}).status_code
                == 403
            )

    def test_a_rebound_name_is_refused_on_every_route(self) -> None:
        with gateway_server(CHAINS) as running, running.client() as client:
            for route in ROUTES:
                answer = client.request(route.method, path_of(route), content=b"{}", headers={"host": "evil.example"})
                assert answer.status_code == 403, route.path


def test_a_reload_puts_origins_and_issuers_in_force_or_nothing(one_url: str) -> None:
    admin = make_key(one_url)
    listed = {"origin": "https://app.example.org"}
    with (
        FakeIssuer() as issuer,
        gateway_server(CHAINS, database=one_url) as running,
        running.client(headers=bearer(admin)) as client,
    ):
        token = bearer(issuer.token())
        file = Path("hf-gateway.toml")
        jwt = f'[server.jwt."{issuer.url}"]\naudience = ["{AUDIENCE}"]\njwks_url = "{issuer.url}{JWKS}"\n'
        origins = '[server]\ncors_origins = ["https://app.example.org"]\n'
        for text, status in (
            (CHAINS, 403),
            (CHAINS + origins + jwt, 200),
            (CHAINS + "[server]\ncors_origins = ['x']", 200),
        ):
            file.write_text(text, encoding="utf-8")
            assert client.post("/admin/reload").status_code == (422 if "'x'" in text else 200)
            assert client.get("/v1/models", headers=listed).status_code == status
            assert client.get("/v1/models", headers=token).status_code == (401 if status == 403 else 200)


def test_an_authenticated_server_imports_no_jwt_package(one_url: str) -> None:
    program = (
        "import sys\n"
        "from hf_gateway.server.application import build_state\n"
        "from hf_gateway.settings.server import ServerSettings\n"
        "state = build_state(ServerSettings(database=sys.argv[1]))\n"
        "assert state.authenticator.needs_key\n"
        "print(sorted({'joserfc', 'cryptography', 'redis'} & set(sys.modules)))"
    )
    make_key(one_url)
    command = [sys.executable, "-c", program, one_url]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_caller_has_every_right_of_its_key_and_no_other() -> None:
    from hf_gateway.server.access.caller import Caller
    from hf_gateway.server.access.rights import KeyRights

    fields = {field.name for field in dataclasses.fields(Caller)}
    assert fields - {"key"} == {field.name for field in dataclasses.fields(KeyRights)} - {"name"}
