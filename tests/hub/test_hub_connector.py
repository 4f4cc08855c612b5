"""HubConnector: connecting, searching, metadata; online, offline and where it fails, blocking and async."""

import asyncio
import inspect
import json
import socket
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from blockbuster import blockbuster_ctx

from hf_gateway import errors
from hf_gateway.hub import HubConnector, ModelCache, ModelMetadata, Models
from hf_gateway.hub.errors import NotConnected
from hf_gateway.testing import ManualClock
from tests.servers.hub import Listed, ReadHub, whoami
from tests.servers.loopback import Reply, dead_url, disconnect, garbage, html, redirect

TOKEN = "hf_abcDEF0123456789abcDEF0123456789ab"
LLAMA = "meta-llama/Llama-3.1-8B-Instruct"
MODELS = {
    LLAMA: Listed(
        declared={"model.safetensors": 16_000, "config.json": 855, "README.md": 100},
        gated="manual",
        pipeline_tag="text-generation",
        library_name="transformers",
        tags=("transformers", "safetensors", "license:llama3.1"),
        card={"license": "llama3.1", "base_model": "meta-llama/Llama-3.1-8B"},
        config={"architectures": ["LlamaForCausalLM"], "model_type": "llama"},
        parameters={"BF16": 8000},
        downloads=5_795_728,
        likes=3763,
        trending=17,
        providers=[{"provider": "novita", "status": "live", "task": "conversational", "providerId": "llama-3.1"}],
    ),
    "someone/tiny-llama": Listed(downloads=70, likes=5000, modified="2026-01-01T00:00:00.000Z", tags=("llama", "en")),
    "BAAI/bge-small": Listed(downloads=90, likes=2, trending=99, tags=("mteb", "en")),
    "ada/secret": Listed(private=True, readers=(TOKEN,)),
}


class Time:
    """The cache's clock."""

    def __init__(self) -> None:
        self.moment = datetime(2026, 11, 20, 12, tzinfo=UTC)

    def __call__(self) -> float:
        return self.moment.timestamp()

    def pass_(self, **duration: float) -> None:
        self.moment += timedelta(**duration)


@pytest.fixture
def hub() -> Iterator[ReadHub]:
    with ReadHub(MODELS, accounts={TOKEN: whoami("ada", "write")}, moved={"llama": LLAMA}) as server:
        yield server


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def connect(tmp_path: Path, time: Time) -> Iterator[Callable[..., HubConnector]]:
    """Make connectors that share one cache folder, as processes do; environment: variables for this one."""
    made: list[HubConnector] = []

    def make(hub: ReadHub | str, **environment: str) -> HubConnector:
        url = hub if isinstance(hub, str) else hub.url
        cache = ModelCache(tmp_path / "cache", endpoint=url, now=time)
        made.append(HubConnector(endpoint=url, cache=cache, clock=ManualClock(), environment=environment))
        return made[-1]

    yield make
    for each in made:
        each.close()


Form = Callable[..., Any]
ASYNC = (
    "connect",
    "verify_connection",
    "search_models",
    "get_model_metadata",
    "check_license",
    "check_compatibility",
    "download_model",
    "upload_artifact",
)


@pytest.fixture(params=["blocking", "async"])
def call(request: pytest.FixtureRequest) -> Form:
    """Call a method in its blocking form, or its async form with a watch for what blocks the loop."""
    if request.param == "blocking":
        return lambda hub, name, *args, **named: getattr(hub, name)(*args, **named)

    def run(hub: HubConnector, name: str, *args: Any, **named: Any) -> Any:
        async def inner() -> Any:
            with blockbuster_ctx():
                # Connections are closed with the loop; `aclose` would forget the token for the next call.
                return await getattr(hub, f"a{name}")(*args, **named)

        return asyncio.run(inner())

    return run


@pytest.mark.parametrize("name", ASYNC)
def test_every_method_has_an_async_form_with_the_same_arguments(name: str) -> None:
    blocking, coroutine = getattr(HubConnector, name), getattr(HubConnector, f"a{name}")
    assert inspect.iscoroutinefunction(coroutine)
    assert inspect.signature(blocking) == inspect.signature(coroutine)


