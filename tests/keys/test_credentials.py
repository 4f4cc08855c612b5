"""Keys: found in order, bound to one origin, shown nowhere."""

import copy
import functools
import logging
import pickle
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from hf_gateway import Gateway, Target, errors
from hf_gateway.errors import ConfigError
from hf_gateway.keys.credentials import find_credential, is_hugging_face, origin_of
from hf_gateway.values.secret import Secret
from tests.servers import unit_vectors
from tests.servers.loopback import Reply, cut, dead_url, disconnect, garbage, hang, html, redirect
from tests.servers.openai import FakeOpenAI
from tests.servers.router import FakeHub, FakeRouter
from tests.servers.tei import FakeTEI
from tests.support.doors import door
from tests.support.embedders import MODEL, Caller
from tests.support.late import COLLECTED

if COLLECTED:
    from langchain_hf_gateway import HFGatewayEmbeddings


KEY = "hf_SuperSecretValue0123456789"
Make = Callable[..., Caller]


@pytest.fixture(params=["sync", "async"])
def caller(request: pytest.FixtureRequest) -> Make:
    return functools.partial(Caller, request.param == "async")


@pytest.mark.parametrize(
    ("url", "ours"),
    [
        ("https://huggingface.co", True),
        ("https://router.huggingface.co/v1", True),
        ("https://abc.us-east-1.aws.endpoints.huggingface.cloud", True),
        ("https://HUGGINGFACE.co:443/x", True),
        ("http://huggingface.co", False),
        ("https://huggingface.co:8443", False),
        ("https://huggingface.co.evil.example", False),
        ("https://evilhuggingface.co", False),
        ("https://endpoints.huggingface.cloud.evil.example", False),
        ("https://huggingface.cloud", False),
        ("http://127.0.0.1:8080", False),
    ],
)
def test_a_hugging_face_token_is_for_hugging_faces_own_hosts_over_https(url: str, ours: bool) -> None:
    assert is_hugging_face(url) is ours
    assert (find_credential(url, environment={"HF_TOKEN": KEY}) is not None) is ours


def test_a_credential_fits_its_own_scheme_host_and_port_only() -> None:
    credential = find_credential("https://huggingface.co", environment={"HF_TOKEN": KEY})
    assert credential is not None
    assert credential.header_for("https://huggingface.co/api/models/x") == {"authorization": f"Bearer {KEY}"}
    for other in (
        "http://huggingface.co",
        "https://huggingface.co:444",
        "https://router.huggingface.co",
        "https://example.org",
    ):
        assert credential.header_for(other) == {}
    assert origin_of("https://A.b:443/x") == origin_of("https://a.B/y")
    assert origin_of("http://a.b:80/x") == origin_of("http://a.b/y")


