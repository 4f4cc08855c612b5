"""The page's routes over HTTP: files and their headers, health of single targets and services, details of a streamed answer."""

import gzip
import json
import re
import stat
from pathlib import Path

import httpx
import pytest

from tests.page_build import BUILT
from tests.servers.chat import script
from tests.servers.loopback import Reply, dead_url
from tests.servers.openai import FakeOpenAI
from tests.support.gateway_server import RunningServer, ServerProcess, chat_chain, gateway_server
from tests.support.server_keys import bearer, make_key

ASK = [{"role": "user", "content": "Hello"}]


class TestFiles:
    def test_the_page_and_its_files_are_there(self, client: httpx.Client) -> None:
        sent = client.get("/ui")
        assert (sent.status_code, sent.headers["location"]) == (308, "ui/")
        page = client.get("/ui", follow_redirects=True)
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert page.headers["cache-control"] == "no-cache"
        for address in re.findall(r'(?:src|href)="\./([^"]*)"', page.text):
            file = client.get(f"/ui/{address}")
            assert file.status_code == 200
            assert file.content == (BUILT / address).read_bytes()
            assert file.headers["content-encoding"] == "gzip"
            assert "immutable" in file.headers["cache-control"]
        assert "preact" in client.get("/ui/THIRD_PARTY_LICENSES.txt").text

    def test_what_the_browser_has_is_not_sent_again(self, client: httpx.Client) -> None:
        etag = client.get("/ui/").headers["etag"]
        again = client.get("/ui/", headers={"if-none-match": f'"other", {etag}'})
        assert (again.status_code, again.content) == (304, b"")
        assert client.get("/ui/", headers={"if-none-match": '"other"'}).status_code == 200
        assert client.head("/ui/").content == b""

    @pytest.mark.parametrize("accepted", ["identity", "gzip;q=0", "br"])
    def test_a_client_without_gzip_gets_the_plain_file(self, client: httpx.Client, accepted: str) -> None:
        plain = client.get("/ui/", headers={"accept-encoding": accepted})
        assert "content-encoding" not in plain.headers
        assert plain.content == (BUILT / "index.html").read_bytes()

    @pytest.mark.parametrize("name", ["assets/nothing.js", "assets/..%2findex.html", "nothing", "assets/"])
    def test_nothing_else_is_there(self, client: httpx.Client, name: str) -> None:
        answer = client.get(f"/ui/{name}")
        assert answer.status_code == 404
        assert answer.json()["code"] == "not_found"

    def test_the_policy_allows_this_server_alone_and_no_inline_script(self, client: httpx.Client) -> None:
        headers = client.get("/ui/").headers
        policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == "'self' 'wasm-unsafe-eval'"
        assert policy["frame-ancestors"] == "'none'"
        assert not re.search(r"unsafe-inline|'unsafe-eval'|https?:|\*", headers["content-security-policy"])
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-opener-policy"] == "same-origin"
        assert headers["cross-origin-embedder-policy"] == "require-corp"

    @pytest.mark.parametrize("path", ["/ai/ui", "/ui"])
    def test_it_works_below_a_root_path(self, path: str) -> None:
        with gateway_server(root_path="/ai") as server, server.client(follow_redirects=True) as client:
            page = client.get(path)
            assert page.status_code == 200
            (script_address,) = re.findall(r'src="([^"]*)"', page.text)
            assert client.get(page.url.join(script_address)).status_code == 200

    def test_no_disk_is_needed_after_the_first_request(self, client: httpx.Client, tmp_path: Path) -> None:
        client.get("/ui/")
        mode = BUILT.stat().st_mode
        BUILT.chmod(mode & ~(stat.S_IRUSR | stat.S_IXUSR))
        try:
            assert client.get("/ui/").status_code == 200
        finally:
            BUILT.chmod(mode)