# Connecting


NOT_TOKENS = [
    "",
    " ",
    "abc",
    "HF_abc",
    "hf_",
    "sk-0123456789",
    "hf_abc def",
    "hf_abc\ndef",
    "Bearer hf_abc",
    "hf_ümlaut",
]


@pytest.mark.parametrize("token", NOT_TOKENS)
def test_a_token_of_another_form_is_a_value_error_before_any_request(
    hub: ReadHub, connect: Callable[..., HubConnector], token: str
) -> None:
    with pytest.raises(ValueError, match="Hugging Face token") as caught:
        connect(hub).connect(token)
    assert hub.count() == 0
    assert not token.strip() or token.strip() not in str(caught.value).replace("'hf_'", "")


def test_connecting_sends_nothing_and_verifying_asks_whose_token_it_is(
    hub: ReadHub, connect: Callable[..., HubConnector], call: Form
) -> None:
    connector = connect(hub)
    assert call(connector, "connect", f" {TOKEN}\n") is connector
    assert hub.count() == 0
    account = call(connector, "verify_connection")
    assert (account.name, account.role) == ("ada", "write")
    assert (account.can_read, account.can_infer, account.can_write) == (True, True, True)
    assert hub.requests[0].bearer == TOKEN


def test_the_scopes_of_a_fine_grained_token_are_explained(connect: Callable[..., HubConnector]) -> None:
    scoped = [
        {"entity": {"type": "user", "name": "ada"}, "permissions": ["repo.content.read", "inference.serverless.write"]}
    ]
    account = whoami("ada", "fineGrained", fineGrained={"global": [], "scoped": scoped})
    with ReadHub(accounts={TOKEN: account}) as hub:
        found = connect(hub).connect(TOKEN).verify_connection()
    assert (found.can_read, found.can_infer, found.can_write) == (True, True, False)
    assert "may not write to repositories" in " ".join(found.in_words())


def test_whoami_is_asked_once_an_hour(hub: ReadHub, tmp_path: Path) -> None:
    clock = ManualClock()
    with HubConnector(endpoint=hub.url, cache=tmp_path, clock=clock, environment={}) as connector:
        connector.connect(TOKEN)
        for _ in range(3):
            connector.verify_connection()
        assert hub.count("/api/whoami-v2") == 1
        clock.advance(3601)
        connector.verify_connection()
        assert hub.count("/api/whoami-v2") == 2


def test_another_token_is_another_account(hub: ReadHub, connect: Callable[..., HubConnector]) -> None:
    hub.accounts["hf_other"] = whoami("bob")
    hub.users = {**hub.users, "hf_other": "bob"}
    connector = connect(hub).connect(TOKEN)
    assert connector.verify_connection().name == "ada"
    assert connector.connect("hf_other").verify_connection().name == "bob"


@pytest.mark.parametrize(
    ("name", "arguments"), [("verify_connection", ()), ("upload_artifact", ("/tmp", {"repo_id": "a/b"}))]
)
def test_what_needs_a_connection_says_so_without_one(
    hub: ReadHub, connect: Callable[..., HubConnector], call: Form, name: str, arguments: tuple[Any, ...]
) -> None:
    with pytest.raises(RuntimeError, match=r"not connected: call connect\(token\)"):
        call(connect(hub), name, *arguments)
    assert hub.count() == 0


def test_connecting_without_a_token_and_without_one_to_be_found_says_where_to_get_one(
    hub: ReadHub, connect: Callable[..., HubConnector]
) -> None:
    with pytest.raises(
        NotConnected, match="no token to connect with: pass one; or else run `hf-gateway login --origin"
    ):
        connect(hub).connect()


def test_a_refused_token_is_in_no_error(hub: ReadHub, connect: Callable[..., HubConnector], call: Form) -> None:
    bad = "hf_thisIsNotValid0000000000000000000"
    connector = connect(hub).connect(bad)
    for name, arguments in (("verify_connection", ()), ("get_model_metadata", (LLAMA,)), ("search_models", ("x",))):
        with pytest.raises(errors.AuthenticationFailed, match="refuses the token") as caught:
            call(connector, name, *arguments)
        told = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + repr(connector)
        assert bad not in told
    assert bad not in repr(vars(connector))


