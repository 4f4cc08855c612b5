"""What code that was written for another Hub connector finds here: names, built-in exceptions, answers as conditions."""

import asyncio
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hf_gateway import errors
from hf_gateway.hub import HubConnector, ModelMetadata
from hf_gateway.hub import errors as hub_errors
from hf_gateway.hub.licenses import license_of
from hf_gateway.testing import ManualClock
from tests.servers.hub import COMMIT, Listed, ReadHub, whoami
from tests.servers.loopback import Reply, dead_url, hang

TOKEN = "hf_abcDEF0123456789abcDEF0123456789ab"
MODEL, NAMELESS = "org/model", "org/nameless"
JOBS = ("submit_job", "get_job_status", "cancel_job", "stream_logs", "fetch_artifact", "get_pricing")


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[ReadHub]:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"architectures": ["BertModel"], "hidden_size": 4}')
    (folder / "model.safetensors").write_bytes(b"weights")
    models = {
        MODEL: Listed(folder, library_name="transformers", card={"license": "mit"}, parameters={"F32": 100}),
        NAMELESS: Listed(folder, library_name="transformers", parameters={"F32": 100}),
        "org/unknown": Listed(folder, card={"license": "unknown"}),
    }
    with ReadHub(models, accounts={TOKEN: whoami("ada", "write")}) as server:
        yield server


@pytest.fixture
def connect(tmp_path: Path) -> Iterator[Callable[..., HubConnector]]:
    made: list[HubConnector] = []

    def make(hub: ReadHub | str, **environment: str) -> HubConnector:
        url = hub if isinstance(hub, str) else hub.url
        made.append(HubConnector(endpoint=url, cache=tmp_path / "meta", clock=ManualClock(), environment=environment))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_it_says_what_it_is_and_what_it_takes(connect: Callable[..., HubConnector]) -> None:
    connector = connect(dead_url())
    assert connector.name == HubConnector.name == "huggingface"
    assert connector.get_required_credentials() == ["token"]
    assert connector.list_resources() == asyncio.run(connector.alist_resources()) == []


@pytest.mark.parametrize("name", [*JOBS, "train_model", "provision_compute", "create_endpoint"])
def test_what_is_not_done_here_says_where_it_is(name: str, connect: Callable[..., HubConnector]) -> None:
    with pytest.raises(NotImplementedError, match=r"https://|with transformers and peft|check_compatibility"):
        getattr(connect(dead_url()), name)("an argument", more=1)


@pytest.mark.parametrize("key", ["token", "api_key"])
def test_the_token_may_come_in_a_mapping(key: str, hub: ReadHub, connect: Callable[..., HubConnector]) -> None:
    connector = connect(hub)
    assert connector.connect({key: TOKEN}) is connector
    assert connector.verify_connection().name == "ada"
    assert asyncio.run(connect(hub).aconnect({key: TOKEN}))


@pytest.mark.parametrize("credentials", [{}, {"token": ""}, {"token": "sk-123"}, {"key": TOKEN}])
def test_a_mapping_without_a_token_is_a_value_error(
    credentials: dict[str, str], hub: ReadHub, connect: Callable[..., HubConnector]
) -> None:
    with pytest.raises(ValueError, match="Hugging Face token") as caught:
        connect(hub).connect(credentials)
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize("end", ["close", "disconnect", "aclose", "adisconnect"])
def test_whoever_disconnects_is_forgotten(end: str, hub: ReadHub, connect: Callable[..., HubConnector]) -> None:
    connector = connect(hub).connect(TOKEN)
    connector.verify_connection()
    left = getattr(connector, end)()
    ended = asyncio.run(left) if inspect.iscoroutine(left) else left
    assert ended is (True if "disconnect" in end else None)
    with pytest.raises(hub_errors.NotConnected):
        connector.verify_connection()
    connector.get_model_metadata(MODEL, use_cache=False)
    assert hub.requests[-1].bearer is None
    assert TOKEN not in str(_held(connector))


def _held(thing: Any, depth: int = 6) -> list[Any]:
    """Everything that an object still refers to, as far as `vars` shows it, secrets in clear."""
    if depth == 0:
        return []
    if hasattr(thing, "reveal"):
        return [thing.reveal()]
    parts = list(vars(thing).values()) if hasattr(thing, "__dict__") and not isinstance(thing, type) else []
    return [repr(thing), *(each for part in parts for each in _held(part, depth - 1))]


def test_nothing_to_search_for_is_everything(hub: ReadHub, connect: Callable[..., HubConnector]) -> None:
    assert len(connect(hub).search_models(None, None)) == 3


# As conditions


def test_a_verdict_is_as_true_as_its_ok(hub: ReadHub, connect: Callable[..., HubConnector]) -> None:
    connector = connect(hub)
    for library in ("transformers", "diffusers"):
        found = connector.check_compatibility(MODEL, library)
        assert bool(found) is found.ok is (library == "transformers")


