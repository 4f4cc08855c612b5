"""How vectors travel in OpenAI's form: packed in base64 where the server does that, as numbers where it does not."""

import functools
from collections.abc import Callable

import pytest

from hf_gateway import Target, errors
from tests.servers import unit_vectors
from tests.servers.loopback import Reply
from tests.servers.openai import FakeOpenAI
from tests.servers.tei import FakeTEI
from tests.support.embedders import Caller

Make = Callable[..., Caller]
TEXTS = ["one", "two", "three"]


@pytest.fixture(params=["sync", "async"])
def caller(request: pytest.FixtureRequest) -> Make:
    return functools.partial(Caller, request.param == "async")


def asked(server: FakeOpenAI) -> list[str | None]:
    return [request.json.get("encoding_format") for request in server.requests]


def at(server: FakeOpenAI, encoding: str | None = None) -> Target:
    return Target("openai", url=server.url, options={} if encoding is None else {"encoding": encoding})


@pytest.mark.parametrize("encoding", [None, "auto", "base64"])
def test_base64_is_asked_for(caller: Make, primary: FakeOpenAI, encoding: str | None) -> None:
    assert caller([at(primary, encoding)]).documents(TEXTS) == unit_vectors(TEXTS)
    assert asked(primary) == ["base64"]


def test_numbers_are_asked_for_where_that_was_said(caller: Make, primary: FakeOpenAI) -> None:
    assert caller([at(primary, "float")]).documents(TEXTS) == unit_vectors(TEXTS)
    assert asked(primary) == [None]


def test_a_server_that_ignores_it_is_understood_and_asked_once(caller: Make) -> None:
    with FakeOpenAI(models=None, ignore_encoding_format=True) as server:
        assert caller([at(server)]).documents(TEXTS) == unit_vectors(TEXTS)
        assert asked(server) == ["base64"]


@pytest.mark.parametrize("status", [400, 422])
def test_a_server_that_refuses_it_is_asked_once_more_without_and_that_is_remembered(caller: Make, status: int) -> None:
    with FakeOpenAI(models=None, encodings=("float",), encoding_status=status) as server:
        make = caller([at(server)], max_retries=0)
        for _ in range(3):
            assert make.documents(TEXTS) == unit_vectors(TEXTS)
        assert asked(server) == ["base64", None, None, None]


def test_a_server_that_fails_without_it_too_is_asked_for_it_again(caller: Make) -> None:
    with FakeOpenAI(models=None, encodings=("float",)) as server:
        make = caller([at(server)], max_retries=0)
        server.fail(Reply(400, "no such encoding"), Reply(503, "busy"))
        with pytest.raises(errors.Overloaded):
            make.documents(TEXTS)
        make.clock.advance(60)
        make.documents(TEXTS)
        assert asked(server) == ["base64", None, "base64", None]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Reply(400, {"error": {"message": "input must be a string"}}), errors.InvalidRequest),
        (Reply(401, {"error": {"message": "no key for base64"}}), errors.AuthenticationFailed),
        (Reply(500, {"error": {"message": "encoding failed"}}), errors.ServerError),
    ],
    ids=["400 for another reason", "401", "500"],
)
def test_another_refusal_is_not_taken_for_that(
    caller: Make, primary: FakeOpenAI, answer: Reply, error: type[Exception]
) -> None:
    primary.always(answer)
    with pytest.raises(error):
        caller([at(primary)], max_retries=0).documents(TEXTS)
    assert asked(primary) == ["base64"]


def test_base64_that_was_insisted_on_is_not_given_up(caller: Make) -> None:
    with FakeOpenAI(models=None, encodings=("float",)) as server:
        with pytest.raises(errors.InvalidRequest):
            caller([at(server, "base64")]).documents(TEXTS)
        assert asked(server) == ["base64"]


def test_another_encoding_is_refused() -> None:
    with pytest.raises(errors.ConfigError, match="'auto', 'float' or 'base64'"):
        Caller(False, [Target("openai", url="http://127.0.0.1:9", options={"encoding": "hex"})])


def test_the_encoding_changes_no_vector(caller: Make) -> None:
    found = []
    for encoding in ("auto", "float", "base64"):
        with FakeOpenAI(models=None) as server:
            found.append(caller([at(server, encoding)]).documents(TEXTS))
    assert found[0] == found[1] == found[2]


def test_teis_openai_form_is_packed_too(caller: Make) -> None:
    with FakeTEI() as server:
        target = Target("tei", url=server.url, options={"openai": True})
        make = caller([target], model="sentence-transformers/all-MiniLM-L6-v2")
        vectors = make.documents(TEXTS)
        (request,) = [request for request in server.requests if request.path == "/v1/embeddings"]
        assert request.json["encoding_format"] == "base64"
    assert vectors == unit_vectors(TEXTS)