def test_an_error_that_quotes_the_token_is_scrubbed(hub: ReadHub, connect: Callable[..., HubConnector]) -> None:
    hub.always(Reply(500, {"error": f"cannot serve {TOKEN}"}))
    with pytest.raises(errors.ServerError) as caught:
        connect(hub).connect(TOKEN).get_model_metadata(LLAMA)
    assert TOKEN not in "".join(traceback.format_exception(caught.value))


def test_the_token_of_the_environment_goes_to_hugging_face_only(
    hub: ReadHub, connect: Callable[..., HubConnector]
) -> None:
    connect(hub, HF_TOKEN=TOKEN).get_model_metadata(LLAMA)
    assert all(request.bearer is None for request in hub.requests)


def test_a_token_over_plain_http_to_elsewhere_is_refused(tmp_path: Path) -> None:
    connector = HubConnector(endpoint="http://hub.example.com", cache=tmp_path, environment={})
    with pytest.raises(errors.ConfigError, match="use https"):
        connector.connect(TOKEN)


# Metadata


def test_metadata_hold_what_the_hub_says(hub: ReadHub, connect: Callable[..., HubConnector], call: Form) -> None:
    found = call(connect(hub), "get_model_metadata", LLAMA)
    assert isinstance(found, ModelMetadata)
    assert (found.id, found.author, found.downloads, found.likes) == (LLAMA, "meta-llama", 5_795_728, 3763)
    assert (found.pipeline_tag, found.library_name, found.license) == ("text-generation", "transformers", ("llama3.1",))
    assert (found.size, len(found.files), found.files[0].path) == (16_955, 3, "model.safetensors")
    assert (found.gated, found.private, found.trending) == ("manual", False, 17)
    assert found.parameters == {"BF16": 8000}
    assert found.card_data["base_model"] == "meta-llama/Llama-3.1-8B"
    assert found.providers[0]["provider"] == "novita"
    assert found.modified == datetime(2025, 3, 6, 13, 37, 44, tzinfo=UTC)
    assert ModelMetadata.from_dict(found.to_dict()) == found


def test_what_is_fresh_is_served_without_a_request_also_by_another_process(
    hub: ReadHub, connect: Callable[..., HubConnector], call: Form, time: Time
) -> None:
    first = call(connect(hub), "get_model_metadata", LLAMA)
    asked = hub.count()
    time.pass_(hours=23)
    assert call(connect(hub), "get_model_metadata", LLAMA) == first
    assert hub.count() == asked


def test_what_is_old_is_asked_for_again_by_its_etag(
    hub: ReadHub, connect: Callable[..., HubConnector], call: Form, time: Time
) -> None:
    first = call(connect(hub), "get_model_metadata", LLAMA)
    before = hub.count()
    time.pass_(hours=25)
    second = call(connect(hub), "get_model_metadata", LLAMA)
    assert second.cached_at == time.moment
    assert second.to_dict() | {"cached_at": None} == first.to_dict() | {"cached_at": None}
    again = hub.requests[before:]
    assert len(again) == 2
    assert all(request.headers["if-none-match"].startswith('W/"') for request in again)
    time.pass_(hours=23)
    call(connect(hub), "get_model_metadata", LLAMA)
    assert len(hub.requests) == before + 2


def test_what_has_changed_meanwhile_is_read_anew(
    hub: ReadHub, connect: Callable[..., HubConnector], time: Time
) -> None:
    connect(hub).get_model_metadata(LLAMA)
    hub.models = {LLAMA: Listed(downloads=1, sha="1" * 40, declared={"a.safetensors": 5})}
    time.pass_(hours=25)
    found = connect(hub).get_model_metadata(LLAMA)
    assert found is not None
    assert (found.downloads, found.sha, found.size, found.providers) == (1, "1" * 40, 5, ())