def test_sources_are_tried_in_order_argument_environment_login(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_login")
    hub = "https://huggingface.co"
    everything = {"HF_TOKEN": "hf_env", "HUGGINGFACEHUB_API_TOKEN": "hf_old", "MINE": "mine"}
    from hf_gateway.values.secret import EnvKey

    steps: list[tuple[dict[str, Any], str]] = [
        ({"bound": Secret("bound"), "given": Secret("given"), "environment": everything}, "bound"),
        ({"bound": EnvKey("MINE"), "environment": everything}, "mine"),
        ({"given": Secret("given"), "environment": everything}, "given"),
        ({"environment": everything}, "hf_env"),
        ({"environment": {"HUGGINGFACEHUB_API_TOKEN": "hf_old"}}, "hf_old"),
        ({"environment": {}}, "hf_login"),
    ]
    for arguments, expected in steps:
        found = find_credential(hub, **arguments)
        assert found is not None
        assert found.secret.reveal() == expected
    assert find_credential("https://example.org", environment=everything) is None


@pytest.mark.parametrize("name", ["HUGGING_FACE_HUB_TOKEN", "HUGGINGFACEHUB_API_TOKEN", "HUGGINGFACE_API_KEY"])
def test_an_older_name_of_the_token_works_with_one_notice(name: str, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        assert find_credential("https://huggingface.co", environment={name: KEY}) is not None
    assert caplog.text.count(f"using the token in {name}") == 1
    assert KEY not in caplog.text


def test_a_secret_shows_itself_nowhere() -> None:
    secret = Secret(KEY)
    assert KEY not in f"{secret} {secret!r} {[secret]}"
    assert KEY.encode() not in pickle.dumps(secret)
    assert pickle.loads(pickle.dumps(secret)) is None
    assert copy.deepcopy(secret) is secret


@pytest.mark.parametrize("value", ["hf_with blank", "hf_with\nbreak", "hf_wïth_accent", "", "  "])
def test_a_malformed_key_is_refused_without_being_shown(value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        HFGatewayEmbeddings(model=MODEL, api_key=value)
    assert "hf_" not in str(caught.value)


@pytest.mark.parametrize("name", ["HFGatewayEmbeddings", "HFGatewayEmbedding"])
def test_no_class_shows_its_key(name: str) -> None:
    embedder = door(name)(
        model=MODEL, targets=["local", Target("tei", url="http://h", credential="hf_OtherSecret")], api_key=KEY
    )
    dumped = [
        repr(embedder),
        str(embedder),
        str(embedder.model_dump()),
        str(vars(embedder)),
        pickle.dumps(embedder).decode("latin-1"),
    ]
    if hasattr(embedder, "to_dict"):
        dumped += [str(embedder.to_dict()), str(embedder.to_payload())]
    dumped += [repr(embedder.gateway), repr(embedder.gateway.targets), str(embedder.status())]
    for shown in dumped:
        assert KEY not in shown
        assert "OtherSecret" not in shown


def test_the_environments_token_goes_to_nobody_else(caller: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", KEY)
    with FakeTEI(model_id=MODEL) as tei, FakeOpenAI(models=None) as openai:
        for target in (f"tei:{tei.url}", f"openai:{openai.url}", f"endpoint:{tei.url}"):
            caller([target]).documents(["one"])
        for server in (tei, openai):
            assert server.requests
            assert all("authorization" not in request.headers for request in server.requests)


def test_the_environments_token_is_not_sent_to_a_router_of_another_origin(
    caller: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", KEY)
    with FakeRouter(tokens=(KEY,)) as router, FakeHub() as hub:
        monkeypatch.setenv("HUGGINGFACE_BASE_URL", router.url)
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        with pytest.raises(errors.KeyMissing, match="bind it on purpose"):
            caller(["hf"]).documents(["one"])
        assert router.requests == hub.requests == []


def test_a_key_that_is_bound_to_an_origin_goes_there_and_nowhere_else(caller: Make) -> None:
    with FakeOpenAI(models=None, api_key=KEY) as mine, FakeOpenAI(models=None) as other:
        mine.fail(Reply(404, {"error": "model 'x' not found"}))
        make = caller([Target("openai", url=mine.url, credential=KEY), f"openai:{other.url}"])
        make.documents(["one"])
        assert [request.bearer for request in mine.requests] == [KEY]
        assert [request.bearer for request in other.requests] == [None]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_another_origin_takes_neither_key_nor_texts_along(caller: Make, status: int) -> None:
    with FakeOpenAI(models=None, api_key=KEY) as mine, FakeOpenAI(models=None) as foreign:
        mine.always(redirect(f"{foreign.url}/v1/embeddings", status))
        with pytest.raises(errors.BadResponse, match="another server") as caught:
            caller([Target("openai", url=mine.url, credential=KEY)]).documents(["a private text"])
        assert foreign.requests == []
    assert KEY not in str(caught.value)


def test_a_redirect_within_the_origin_is_followed_with_the_key(caller: Make) -> None:
    with FakeOpenAI(models=None, api_key=KEY) as mine:
        mine.fail(redirect("/v1/embeddings"))
        target = Target("openai", url=f"{mine.url}/old/embeddings", credential=KEY)
        assert caller([target]).documents(["one"]) == unit_vectors(["one"])
        assert [request.bearer for request in mine.requests] == [KEY, KEY]


FAULTS = {
    "401 that quotes the key": lambda: Reply(401, {"error": f"Invalid key {KEY}"}),
    "500 that quotes the key": lambda: Reply(500, f"Authorization: Bearer {KEY} failed"),
    "html": lambda: html(502),
    "garbage": garbage,
    "disconnect": disconnect,
    "cut": cut,
    "hang": hang,
    "redirect": lambda: redirect("http://127.0.0.2:9/"),
    "429": lambda: Reply(429, {"error": "slow down"}),
}


def linked(error: BaseException) -> list[BaseException]:
    """The error, its causes and contexts to any depth, and the errors it carries."""
    found: list[BaseException] = []
    waiting = [error]
    while waiting:
        each = waiting.pop()
        if each not in found:
            found.append(each)
            others = (each.__cause__, each.__context__, *getattr(each, "errors", ()))
            waiting += [other for other in others if isinstance(other, BaseException)]
    return found


def everything_in(error: BaseException) -> str:
    """What a logger, a tracer or a debugger would show of an error and all that hangs on it."""
    shown = ["".join(traceback.format_exception(error))]
    for each in linked(error):
        shown += [repr(each), str(each.args), repr(vars(each))]
    return "\n".join(shown)


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_no_exception_shows_the_key_nor_holds_a_request_with_it(
    caller: Make, fault: Callable[[], Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with FakeOpenAI(models=None) as server:
        server.always(fault())
        make = caller([Target("openai", url=server.url, credential=KEY)], max_retries=0, attempt_timeout=0.3)
        with pytest.raises(errors.GatewayError) as caught:
            make.documents(["one"])
        assert server.requests[0].bearer == KEY
    shown = everything_in(caught.value)
    assert KEY not in shown
    # An exception of the HTTP library would carry its request, and the request its headers.
    assert not [each for each in linked(caught.value) if type(each).__module__.startswith(("httpx", "httpcore", "h11"))]
    assert KEY not in caplog.text
    assert KEY.encode() not in pickle.dumps(caught.value)


def test_a_connection_that_fails_shows_no_key(caller: Make) -> None:
    make = caller([Target("openai", url=dead_url(), credential=KEY)])
    with pytest.raises(errors.ConnectFailed) as caught:
        make.documents(["one"])
    assert KEY not in everything_in(caught.value)


def test_api_key_that_is_a_hugging_face_token_is_not_taken_for_another_servers_key() -> None:
    with pytest.raises(ConfigError, match="bind it"):
        Gateway(MODEL, ["tei:http://tei:8080"], api_key=KEY)


def test_api_key_goes_to_the_one_server_of_the_callers_own(caller: Make) -> None:
    with FakeOpenAI(models=None, api_key="my-own-key") as server:
        assert caller([f"openai:{server.url}"], api_key="my-own-key").documents(["one"]) == unit_vectors(["one"])


def test_api_key_that_could_be_meant_for_two_servers_is_refused() -> None:
    with pytest.raises(ConfigError, match="give each its own"):
        Gateway(MODEL, ["tei:http://a:1", "openai:http://b:2"], api_key="my-own-key")


def test_a_key_named_by_its_variable_is_read_when_it_is_needed(caller: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeOpenAI(models=None, api_key="rotated") as server:
        make = caller([{"kind": "openai", "url": server.url, "credential": "env:MY_SERVER_KEY"}])
        monkeypatch.setenv("MY_SERVER_KEY", "rotated")
        assert make.documents(["one"]) == unit_vectors(["one"])
        assert pickle.loads(pickle.dumps(make.gateway)).embed(["one"]).vectors.tolist() == unit_vectors(["one"])