class TestHealth:
    def test_nothing_is_asked_until_it_is_wanted_and_then_one_alone(
        self, primary: FakeOpenAI, backup: FakeOpenAI
    ) -> None:
        with gateway_server(chat_chain(primary.url, backup.url)) as server, server.client() as client:
            (chain,) = client.get("/ui/health").json()["chains"]
            assert [target["answers"] for target in chain["targets"]] == [None, None]
            assert (primary.count(), backup.count()) == (0, 0)
            found = client.get("/ui/health", params={"refresh": "true", "chain": "chat", "target": "1"}).json()
            (target,) = found["chains"][0]["targets"]
            assert (target["index"], target["answers"], found["services"]) == (1, True, [])
            assert target["seconds"] > 0
            assert primary.count() == 0
            (chain,) = client.get("/ui/health").json()["chains"]
            assert [target["answers"] for target in chain["targets"]] == [None, True]

    def test_a_question_is_not_sent_again_at_once(self, primary: FakeOpenAI) -> None:
        with gateway_server(chat_chain(primary.url)) as server, server.client() as client:
            wanted = {"refresh": "true", "chain": "chat"}
            client.get("/ui/health", params=wanted)
            asked = primary.count()
            checks = server.state.target_checks
            checks._by_chain[server.state.chains.chains[0]]._monotonic = lambda: 0.0
            checks._by_chain[server.state.chains.chains[0]]._known = {
                name: (0.0, known[1]) for name, known in checks._by_chain[server.state.chains.chains[0]]._known.items()
            }
            client.get("/ui/health", params=wanted)
            assert primary.count() == asked > 0

    def test_addresses_paths_and_accounts_are_an_administrators(self, primary: FakeOpenAI) -> None:
        primary.always(Reply(500, "broken"))
        with gateway_server(chat_chain(primary.url)) as server:
            url = server.state.database.url
            reader, narrow, admin = make_key(url, scopes={"read"}), make_key(url, tenant="acme"), make_key(url)
            with server.client() as client:
                for key, sees in ((reader, False), (narrow, False), (admin, True)):
                    answer = client.get("/ui/health", params={"refresh": "true"}, headers=bearer(key))
                    assert answer.status_code == 200
                    assert (primary.url in answer.text) is sees
                    assert ("sqlite:" in answer.text) is sees

    def test_a_key_sees_its_own_chains(self) -> None:
        config = '[chains.docs]\ntargets = ["hash:8"]\n[chains.other]\ntargets = ["hash:16"]\n'
        with gateway_server(config) as server, server.client() as client:
            key = make_key(server.state.database.url, chains=frozenset({"other"}))
            found = client.get("/ui/health", headers=bearer(key)).json()
            assert [chain["name"] for chain in found["chains"]] == ["other"]
            assert client.get("/ui/health?chain=docs", headers=bearer(key)).status_code == 404

    @pytest.mark.parametrize("query", ["chain=nothing", "chain=docs&target=1", "chain=docs&target=x", "service=x"])
    def test_what_is_not_there_is_404(self, client: httpx.Client, query: str) -> None:
        assert client.get(f"/ui/health?{query}").status_code == 404

    def test_a_chain_that_is_reloaded_has_not_been_asked(self, client: httpx.Client, server: RunningServer) -> None:
        client.get("/ui/health?refresh=true")
        Path("hf-gateway.toml").write_text('[chains.docs]\ntargets = ["hash:32"]\n', encoding="utf-8")
        key = make_key(server.state.database.url)
        assert client.post("/admin/reload", headers=bearer(key)).json()["built"] == ["docs"]
        (chain,) = client.get("/ui/health", headers=bearer(key)).json()["chains"]
        assert chain["targets"][0]["answers"] is None


def details(text: str) -> dict[str, object]:
    """Return what the last chunk with a choice says beside OpenAI's fields."""
    chunks = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    (found,) = [chunk["hf_gateway"] for chunk in chunks if "hf_gateway" in chunk]
    return dict(found)


class TestDetailsOfAnAnswer:
    def test_who_served_why_the_other_did_not_and_the_cost(self, primary: FakeOpenAI) -> None:
        primary.brain = script("Hello there.")
        price = f'[prices."owner/model"]\nprovider = "openai:{primary.url}"\ninput = 1000\noutput = 2000\n'
        gone = dead_url()
        config = chat_chain(gone, primary.url) + price
        body = {"messages": ASK, "stream": True, "stream_options": {"include_details": True, "include_usage": True}}
        with ServerProcess(config) as process, process.client() as client:
            answer = client.post("/v1/chat/completions", json=body)
        found = details(answer.text)
        failed, served = found["attempts"]  # type: ignore[misc]
        assert (failed["outcome"], served["outcome"]) == ("failed", "served")
        assert "ConnectFailed" in failed["error"]
        assert gone not in answer.text
        assert found["served_by"] == "openai:owner/model"
        assert found["cost_usd"] > 0  # type: ignore[operator]

    def test_a_client_that_does_not_ask_gets_none(self, primary: FakeOpenAI) -> None:
        with gateway_server(chat_chain(primary.url)) as server, server.client() as client:
            answer = client.post("/v1/chat/completions", json={"messages": ASK, "stream": True})
        assert details(answer.text) == {"served_by": "openai:owner/model"}


def test_gzip_gives_the_same_bytes_again() -> None:
    from hf_gateway.server.surfaces.page import page_files

    assert all(gzip.decompress(file.compressed) == file.content for file in page_files().values())