def test_use_cache_false_asks_in_any_case(hub: ReadHub, connect: Callable[..., HubConnector]) -> None:
    connector = connect(hub)
    connector.get_model_metadata(LLAMA)
    asked = hub.count()
    connector.get_model_metadata(LLAMA, use_cache=False)
    assert hub.count() == asked + 2


def test_an_unknown_model_is_none(hub: ReadHub, connect: Callable[..., HubConnector], call: Form) -> None:
    assert call(connect(hub), "get_model_metadata", "nobody/nothing") is None
    connector = connect(hub).connect(TOKEN)
    assert call(connector, "get_model_metadata", "nobody/nothing") is None


def test_a_private_model_is_there_for_those_who_may_read_it(hub: ReadHub, connect: Callable[..., HubConnector]) -> None:
    assert connect(hub).get_model_metadata("ada/secret") is None
    found = connect(hub).connect(TOKEN).get_model_metadata("ada/secret")
    assert found is not None
    assert found.private


def test_a_model_that_was_deleted_is_forgotten(hub: ReadHub, connect: Callable[..., HubConnector], time: Time) -> None:
    connect(hub).get_model_metadata(LLAMA)
    hub.models = {}
    time.pass_(hours=25)
    assert connect(hub).get_model_metadata(LLAMA) is None
    assert connect(hub).cache.get(LLAMA, ttl_hours=None) is None


def test_a_model_that_was_renamed_is_found_and_kept_under_both_names(
    hub: ReadHub, connect: Callable[..., HubConnector]
) -> None:
    found = connect(hub).get_model_metadata("llama")
    assert found is not None
    assert found.id == LLAMA
    asked = hub.count()
    for name in ("llama", LLAMA):
        assert connect(hub).get_model_metadata(name) == found
    assert hub.count() == asked


AWAY: dict[str, Any] = {
    "busy": Reply(503, {"error": "overloaded"}),
    "broken": Reply(500, {"error": "Internal Error"}),
    "a proxy's page": html(502),
    "a proxy's page that says 200": html(200),
    "not JSON": garbage(),
    "cut off": disconnect(reset=True),
    "over its limit": Reply(429, {"error": "rate limit"}, {"ratelimit": '"api";r=0;t=200'}),
    "sent elsewhere": redirect("http://127.0.0.2:9/api/models/x"),
}


@pytest.mark.parametrize("fault", AWAY)
def test_what_is_old_is_served_with_its_age_while_the_hub_cannot_be_asked(
    hub: ReadHub, connect: Callable[..., HubConnector], call: Form, time: Time, fault: str
) -> None:
    call(connect(hub), "get_model_metadata", LLAMA)
    time.pass_(days=3)
    hub.always(AWAY[fault])
    found = call(connect(hub), "get_model_metadata", LLAMA)
    assert found.id == LLAMA
    assert found.stale.startswith("3 days old: ")
    assert found.age(time.moment) == timedelta(days=3)
    with pytest.raises(errors.GatewayError):
        call(connect(hub), "get_model_metadata", LLAMA, use_cache=False)
    hub.recover()
    found = call(connect(hub), "get_model_metadata", LLAMA)
    assert found.stale is None


@pytest.mark.parametrize("fault", AWAY)
def test_with_nothing_cached_it_says_why_it_cannot_be_asked(
    hub: ReadHub, connect: Callable[..., HubConnector], fault: str
) -> None:
    hub.always(AWAY[fault])
    with pytest.raises(errors.Unavailable):
        connect(hub).get_model_metadata(LLAMA)


def test_without_any_network_the_cache_serves(hub: ReadHub, tmp_path: Path, call: Form) -> None:
    cache = ModelCache(tmp_path, endpoint=(url := dead_url()))
    cache.set(ModelMetadata(id=LLAMA, cached_at=datetime.now(UTC) - timedelta(days=2)))
    connector = HubConnector(endpoint=url, cache=cache, environment={})
    found = call(connector, "get_model_metadata", LLAMA)
    assert found.stale.startswith("2 days old: the Hub: no connection to") or "no connection" in found.stale
    with pytest.raises(errors.ConnectFailed, match="no connection"):
        call(connector, "get_model_metadata", "a/b")