def test_a_licence_is_true_where_one_is_named(hub: ReadHub, connect: Callable[..., HubConnector]) -> None:
    connector = connect(hub)
    assert [bool(connector.check_license(name)) for name in (MODEL, NAMELESS, "org/unknown")] == [True, False, False]
    assert connector.check_license(NAMELESS).identifier is None
    assert [bool(license_of(name)) for name in ("llama3", "other", "my-own", "none", "", None)] == [True] * 3 + [
        False
    ] * 3


def test_one_licence_or_tag_is_not_its_letters() -> None:
    built = ModelMetadata("a/b", license="mit", tags="text-generation")  # type: ignore[arg-type]
    read = ModelMetadata.from_dict({"id": "a/b", "license": "mit", "tags": "text-generation"})
    for found in (built, read, ModelMetadata.from_dict(built.to_dict())):
        assert (found.license, found.tags) == (("mit",), ("text-generation",))
    assert ModelMetadata("a/b", license="").license == ()  # type: ignore[arg-type]
    assert ModelMetadata.from_dict({"id": "a/b", "license": None}).license == ()


# Exceptions

KINDS: dict[str, tuple[type[Exception], Callable[[HubConnector], Any]]] = {
    "a name": (ValueError, lambda hub: hub.get_model_metadata("not a name")),
    "a limit": (ValueError, lambda hub: hub.search_models(limit=0)),
    "a revision": (ValueError, lambda hub: hub.download_model(MODEL, "..")),
    "no repo_id": (ValueError, lambda hub: hub.connect(TOKEN).upload_artifact("/", {})),
    "not connected": (RuntimeError, lambda hub: hub.upload_artifact("/", {})),
    "no such folder": (FileNotFoundError, lambda hub: hub.connect(TOKEN).upload_artifact("/nowhere", {"repo_id": "a/b"})),
    "no such model": (FileNotFoundError, lambda hub: hub.download_model("org/none")),
    "no such model to check": (FileNotFoundError, lambda hub: hub.check_license("org/none")),
    "no such revision": (FileNotFoundError, lambda hub: hub.download_model(MODEL, "v9")),
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_errors_are_also_what_other_connectors_raise(
    name: str, hub: ReadHub, connect: Callable[..., HubConnector]
) -> None:
    kind, call = KINDS[name]
    with pytest.raises(kind) as caught:
        call(connect(hub))
    assert isinstance(caught.value, errors.GatewayError) or name == "no such folder"


def test_a_hub_that_cannot_be_reached_is_a_connection_error(
    hub: ReadHub, connect: Callable[..., HubConnector], monkeypatch: pytest.MonkeyPatch
) -> None:
    from hf_gateway.hub import client

    monkeypatch.setattr(client, "TIMEOUT_S", 0.2)
    with pytest.raises(ConnectionError, match="no connection") as refused:
        connect(dead_url()).get_model_metadata(MODEL)
    assert isinstance(refused.value, errors.ConnectFailed)
    hub.always(hang())
    with pytest.raises(ConnectionError, match="no whole answer") as silent:
        connect(hub).get_model_metadata(MODEL)
    assert isinstance(silent.value, errors.AttemptTimedOut)


# What the Hub says

SENTENCE = "Please enable access to public gated repositories in your fine-grained token settings."


@pytest.mark.parametrize("where", ["header", "body"])
@pytest.mark.parametrize("code", ["", "GatedRepo"])
def test_a_refusal_has_the_hubs_own_sentence(
    code: str, where: str, hub: ReadHub, connect: Callable[..., HubConnector]
) -> None:
    told = {"x-error-message": SENTENCE} if where == "header" else {}
    hub.always(Reply(403, {"error": SENTENCE}, {"x-error-code": code, **told}))
    with pytest.raises(errors.PermissionDenied, match="the Hub says: Please enable access to public gated"):
        connect(hub).connect(TOKEN).get_model_metadata(MODEL)


def test_a_refusal_of_a_file_has_the_hubs_own_sentence(
    hub: ReadHub, connect: Callable[..., HubConnector], tmp_path: Path
) -> None:
    refused = Reply(403, {"error": SENTENCE}, {"x-error-message": SENTENCE})
    hub.always(refused, path=f"/{MODEL}/resolve/{COMMIT}/model.safetensors")
    with pytest.raises(errors.PermissionDenied, match="the Hub says: Please enable access"):
        connect(hub).connect(TOKEN).download_model(MODEL, cache_dir=tmp_path / "files")


def test_the_hubs_sentence_is_one_short_line_without_the_token(
    hub: ReadHub, connect: Callable[..., HubConnector]
) -> None:
    hub.always(Reply(403, {"error": f"no\r\n\x1b[31m{TOKEN} " + "x" * 1000}))
    with pytest.raises(errors.PermissionDenied) as caught:
        connect(hub).connect(TOKEN).get_model_metadata(MODEL)
    said = str(caught.value)
    assert said.isprintable()
    assert TOKEN not in said
    assert len(said) < 500
