"""Servers that do not stream what they would give as a whole: asked for that at once, and remembered."""

import functools
import json
from collections.abc import Callable
from typing import Any

import pytest

from hf_gateway import Target, errors
from tests.servers.loopback import Loopback, Recorded, Reply, Stream
from tests.servers.ollama import FakeOllama
from tests.servers.openai import FakeOpenAI
from tests.support.chatters import FORMS, Chatter
from tests.support.embedders import chain

PATH = "/v1/chat/completions"
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}}}
LLAMA_CPP = "logprobs is not supported with tools + stream"
Make = Callable[..., Chatter]


@pytest.fixture(params=FORMS)
def chatter(request: pytest.FixtureRequest) -> Make:
    return functools.partial(Chatter, request.param)


class NoStreams(FakeOpenAI):
    """Refuses every stream, or those of requests for which `refuses` is true, and counts what was asked for."""

    def __init__(
        self, message: str = LLAMA_CPP, status: int = 400, refuses: Callable[[Any], bool] = lambda _: True
    ) -> None:
        super().__init__(models=None)
        self._refusal = Reply(status, {"error": {"message": message, "code": status, "type": "invalid_request_error"}})
        self._refuses = refuses

    def handle(self, request: Recorded) -> Reply | Stream:
        if request.json.get("stream") and self._refuses(request.json):
            return self._refusal
        return super().handle(request)

    @property
    def asked(self) -> list[bool]:
        """Whether each request asked for a stream."""
        return [bool(request.json.get("stream")) for request in self.requests]


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, LLAMA_CPP),
        (500, LLAMA_CPP),
        (400, "Your organization must be verified to stream this model."),
        (400, "Unsupported value: 'stream' does not support true with this model. Supported values are: false."),
        (422, "Streaming is not supported for this model"),
        (500, "Cannot use tools with stream"),
        (501, "streaming not implemented"),
    ],
)
def test_what_a_server_refuses_to_stream_is_asked_for_as_a_whole(chatter: Make, status: int, message: str) -> None:
    with NoStreams(message, status) as server:
        make = chatter(chain(server))
        for asked in ([True, False], [True, False, False]):
            result = make.ask(tools=[TOOL], logprobs=True)
            assert result.text
            assert result.finish_reason == "stop"
            assert "".join(make.pieces) == (result.text if make.streamed else "")
            assert server.asked == asked
        assert [attempt.outcome for attempt in result.attempts] == ["served"]
        assert make.gateway.status()[0].ready


def test_the_refusal_is_remembered_for_requests_of_its_kind_alone(chatter: Make) -> None:
    with NoStreams(refuses=lambda body: bool(body.get("tools") and body.get("logprobs"))) as server:
        make = chatter(chain(server))
        make.ask(tools=[TOOL], logprobs=True)
        make.ask(tools=[TOOL])
        make.ask(logprobs=True)
        make.ask(tools=[TOOL], logprobs=True)
    assert server.asked == [True, False, True, True, False]


def test_a_server_that_answers_whole_is_asked_so_the_next_time(chatter: Make, primary: FakeOpenAI) -> None:
    body = {"choices": [{"message": {"content": "Hello"}, "finish_reason": "stop"}]}
    primary.always(Reply(200, body))
    make = chatter(chain(primary))
    for _ in range(2):
        assert make.ask().text == "Hello"
    assert [bool(request.json.get("stream")) for request in primary.requests] == [True, False]


@pytest.mark.parametrize(
    "refusal",
    [
        Reply(400, {"error": {"message": "Unrecognized request argument supplied: stream_options"}}),
        Reply(
            422,
            {
                "detail": [
                    {
                        "type": "extra_forbidden",
                        "loc": ["body", "stream_options"],
                        "msg": "Extra inputs are not permitted",
                    }
                ]
            },
        ),
    ],
    ids=["openai", "pydantic"],
)
def test_a_server_that_takes_no_options_of_streams_is_not_sent_any(
    chatter: Make, primary: FakeOpenAI, refusal: Reply
) -> None:
    primary.fail(refusal)
    make = chatter(chain(primary))
    assert make.ask().text
    assert make.ask().text
    asked = [(request.json["stream"], "stream_options" in request.json) for request in primary.requests]
    assert asked == [(True, True), (True, False), (True, False)]


WHOLE = json.dumps({"choices": [{"message": {"content": "Hello"}, "finish_reason": "stop"}]})
EVENTS = (
    'data: {"choices":[{"delta":{"content":"Hello"}}]}\n\ndata: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
)


@pytest.mark.parametrize("content_type", ["text/plain", "", "application/octet-stream", "application/json"])
@pytest.mark.parametrize("body", [WHOLE, f"\n {WHOLE}", EVENTS, f": hi\n\n{EVENTS}", f"\n{EVENTS}"])
def test_what_comes_is_read_as_what_it_is_where_its_type_says_nothing(
    chatter: Make, primary: FakeOpenAI, content_type: str, body: str
) -> None:
    primary.always(Reply(200, body, {"content-type": content_type}))
    assert chatter(chain(primary)).ask().text == "Hello"


def test_lines_of_json_are_a_stream_whatever_their_type(chatter: Make) -> None:
    lines = [{"message": {"content": "Hel"}, "done": False}, {"message": {"content": "lo"}, "done": True}]
    body = "".join(json.dumps(line) + "\n" for line in lines)
    with FakeOllama({"m": {"capabilities": ["completion"]}}) as ollama:
        ollama.always(Reply(200, body, {"content-type": "text/plain"}))
        assert chatter([Target("ollama", "m", url=ollama.url)]).ask().text == "Hello"


def test_another_refusal_is_no_reason_to_ask_again(chatter: Make, primary: FakeOpenAI) -> None:
    for message in ("messages: content must be a string", "the stream of tokens is too long"):
        primary.always(Reply(400, {"error": {"message": message}}))
        before = primary.count(PATH)
        with pytest.raises(errors.InvalidRequest):
            chatter(chain(primary)).ask()
        assert primary.count(PATH) == before + 1


def test_a_target_that_cannot_stream_is_never_asked_to(chatter: Make, primary: FakeOpenAI, backup: Loopback) -> None:
    for targets in ([], [f"openai:{backup.url}"]):
        target = Target("openai", url=primary.url, options={"stream": False})
        make = chatter([target, *targets])
        result = make.ask()
        assert result.text
        assert "".join(make.pieces) == (result.text if make.streamed else "")
    assert not any("stream" in request.json for request in primary.requests)