def test_the_offline_switch_sends_nothing(hub: ReadHub, connect: Callable[..., HubConnector], call: Form) -> None:
    call(connect(hub), "get_model_metadata", LLAMA)
    asked = hub.count()
    offline = connect(hub, HF_HUB_OFFLINE="1")
    assert call(offline, "get_model_metadata", LLAMA).stale is None
    assert call(offline, "search_models", "llama").source == "cache"
    with pytest.raises(errors.ConnectFailed, match="HF_HUB_OFFLINE is set"):
        call(offline, "get_model_metadata", "a/b")
    assert hub.count() == asked


def test_a_hub_that_is_away_is_not_asked_by_every_call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tries: list[Any] = []
    connect_to = socket.socket.connect
    monkeypatch.setattr(socket.socket, "connect", lambda self, at: (tries.append(at), connect_to(self, at))[1])
    clock = ManualClock()
    with HubConnector(endpoint=dead_url(), cache=tmp_path, clock=clock, environment={}) as connector:
        for _ in range(4):
            with pytest.raises(errors.ConnectFailed):
                connector.get_model_metadata(LLAMA)
        assert len(tries) == 1
        clock.advance(31)
        with pytest.raises(errors.ConnectFailed):
            connector.get_model_metadata(LLAMA)
        assert len(tries) == 2


@pytest.mark.parametrize("name", ["a/b/c", "../x", "a//b", "a b", "a?b", "-a/b", "a/b.git", "", "a" * 97, "ä/b"])
def test_what_is_not_the_id_of_a_model_is_a_value_error_before_any_request(
    hub: ReadHub, connect: Callable[..., HubConnector], call: Form, name: str
) -> None:
    for method in ("get_model_metadata", "check_license", "check_compatibility", "download_model"):
        with pytest.raises(ValueError, match="is not a model id"):
            call(connect(hub), method, name)
    assert hub.count() == 0


# Search


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"query": "llama"}, [LLAMA, "someone/tiny-llama"]),
        ({"query": "llama", "sort": "likes"}, ["someone/tiny-llama", LLAMA]),
        ({"sort": "updated", "limit": 1}, ["someone/tiny-llama"]),
        ({"sort": "trending", "limit": 2}, ["BAAI/bge-small", LLAMA]),
        ({"filter_tags": ["en"]}, ["BAAI/bge-small", "someone/tiny-llama"]),
        ({"filter_tags": ["en", "mteb"]}, ["BAAI/bge-small"]),
        ({"query": "nothing like this"}, []),
    ],
)
def test_search_online_and_then_offline_from_what_was_found(
    hub: ReadHub, connect: Callable[..., HubConnector], call: Form, arguments: dict[str, Any], expected: list[str]
) -> None:
    found = call(connect(hub), "search_models", **arguments)
    assert isinstance(found, Models)
    assert [each.id for each in found] == expected
    assert (found.source, found.reason) == ("hub", None)
    hub.always(disconnect())
    offline = call(connect(hub), "search_models", **arguments)
    assert [each.id for each in offline] == expected
    assert offline.source == "cache"
    assert offline.reason is not None
    assert all("old: " in str(each.stale) for each in offline)


def test_search_goes_from_page_to_page_and_no_further_than_it_must(connect: Callable[..., HubConnector]) -> None:
    models = {f"a/m{number:02}": Listed(downloads=number) for number in range(30)}
    with ReadHub(models, page=4) as hub:
        found = connect(hub).search_models(limit=10)
        assert [each.downloads for each in found] == list(range(29, 19, -1))
        assert hub.count("/api/models") == 3
        assert len(connect(hub).search_models(limit=100)) == 30


