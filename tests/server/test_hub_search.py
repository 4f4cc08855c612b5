"""Searching the Hub over HTTP: a real server process, the fake Hub and a real mirror of it."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from hf_gateway.hub import HubConnector
from tests.servers.hub import Listed, ReadHub, whoami
from tests.servers.olah import Olah, git, interpreter
from tests.servers.router import FakeRouter
from tests.support.gateway_server import START_S, ServerProcess, gateway_server
from tests.support.server_keys import bearer, make_key

CHAT = Path(__file__).parents[1] / "models" / "tiny-chat"
EMBEDDER = Listed(
    tags=("sentence-transformers", "license:apache-2.0"),
    card={"license": "apache-2.0"},
    parameters={"F32": 22_713_728},
    config={"architectures": ["BertModel"]},
    downloads=900,
)
CHATTER = Listed(
    CHAT,
    pipeline_tag="text-generation",
    library_name="transformers",
    tags=("transformers", "license:llama3.1"),
    card={"license": "llama3.1"},
    parameters={"F32": 398_000},
    config={"architectures": ["LlamaForCausalLM"]},
    providers=[{"provider": "novita", "status": "live", "task": "conversational", "providerId": "x"}],
    downloads=800,
    likes=99,
)
LARGE = Listed(
    declared={"model.safetensors": 10**15},
    pipeline_tag="text-generation",
    library_name="transformers",
    tags=("transformers",),
    parameters={"F32": 25 * 10**13},
    gated="manual",
    downloads=700,
)
MODELS = {"org/embedder": EMBEDDER, "org/chatter": CHATTER, "org/large": LARGE}
TOKEN = "hf_abcDEF0123456789"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ReadHub, str]]:
    """The fake Hub, and the address of a process that asks it."""
    folder = tmp_path_factory.mktemp("hub")
    with ReadHub(MODELS) as hub, FakeRouter() as router, contextlib.chdir(folder):
        asked = {"HF_ENDPOINT": hub.url, "HUGGINGFACE_BASE_URL": router.url, "HF_GATEWAY_HOME": str(folder / "home")}
        with ServerProcess(environment=asked) as server:
            yield hub, server.url


@pytest.fixture
def hub(served: tuple[ReadHub, str]) -> ReadHub:
    served[0].requests.clear()
    return served[0]


@pytest.fixture
def client(served: tuple[ReadHub, str], hub: ReadHub) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served[1], trust_env=False, timeout=START_S) as made:
        yield made


def searched(client: httpx.Client, **asked: Any) -> dict[str, Any]:
    answer = client.get("/admin/hub/search", params=asked)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    found: dict[str, Any] = answer.json()
    return found


def test_models_have_a_licence_and_a_verdict_for_this_machine(hub: ReadHub, client: httpx.Client) -> None:
    found = searched(client, query="org")
    assert (found["source"], found["reason"]) == ("hub", None)
    assert found["machine"]["memory"] > found["machine"]["available"] > 0
    embedder, chatter, large = found["models"]
    assert [each["id"] for each in found["models"]] == list(MODELS)
    assert (embedder["task"], embedder["pipeline_tag"]) == ("embedding", "sentence-similarity")
    assert (embedder["license"]["identifier"], embedder["license"]["class"]) == ("apache-2.0", "permissive")
    assert (embedder["fit"]["verdict"], embedder["fit"]["weights"]) == ("fits", 4 * 22_713_728)
    assert embedder["fit"]["memory"] == round(1.2 * 4 * 22_713_728) + 300 * 2**20
    assert (chatter["license"]["class"], chatter["likes"], chatter["task"]) == ("use-restricted", 99, "chat")
    assert {each["target"]: each["serves"] for each in chatter["targets"]}["hf:novita"] is True
    assert (large["fit"]["verdict"], large["gated"], large["license"]["identifier"]) == ("too_big", "manual", None)
    assert "gated" in large["fit"]["problems"][0]
    assert [request.path for request in hub.requests] == ["/api/models"], "an estimate takes the list alone"


def test_a_check_looks_at_the_files_as_the_command_does(hub: ReadHub, client: httpx.Client) -> None:
    (before,) = searched(client, query="chatter")["models"]
    (found,) = searched(client, query="chatter", check="true")["models"]
    assert (before["fit"]["verdict"], before["fit"]["checked"]) == ("unknown", False), "the list has no config.json"
    assert (found["fit"]["verdict"], found["fit"]["checked"]) == ("fits", True)
    with HubConnector(endpoint=hub.url) as own:
        expected = own.check_compatibility("org/chatter")
    assert (found["fit"]["weights"], found["fit"]["download"]) == (expected.needs.weights, expected.needs.download)


def test_order_tags_and_limit_are_the_hubs(hub: ReadHub, client: httpx.Client) -> None:
    assert [each["id"] for each in searched(client, sort="likes", limit=1)["models"]] == ["org/chatter"]
    tagged = searched(client, tags="transformers, text-generation")["models"]
    assert [each["id"] for each in tagged] == ["org/chatter", "org/large"]
    assert hub.requests[-1].query["filter"] == ["transformers", "text-generation"]


@pytest.mark.parametrize(
    "asked", [{"limit": "0"}, {"limit": "101"}, {"sort": "size"}, {"query": "x" * 201}, {"endpoint": "http://x"}]
)
def test_a_wrong_search_is_refused_and_sends_nothing(hub: ReadHub, client: httpx.Client, asked: dict[str, str]) -> None:
    answer = client.get("/admin/hub/search", params=asked)
    assert answer.status_code == 400
    assert next(iter(asked)) in answer.json()["error"]
    assert hub.requests == []


def test_without_the_hub_the_cache_answers_and_private_models_are_the_administrators(tmp_path: Path) -> None:
    private = Listed(private=True, readers=(TOKEN,), parameters={"F32": 9})
    database = f"sqlite:///{tmp_path / 'keys.sqlite'}"
    with ReadHub({**MODELS, "org/secret": private}, accounts={TOKEN: whoami("ada")}) as hub:
        address = hub.url
        with HubConnector(endpoint=address) as own:
            own.connect(TOKEN).search_models("org")
    with (
        ServerProcess(None, environment={"HF_ENDPOINT": address, "HF_GATEWAY_SERVER_DATABASE": database}) as server,
        server.client() as client,
    ):
        found = searched(client, query="org", check="true")
        assert (found["source"], [each["id"] for each in found["models"]]) == ("cache", list(MODELS))
        assert found["reason"]
        assert not any(each["fit"]["checked"] for each in found["models"])
        client.headers.update(bearer(make_key(database)))
        assert "org/secret" in [each["id"] for each in searched(client, query="org")["models"]]


@pytest.mark.parametrize("rights", [{"tenant": "acme"}, {"chains": frozenset({"docs"})}, {"scopes": {"embed"}}])
def test_the_search_is_of_all_tenants(
    hub: ReadHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rights: dict[str, Any]
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    database = f"sqlite:///{tmp_path / 'keys.sqlite'}"
    with gateway_server(database=database) as server, server.client() as client:
        client.headers.update(bearer(make_key(database, **rights)))
        assert client.get("/admin/hub/search").status_code == 403
    assert hub.requests == []


@pytest.mark.real_server
@pytest.mark.xdist_group("olah")
@pytest.mark.skipif(interpreter() is None, reason="olah is not installed: see tests/servers/olah-requirements.txt")
def test_behind_a_mirror_that_has_no_search_what_was_read_of_it_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "mirror" / "models" / "org" / "tiny"
    folder.parent.mkdir(parents=True)
    git(folder.parent, "init", "--quiet", "--initial-branch=main", "tiny")
    for each in CHAT.iterdir():
        (folder / each.name).write_bytes(each.read_bytes())
    (folder / "README.md").write_text("---\nlicense: mit\npipeline_tag: text-generation\n---\n# Tiny\n")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message=one")
    with Olah(tmp_path / "mirror", tmp_path / "olah") as olah:
        with HubConnector(endpoint=olah.url) as own:
            own.get_model_metadata("org/tiny")
        with ServerProcess(environment={"HF_ENDPOINT": olah.url}) as server, server.client() as client:
            found = searched(client, query="tiny", check="true")
    (tiny,) = found["models"]
    assert found["source"] == "cache"
    assert (tiny["license"]["class"], tiny["fit"]["verdict"], tiny["fit"]["checked"]) == ("permissive", "fits", True)
