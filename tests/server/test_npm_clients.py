"""Clients from npm, none of them ours, against a real process: plain, streamed, failing, broken off, aborted."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers.chat import Said, script
from tests.servers.loopback import Reply, cut_stream, stall_stream
from tests.support.databases import a_ledger
from tests.support.every_chain import EveryChain, every_chain
from tests.support.gateway_server import START_S, ServerProcess
from tests.support.late import COLLECTED
from tests.support.npm_clients import ROOT, packages, printed, result, running
from tests.support.server_keys import make_key
from tests.support.web_client import blocks

if COLLECTED:
    from hf_gateway import Gateway

pytestmark = pytest.mark.slow

TEXT = "One two three."
PIECES = ["One", " two", " three."]
CHAT = "/v1/chat/completions"
WAITS = "attempt_timeout = 300\nfirst_content_timeout = 300\nstall_timeout = 300\n"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, _late_imports: None) -> Iterator[tuple[EveryChain, str]]:
    """A process with every chain, none of which retries, for all tests."""
    packages()
    folder = tmp_path_factory.mktemp("npm")
    with every_chain(folder) as chains, contextlib.chdir(folder):
        patient = chains.config.replace('task = "chat"\n', f'task = "chat"\nmax_retries = 0\n{WAITS}')
        with ServerProcess(patient, environment={"HF_GATEWAY_HOME": str(folder / "home")}) as process:
            yield chains, process.url


@pytest.fixture
def chains(served: tuple[EveryChain, str]) -> Iterator[EveryChain]:
    chains, _ = served
    yield chains
    chains.openai.recover()
    chains.openai.brain = script(TEXT)


@pytest.fixture
def url(served: tuple[EveryChain, str], chains: EveryChain) -> str:
    return served[1]


def expected_vectors() -> list[Any]:
    with Gateway(targets=["hash:64"]) as gateway:
        return [pytest.approx(row) for row in gateway.embed(["one", "two"]).vectors.tolist()]


def test_openai_plain(url: str) -> None:
    found = result("openai", "plain", url)
    assert found.pop("vectors") == expected_vectors()
    assert found.pop("request").startswith("req_")
    assert {"docs", "talk", "text-embedding-3-small"} <= set(found.pop("models"))
    assert found == {"model": "docs", "text": TEXT, "usage": 4, "completion": TEXT}


def test_openai_streamed(url: str) -> None:
    assert result("openai", "streamed", url) == {"pieces": PIECES, "usage": [3]}


def test_openai_calls_tools(url: str, chains: EveryChain) -> None:
    chains.openai.brain = script(Said(tool_calls=(("weather", {"city": "Paris"}),)))
    assert result("openai", "tools", url) == ["tool_calls", "weather", {"city": "Paris"}]


def test_openai_raises_its_own_errors(url: str) -> None:
    unknown, wrong, ids = result("openai", "failing", url)
    assert unknown[:3] == ["NotFoundError", 404, "model_not_found"]
    assert "did you mean 'talk'?" in unknown[3]
    assert wrong[:3] == ["BadRequestError", 400, "invalid_request"]
    assert ids[:3] == ["BadRequestError", 400, "token_ids"]
    assert {each[4] for each in (unknown, wrong, ids)} == {"req_"}


def test_openai_does_not_do_again_what_a_chain_has_tried(url: str, chains: EveryChain) -> None:
    """It sends a request up to three times, unless `x-should-retry` says that this was done."""
    before = chains.openai.count(CHAT)
    chains.openai.always(Reply(503, {"error": {"message": "overloaded"}}))
    assert result("openai", "unavailable", url) == ["InternalServerError", 503]
    assert chains.openai.count(CHAT) == before + 1


@pytest.mark.parametrize("client", ["openai", "ollama", "huggingface"])
def test_a_stream_that_breaks_off_raises_after_its_pieces(client: str, url: str, chains: EveryChain) -> None:
    chains.openai.always(cut_stream(3))
    pieces, kind, words = result(client, "broken", url)
    assert pieces
    assert kind is not None
    assert words


def test_ai_sdk_reports_a_stream_that_breaks_off(url: str, chains: EveryChain) -> None:
    chains.openai.always(cut_stream(3))
    pieces, finish, errors = result("ai", "broken", url)
    assert pieces
    assert finish == "error"
    assert errors


@pytest.mark.parametrize("client", ["openai", "ollama", "huggingface", "ai"])
def test_who_aborts_a_stream_stops_the_work(client: str, url: str, chains: EveryChain) -> None:
    stall = stall_stream(3)
    chains.openai.always(stall)
    with running(client, "aborted", url) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        assert json.loads(line)
        assert stall.disconnected.wait(START_S)
        assert process.poll() is None


@pytest.mark.parametrize(("client", "case"), [("openai", "abortedWhole"), ("supabase", "aborted")])
def test_who_aborts_a_whole_answer_stops_the_work(client: str, case: str, url: str, chains: EveryChain) -> None:
    stall = stall_stream(0)
    chains.openai.always(stall)
    with running(client, case, url) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert stall.reached.wait(START_S)
        process.stdin.write("leave\n")
        process.stdin.flush()
        assert process.stdout.readline(), process.communicate()[1]
        assert stall.disconnected.wait(START_S)
        assert process.poll() is None


@pytest.mark.parametrize("package", ["openai", "ai"])
def test_the_recipe_of_a_package_runs(package: str, url: str) -> None:
    (recipe,) = (each for each in blocks(ROOT / "docs" / "typescript.md", "js") if f'from "{package}"' in each)
    vectors, text, tokens = printed(recipe.replace("http://127.0.0.1:8080", url)).splitlines()
    assert vectors.startswith("64 ")
    assert text == TEXT
    assert int(tokens) > 0


def test_ollama_plain(url: str) -> None:
    found = result("ollama", "plain", url)
    assert found.pop("vectors") == expected_vectors()
    assert found == {
        "models": ["docs:latest", "talk:latest"],
        "shown": ["completion", "tools"],
        "text": TEXT,
        "count": 3,
        "generated": TEXT,
    }


def test_ollama_streamed(url: str) -> None:
    assert result("ollama", "streamed", url) == PIECES


def test_ollama_calls_tools(url: str, chains: EveryChain) -> None:
    chains.openai.brain = script(Said(tool_calls=(("weather", {"city": "Paris"}),)))
    found = result("ollama", "tools", url)
    assert (found["name"], found["arguments"]) == ("weather", {"city": "Paris"})


def test_ollama_raises_its_own_errors(url: str) -> None:
    unknown, refused = result("ollama", "failing", url)
    assert unknown[:2] == ["ResponseError", 404]
    assert "did you mean 'talk'?" in unknown[2]
    assert refused[:2] == ["ResponseError", 405]
    assert "chains of hf-gateway.toml" in refused[2]


def test_huggingface_plain(url: str) -> None:
    """Of a model that is a URL it asks `/v1/completions` and `/v1/chat/completions` below that."""
    found = result("huggingface", "plain", url)
    assert found.pop("vectors") == expected_vectors()
    assert found == {
        "vector": 64,
        "generated": TEXT,
        "text": TEXT,
        "named": 1,
        "labels": found["labels"],
        "image": ["image/png", True],
    }
    assert len(found["labels"]) == 3


def test_huggingface_streamed(url: str) -> None:
    assert result("huggingface", "streamed", url) == PIECES


def test_huggingface_raises_its_own_errors(url: str) -> None:
    for (kind, status, body), near in zip(result("huggingface", "failing", url), ("docs", "talk"), strict=True):
        assert (kind, status) == ("InferenceClientProviderApiError", 404)
        assert f"did you mean '{near}'?" in body


def test_ai_sdk_plain(url: str) -> None:
    found = result("ai", "plain", url)
    assert found.pop("vectors") == expected_vectors()
    assert found == {"text": TEXT, "finish": "stop", "usage": 4}


def test_ai_sdk_streamed(url: str) -> None:
    assert result("ai", "streamed", url) == {"pieces": PIECES, "usage": 3}


def test_ai_sdk_calls_tools(url: str, chains: EveryChain) -> None:
    chains.openai.brain = script(Said(tool_calls=(("weather", {"city": "Paris"}),)))
    assert result("ai", "tools", url) == ["weather", {"city": "Paris"}]


def test_ai_sdk_raises_its_own_error(url: str) -> None:
    name, status, words, again = result("ai", "failing", url)
    assert (name, status, again) == ("AI_APICallError", 404, False)
    assert "did you mean 'talk'?" in words


def test_supabase_invokes_the_function(url: str) -> None:
    found = result("supabase", "plain", url)
    (generated, error), (vectors, _) = found["generated"], found["vectors"]
    assert error is None
    assert generated.pop("latency_ms") >= 0
    assert generated == {"success": True, "result": [{"generated_text": TEXT}], "cost_credits": 0}
    assert vectors["result"] == expected_vectors()
    assert found["image"] == "data:image/png;base64,"


def test_supabase_gives_the_functions_own_failure(url: str, chains: EveryChain) -> None:
    unknown, wrong = result("supabase", "failing", url)
    for (data, (kind, status, body)), wanted in ((unknown, 404), (wrong, 400)):
        assert data is None
        assert (kind, status, body["success"]) == ("FunctionsHttpError", wanted, False)
    chains.openai.always(Reply(429, {"error": {"message": "slow down"}}))
    _, (kind, status, body) = result("supabase", "unavailable", url)
    assert (kind, status) == ("FunctionsHttpError", 429)
    assert body == {"success": False, "error": "HuggingFace rate limit exceeded. Please try again later."}


def test_supabase_with_keys(tmp_path: Path) -> None:
    """Its public key, which it sends as `apikey` and as a bearer, is none of the server's."""
    packages()
    with a_ledger("sqlite", tmp_path) as database:
        key = make_key(database)
        with ServerProcess(f'[chains.docs]\ntargets = ["hash:64"]\n[server]\ndatabase = "{database}"\n') as process:
            (_, refused), (data, error) = result("supabase", "keyed", process.url, key)
    assert refused[:2] == ["FunctionsHttpError", 401]
    assert (len(data["result"]), error) == (64, None)