FAR_FROM = {"lastModified": "0001-01-01T00:00:00+05:00", "createdAt": "9999-12-31T23:59:59-05:00"}
ODD: dict[str, dict[str, Any]] = {
    "a number for tags": {"tags": 5},
    "tags of anything": {"tags": [5, None, "en", "\ud800"]},
    "a trend of hundreds of digits": {"trendingScore": 10**400},
    "a trend that is none": {"trendingScore": float("nan")},
    "a number for architectures": {"config": {"architectures": 5}},
    "moments outside of the calendar": FAR_FROM,
    "moments without a zone": {"lastModified": "0001-01-01T00:00:00", "createdAt": 5},
    "less than nothing": {"downloads": -(2**64), "likes": -1},
    "more than a database holds": {"downloads": 2**64, "likes": 10**400},
    "yes and no for numbers": {"downloads": True, "likes": False, "trendingScore": True},
    "lists for words": {"author": [], "sha": {}, "pipeline_tag": 5, "library_name": ["x"], "gated": [], "license": 5},
    "half a character": {"author": "\ud800", "sha": "\udfff", "pipeline_tag": "\ud800"},
    "odd cards": {"cardData": {"license": [5, {}], "base_model": 5, "x": float("inf"), "y": 10**4000}},
    "a card that is none": {"cardData": "license: mit"},
    "files that are none": {"siblings": [5, {"rfilename": 5}, {"rfilename": "a", "size": -1}, {"rfilename": "\ud800"}]},
    "odd weights": {
        "safetensors": {"parameters": {"F32": -1, "F16": 10**400}},
        "gguf": {"total": -5, "context_length": "x"},
    },
    "odd providers": {"inferenceProviderMapping": {"x": 5, "y": {"provider": 5}, "z": {"task": []}}},
}


@pytest.mark.parametrize("name", ODD)
def test_odd_values_of_one_model_are_as_if_they_were_not_said(
    hub: ReadHub, connect: Callable[..., HubConnector], name: str
) -> None:
    odd = {"id": "a/odd", "tags": ["odd"], **ODD[name]}
    hub.always(Reply(200, json.dumps([odd, {"id": 5}, {"id": "a/plain"}])), path="/api/models")
    for path in ("/api/models/a/odd", "/api/models/a/odd/revision/main"):
        hub.always(Reply(200, json.dumps(odd)), path=path)
    connector = connect(hub)
    found = connector.search_models()
    assert ([each.id for each in found], found.source) == (["a/odd", "a/plain"], "hub")
    whole = connector.get_model_metadata("a/odd")
    assert whole is not None
    for each in (found[0], whole):
        json.dumps(each.to_dict(), allow_nan=False)
        assert 0 <= each.downloads < 2**63
        assert all(isinstance(tag, str) for tag in each.tags)
    connector.check_compatibility("a/odd")
    connector.check_license("a/odd")
    hub.always(disconnect())
    assert {each.id for each in connector.search_models()} == {"a/odd", "a/plain"}
    assert connector.cache.get("a/odd", None) == whole


def test_a_model_whose_name_no_url_can_hold_is_left_out_of_a_list(
    hub: ReadHub, connect: Callable[..., HubConnector]
) -> None:
    hub.always(Reply(200, json.dumps([{"id": "\ud800"}, {"id": "a/plain"}])), path="/api/models")
    assert [each.id for each in connect(hub).search_models()] == ["a/plain"]


def test_of_counts_of_which_one_cannot_be_read_none_is_taken(
    hub: ReadHub, connect: Callable[..., HubConnector]
) -> None:
    hub.models = {
        "a/b": Listed(
            declared={"model.safetensors": 20 * 10**9},
            parameters={"F32": 100},
            config={"architectures": ["BertModel"]},
        )
    }
    odd = {"BF16": "10000000000", "F32": 100}
    told = hub.handle

    def unreadable(request: Any) -> Reply:
        reply = told(request)
        if isinstance(reply.body, dict) and "safetensors" in reply.body:
            return Reply(200, {**reply.body, "safetensors": {"parameters": odd}}, reply.headers)
        return reply

    hub.handle = unreadable  # type: ignore[method-assign]
    found = connect(hub).check_compatibility("a/b")
    assert (found.needs.weights, found.needs.by_dtype) == (20 * 10**9, {})


def test_a_next_page_on_another_server_is_not_asked(hub: ReadHub, connect: Callable[..., HubConnector]) -> None:
    elsewhere = {"link": '<http://127.0.0.1:9/api/models?cursor=1>; rel="next"'}
    hub.fail(Reply(200, [{"id": "a/b"}], elsewhere))
    found = connect(hub).connect(TOKEN).search_models(limit=5)
    assert found.source == "cache"
    assert "another server" in str(found.reason)
    assert hub.count() == 1


def test_what_a_search_found_is_not_passed_off_as_all_there_is_to_know(
    hub: ReadHub, connect: Callable[..., HubConnector]
) -> None:
    connector = connect(hub)
    (listed,) = connector.search_models("Llama-3.1")
    assert (listed.complete, listed.size, listed.files) == (False, None, ())
    found = connector.get_model_metadata(LLAMA)
    assert found is not None
    assert (found.complete, found.size) == (True, 16_955)
    hub.always(disconnect())
    connector.search_models("Llama-3.1")
    assert connector.cache.get(LLAMA) == found


def test_a_list_alone_serves_where_there_is_no_network(hub: ReadHub, connect: Callable[..., HubConnector]) -> None:
    connect(hub).search_models("Llama-3.1")
    hub.always(disconnect())
    found = connect(hub).get_model_metadata(LLAMA)
    assert found is not None
    assert not found.complete
    assert found.stale is not None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"sort": "stars"}, "unknown order 'stars'"),
        ({"limit": 0}, "limit is 1 to 1,000"),
        ({"limit": 1001}, "limit is 1 to 1,000"),
        ({"limit": 10**20}, "limit is 1 to 1,000"),
        ({"filter_tags": "en"}, "is a list of tags"),
        ({"query": "\udcff"}, "valid Unicode text"),
        ({"filter_tags": ["\udcff"]}, "valid Unicode text"),
    ],
)
def test_search_refuses_what_there_is_not_before_any_request(
    hub: ReadHub, connect: Callable[..., HubConnector], arguments: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        connect(hub).search_models(**arguments)
    assert hub.count() == 0


# What is not done, and what is given to others


@pytest.mark.parametrize(
    ("name", "said"),
    [("train_model", "does not train"), ("provision_compute", "does not rent"), ("create_endpoint", "endpoint:")],
)
def test_what_is_not_done_here_says_where_it_is(
    hub: ReadHub, connect: Callable[..., HubConnector], name: str, said: str
) -> None:
    with pytest.raises(NotImplementedError, match=said):
        getattr(connect(hub), name)("a/b", gpus=8)


def test_an_upload_says_what_it_lacks_before_any_request(
    hub: ReadHub, connect: Callable[..., HubConnector], call: Form, tmp_path: Path
) -> None:
    connector = connect(hub).connect(TOKEN)
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        call(connector, "upload_artifact", tmp_path / "nowhere", {"repo_id": "ada/x"})
    with pytest.raises(ValueError, match="repo_id"):
        call(connector, "upload_artifact", tmp_path, {})
    assert hub.count() == 0


def test_an_upload_is_published_with_the_connectors_own_key(
    hub: ReadHub, connect: Callable[..., HubConnector], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hf_gateway.hub import publish

    asked: dict[str, Any] = {}
    monkeypatch.setattr(publish, "publish", lambda path, **named: asked.update(path=path, **named))
    metadata = {"repo_id": "ada/adapter", "private": False, "dry_run": True, "license": "mit"}
    connect(hub).connect(TOKEN).upload_artifact(tmp_path, metadata)
    credential = asked.pop("credential")
    assert credential.secret.reveal() == TOKEN
    told = {"path": tmp_path, "repo_id": "ada/adapter", "endpoint": hub.url, "metadata": metadata}
    assert asked == told | {"stop": None}


def test_the_package_imports_nothing_until_a_name_of_it_is_used() -> None:
    import subprocess
    import sys

    code = "import sys, hf_gateway.hub; print([n for n in ('httpx', 'huggingface_hub', 'sqlite3', 'rich') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
