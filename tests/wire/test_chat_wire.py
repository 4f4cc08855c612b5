"""The chat protocols, byte by byte: whatever way a stream is cut, what comes together is the same or an error."""

import copy
import itertools
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from hf_gateway import errors
from hf_gateway.values.answer_builder import AnswerBuilder
from hf_gateway.values.chat import ChatAnswer, ChatEvent, ChatRequest, ToolCallDelta
from hf_gateway.values.http import HttpResponse
from hf_gateway.values.usage import Usage
from hf_gateway.wire import ollama_chat, openai_chat, sse
from hf_gateway.wire.ollama_chat import ForcedCall
from tests.wire.test_chat_recordings import Exchange, exchanges, of_kind


def bounded(examples: int) -> Callable[[Any], Any]:
    """Settings for a property: the same examples every time."""
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    return settings(max_examples=examples, derandomize=True, deadline=None, database=None, suppress_health_check=slow)


Decoder = openai_chat.OpenAIStreamDecoder | ollama_chat.OllamaStreamDecoder
MAKERS: dict[str, Callable[[], Decoder]] = {
    "openai": lambda: openai_chat.OpenAIStreamDecoder({}, "target"),
    "ollama": lambda: ollama_chat.OllamaStreamDecoder({}, "target"),
}


@dataclass(frozen=True)
class Read:
    """What was read: the pieces as they came, what they make together, and whether the server said it is the end."""

    events: list[ChatEvent]
    answer: ChatAnswer
    finished: bool

    @property
    def said(self) -> tuple[Any, ...]:
        """What a reader would see."""
        calls = [(call.name, call.arguments) for call in self.answer.tool_calls]
        return self.answer.text, self.answer.reasoning, calls, self.answer.finish_reason


def read(decoder: Decoder, *pieces: bytes) -> Read:
    """Feed the pieces and the end."""
    events = [event for piece in pieces for event in decoder.feed(piece)] + list(decoder.end())
    builder = AnswerBuilder()
    for event in events:
        builder.add(event)
    answer = builder.answer()
    calls = tuple(replace(call, id=re.sub("^call_[0-9a-f]{24}$", "made here", call.id)) for call in answer.tool_calls)
    assert decoder.finished == builder.finished
    return Read(events, replace(answer, tool_calls=calls), decoder.finished)


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """Cut at these places, counted round and round; they may be the same: empty pieces are pieces."""
    marks = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(marks)]


places = st.lists(st.integers(0, 3000), max_size=12)


# Streams as servers write them, and what they say


@dataclass(frozen=True)
class Written:
    """A stream, and what it says."""

    data: bytes
    text: str
    reasoning: str
    calls: list[tuple[str, str]]
    usage: tuple[int | None, int | None]


anything = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
parts = st.lists(
    st.one_of(
        st.tuples(st.just("text"), anything),
        st.tuples(st.sampled_from(["reasoning", "reasoning_content"]), anything),
        st.tuples(st.integers(0, 2), anything),
        st.tuples(st.just("nothing"), st.just("")),
    ),
    max_size=8,
)


def deltas(said: Sequence[tuple[str | int, str]]) -> Iterable[dict[str, Any]]:
    """Write each part as OpenAI's delta: a number stands for a piece of that tool call."""
    begun: set[int] = set()
    for kind, piece in said:
        if isinstance(kind, int):
            head = {} if kind in begun else {"id": f"c{kind}", "type": "function"}
            name = {} if kind in begun else {"name": f"tool{kind}"}
            begun.add(kind)
            yield {"tool_calls": [{"index": kind, **head, "function": {**name, "arguments": piece}}]}
        else:
            yield {"content" if kind == "text" else kind: piece} if kind != "nothing" else {"role": "assistant"}


def joined(said: Sequence[tuple[str | int, str]], *kinds: str | int) -> str:
    return "".join(piece for kind, piece in said if kind in kinds)


@st.composite
def written_by_openai(draw: st.DrawFn) -> Written:
    """A stream in any form that servers are known to write."""
    said = draw(parts)
    reason = draw(st.sampled_from(["stop", "length", "tool_calls", "content_filter"]))
    usage = draw(st.none() | st.tuples(st.integers(0, 999), st.integers(0, 999)))
    chunks: list[dict[str, Any]] = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas(said)]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
    if usage:
        chunks.append({"choices": [], "usage": {"prompt_tokens": usage[0], "completion_tokens": usage[1]}})
    data, ascii_only = draw(st.sampled_from(["data:", "data: "])), draw(st.booleans())
    indent = draw(st.sampled_from([None, 1]))  # with one, the JSON has many lines
    others = [": ping", ":", "event: message", "id: 7", "retry: 100", "", ": äöü"]
    between = st.lists(st.sampled_from(others), max_size=2)
    lines: list[str] = []
    for chunk in [*chunks, *(["[DONE]"] if draw(st.booleans()) else [])]:
        written = chunk if isinstance(chunk, str) else json.dumps(chunk, ensure_ascii=ascii_only, indent=indent)
        lines += [*draw(between), *(data + line for line in written.split("\n")), ""]
    whole = draw(st.sampled_from(["\n", "\r\n", "\r"])).join([*lines, ""]).encode()
    if draw(st.booleans()):  # without the empty line at the end, or any line end
        whole = whole.rstrip(b"\r\n") + draw(st.sampled_from([b"", b"\n", b"\r\n", b"\r"]))
    whole = draw(st.sampled_from([b"", b"\xef\xbb\xbf"])) + whole
    numbers = list(dict.fromkeys(kind for kind, _ in said if isinstance(kind, int)))
    calls = [(f"tool{number}", joined(said, number) or "{}") for number in numbers]
    thoughts = joined(said, "reasoning", "reasoning_content")
    return Written(whole, joined(said, "text"), thoughts, calls, usage or (None, None))


@st.composite
def written_by_ollama(draw: st.DrawFn) -> Written:
    """JSON a line, whole tool calls, the counts in the last line."""
    said = draw(parts)
    ascii_only, newline = draw(st.booleans()), draw(st.sampled_from(["\n", "\r\n"]))
    messages: list[dict[str, Any]] = []
    for kind, piece in said:
        message: dict[str, Any] = {"role": "assistant", "content": ""}
        if isinstance(kind, int):
            message["tool_calls"] = [{"function": {"name": f"tool{kind}", "arguments": {"x": piece}}}]
        elif kind != "nothing":
            message["content" if kind == "text" else "thinking"] = piece
        messages.append({"model": "m", "message": message, "done": False})
    usage = draw(st.tuples(st.integers(0, 999), st.integers(0, 999)))
    last = {"message": {"role": "assistant", "content": ""}, "done_reason": "stop", "done": True}
    messages.append({"model": "m", **last, "prompt_eval_count": usage[0], "eval_count": usage[1]})
    whole = newline.join(json.dumps(line, ensure_ascii=ascii_only) for line in messages).encode()
    whole += draw(st.sampled_from(["", "\n", "\n\n", "\r\n"])).encode()
    calls = [
        (f"tool{kind}", json.dumps({"x": piece}, ensure_ascii=False)) for kind, piece in said if isinstance(kind, int)
    ]
    thoughts = joined(said, "reasoning", "reasoning_content")
    return Written(whole, joined(said, "text"), thoughts, calls, usage)


WRITTEN = {"openai": written_by_openai(), "ollama": written_by_ollama()}


@pytest.mark.parametrize("form", WRITTEN)
@bounded(150)
@given(st.data(), places)
def test_a_stream_says_the_same_however_it_is_cut(form: str, data: st.DataObject, at: list[int]) -> None:
    written = data.draw(WRITTEN[form])
    whole = read(MAKERS[form](), written.data)
    assert whole.finished
    assert (whole.answer.text, whole.answer.reasoning) == (written.text, written.reasoning)
    assert [(call.name, call.arguments) for call in whole.answer.tool_calls] == written.calls
    assert (whole.answer.usage.input_tokens, whole.answer.usage.output_tokens) == written.usage
    assert read(MAKERS[form](), *cut(written.data, at)) == whole
    assert read(MAKERS[form](), *cut(written.data, range(len(written.data)))) == whole


@pytest.mark.parametrize("form", WRITTEN)
@bounded(150)
@given(st.data())
def test_a_stream_that_is_cut_off_is_never_taken_for_a_shorter_answer(form: str, data: st.DataObject) -> None:
    written = data.draw(WRITTEN[form])
    whole = read(MAKERS[form](), written.data)
    for place in data.draw(st.sets(st.integers(0, len(written.data)), max_size=12)):
        check_what_is_left(whole, lambda place=place: read(MAKERS[form](), written.data[:place]))


def check_what_is_left(whole: Read, reading: Callable[[], Read]) -> None:
    """Only whole events count, and the reason for the end comes last: what is finished lacks nothing but the tokens."""
    try:
        left = reading()
    except errors.GatewayError:
        return
    assert whole.answer.text.startswith(left.answer.text)
    if left.finished:
        assert left.said == whole.said
        assert left.answer.usage in (whole.answer.usage, Usage())


@of_kind("openai stream", "ollama stream")
def test_a_recorded_stream_says_the_same_however_it_is_cut(recordings: Path, exchange: Exchange) -> None:
    form = exchange.kind.split()[0]
    whole = read(MAKERS[form](), exchange.body)
    assert whole.finished
    for size in (1, 2, 7, 64, 1024):
        assert read(MAKERS[form](), *cut(exchange.body, range(0, len(exchange.body), size))) == whole
    for place in range(0, len(exchange.body), max(1, len(exchange.body) // 40)):
        assert read(MAKERS[form](), *cut(exchange.body, [place])) == whole


@pytest.mark.slow
@of_kind("openai stream", "ollama stream")
def test_a_recorded_stream_that_is_cut_off_is_never_a_shorter_answer(recordings: Path, exchange: Exchange) -> None:
    form = exchange.kind.split()[0]
    whole = read(MAKERS[form](), exchange.body)
    decoder, text = MAKERS[form](), ""
    for byte in exchange.body:
        text += "".join(event.text for event in decoder.feed(bytes([byte])))
        ending = copy.deepcopy(decoder)
        try:
            rest = "".join(event.text for event in ending.end())
        except errors.BadResponse:
            assert not ending.finished
            continue
        assert not ending.finished or text + rest == whole.answer.text


# Garbage

SPOKEN: list[dict[str, Any]] = [
    {"delta": {"role": "assistant", "content": ""}},
    {"delta": {"reasoning": "let me see"}},
    {"delta": {"content": "Grüße, 世界 "}},
    {"delta": {"content": "🎉 done"}},
    {"delta": {"tool_calls": [{"index": 0, "id": "c0", "function": {"name": "add", "arguments": '{"a":'}}]}},
    {"delta": {"tool_calls": [{"index": 0, "function": {"arguments": " 1}"}}]}},
    {"delta": {}, "finish_reason": "tool_calls"},
]
OPENAI = (
    b": hello\n\nevent: message\n"
    + b"".join(
        b"data: " + json.dumps({"choices": [{"index": 0, **choice}]}, ensure_ascii=False).encode() + b"\n\n"
        for choice in SPOKEN
    )
    + b'data:{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":7}}\n\ndata: [DONE]\n\n'
)
OLLAMA = (
    '{"model":"m","message":{"role":"assistant","content":"","thinking":"hm"},"done":false}\n'
    '{"model":"m","message":{"role":"assistant","content":"Grüße 🎉"},"done":false}\n'
    '{"model":"m","message":{"role":"assistant","content":"","tool_calls":[{"id":"c","function":{"name":"add","arguments":{"a":1}}}]},"done":false}\n'
    '{"model":"m","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop","prompt_eval_count":5,"eval_count":7}\n'
).encode()
STREAMS = {"openai": OPENAI, "ollama": OLLAMA}

# Bytes that occur nowhere in UTF-8, among others; no colon, with which they could make a comment.
garbage = st.builds(
    lambda before, byte, after: before + bytes([byte]) + after,
    st.binary(max_size=6),
    st.sampled_from([0xC0, 0xC1, 0xF5, 0xFE, 0xFF]),
    st.binary(max_size=6),
).filter(lambda made: b":" not in made)


@pytest.mark.parametrize("form", STREAMS)
@bounded(400)
@given(st.data(), garbage)
def test_garbage_in_a_stream_never_makes_another_answer(form: str, data: st.DataObject, made: bytes) -> None:
    stream = STREAMS[form]
    place = data.draw(st.integers(0, len(stream)))
    garbled = stream[:place] + made + stream[place:]
    whole = read(MAKERS[form](), stream)
    check_what_is_left_of_garbled(whole, lambda: read(MAKERS[form](), garbled))
    check_what_is_left_of_garbled(whole, lambda: read(MAKERS[form](), *cut(garbled, [place])))


def check_what_is_left_of_garbled(whole: Read, reading: Callable[[], Read]) -> None:
    try:
        left = reading()
    except errors.GatewayError:
        return
    assert not left.finished or left.said == whole.said


@of_kind("openai stream", "ollama stream")
def test_garbage_between_the_lines_of_a_recorded_stream_never_makes_another_answer(
    recordings: Path, exchange: Exchange
) -> None:
    form = exchange.kind.split()[0]
    whole = read(MAKERS[form](), exchange.body)
    starts = [found.end() for found in re.finditer(b"^|\n", exchange.body)]
    for made in (b"\x00", b"\xff", b"x", b"<html>\n", b'{"error', b'"\n', b"data", b"\n\xff\n", b"dat"):
        for place in [*starts[:6], *starts[-6:]]:
            garbled = exchange.body[:place] + made + exchange.body[place:]
            check_what_is_left_of_garbled(whole, lambda garbled=garbled: read(MAKERS[form](), garbled))


def plainly(data: bytes) -> str | None:
    """Read server-sent events the slow way; returns the text, or None where something is wrong."""
    text, open_data = "", []
    for line in [*re.split(b"\r\n|\r|\n", data.removeprefix(b"\xef\xbb\xbf")), b""]:
        if line.startswith(b"data:"):
            open_data.append(line[6:] if line[5:6] == b" " else line[5:])
        elif line == b"data":
            open_data.append(b"")
        elif not line and open_data:
            event, open_data = b"\n".join(open_data).strip(), []
            if event == b"[DONE]":
                return text
            if not event:
                continue
            try:
                chunk = json.loads(event.decode())
                text += chunk["choices"][0]["delta"].get("content") or "" if chunk["choices"] else ""
            except (ValueError, KeyError, TypeError, AttributeError, IndexError):
                return None
        elif line and line.partition(b":")[0] not in (b"", b"event", b"id", b"retry"):
            return None
    return text


@bounded(500)
@given(st.data(), st.binary(max_size=8) | st.sampled_from([b"\n", b"\r", b"\n\n", b":", b"data:", b'"', b"}", b"\\"]))
def test_any_bytes_in_a_stream_are_read_as_the_format_says_or_refused(data: st.DataObject, made: bytes) -> None:
    place = data.draw(st.integers(0, len(OPENAI)))
    garbled = OPENAI[:place] + made + OPENAI[place:]
    plain = plainly(garbled)
    try:
        found = read(MAKERS["openai"](), garbled)
    except errors.GatewayError:
        return
    if found.finished and plain is not None:
        assert found.answer.text == plain


WORDS = re.findall(
    r"\w+",
    "choices delta message content tool_calls function name arguments id index finish_reason usage error code type done "
    "thinking reasoning model logprobs done_reason prompt_eval_count prompt_tokens text",
)
weird = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
    max_leaves=25,
)
AROUND: list[Callable[[Any], Any]] = [
    lambda value: value,
    lambda value: {"choices": value},
    lambda value: {"choices": [value]},
    lambda value: {"choices": [{"delta": value, "message": value, "finish_reason": value}], "usage": value},
    lambda value: {"choices": [{"message": {"tool_calls": value}, "delta": {"tool_calls": [value]}}]},
    lambda value: {"choices": [{"message": {"tool_calls": [{"function": value}]}}], "error": value},
    lambda value: {"message": value, "done": True},
    lambda value: {"message": {"content": value, "tool_calls": value}, "model": value, "done": True},
    lambda value: {"message": {"tool_calls": [value, {"function": value}]}, "logprobs": value},
    lambda value: {"message": {}, "done": True, "done_reason": value, "eval_count": value, "remote_host": value},
    lambda value: {"error": value},
]


@bounded(300)
@given(weird, st.sampled_from(AROUND))
def test_json_of_any_shape_is_an_answer_or_one_of_our_errors(value: Any, around: Callable[[Any], Any]) -> None:
    body = json.dumps(around(value)).encode()
    response = HttpResponse(200, {}, body)
    for reading in (
        lambda: openai_chat.decode_chat(response, target="t"),
        lambda: ollama_chat.decode_chat(response, target="t"),
        lambda: read(MAKERS["openai"](), b"data: " + body + b"\n\n").events[0],
        lambda: read(MAKERS["ollama"](), body).events[0],
    ):
        try:
            event = reading()
        except errors.GatewayError:
            continue
        builder = AnswerBuilder()
        builder.add(event)
        answer = builder.answer()
        assert all(isinstance(text, str) for text in (answer.text, answer.reasoning))
        assert all(isinstance(text, str | None) for text in (answer.finish_reason, answer.model, answer.provider))
        assert all(isinstance(text, str) for call in answer.tool_calls for text in (call.id, call.name, call.arguments))
        assert all(isinstance(count, int | None) for count in (answer.usage.input_tokens, answer.usage.output_tokens))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"<html>502 Bad Gateway</html>", "<html>502 Bad Gateway"),
        (b'{"error": "no framing"}', "no framing"),
        (b"data: {oops", "oops"),
        (b"data: [1, 2]", "[1, 2]"),
        (b'data: "text"', "text"),
        (b"data: " + b"[" * 100_000, "[[[["),
        (b"\x1f\x8b\x08\x00compressed", "compressed"),
    ],
)
def test_what_a_stream_should_not_have_is_quoted(line: bytes, said: str) -> None:
    with pytest.raises(errors.BadResponse, match="a garbled event in the stream") as caught:
        read(MAKERS["openai"](), line + b"\n\n")
    assert said in str(caught.value)
    assert len(str(caught.value)) < 500
    assert caught.value.target == "target"


def test_what_comes_after_the_end_is_not_read() -> None:
    for tail in (b"data: {oops\n\n", b"<html>", b"\xff" * 10, b'data: {"error": "late"}\n\n'):
        for place in (len(OPENAI), len(OPENAI) + 1, 0):
            assert read(MAKERS["openai"](), *cut(OPENAI + tail, [place])) == read(MAKERS["openai"](), OPENAI)
    for place in (len(OLLAMA), len(OLLAMA) + 1, 0):
        found = read(MAKERS["ollama"](), *cut(OLLAMA + b"{oops\n", [place]))
        assert found == read(MAKERS["ollama"](), OLLAMA)


def test_a_stream_that_ends_within_the_count_of_tokens_is_complete() -> None:
    place = OPENAI.index(b'"usage"')
    found = read(MAKERS["openai"](), OPENAI[:place])
    assert (found.finished, found.answer.usage) == (True, Usage())
    with pytest.raises(errors.BadResponse):
        read(MAKERS["openai"](), OPENAI[: OPENAI.index(b"finish_reason")])


@pytest.mark.parametrize(
    ("form", "first", "more"),
    [
        ("openai", b"data: ", b"x" * 90),
        ("openai", b": ", b"x" * 90),
        ("openai", b"", b"x" * 90),
        ("openai", b"", b"data: x\n"),
        ("openai", b"", b"data:\n"),
        ("ollama", b"", b"x" * 90),
    ],
)
def test_an_endless_line_or_event_is_given_up_before_it_fills_the_memory(
    form: str, first: bytes, more: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 10_000)
    decoder, fed = MAKERS[form](), 0
    list(decoder.feed(first))

    def feed_on() -> None:
        nonlocal fed
        while fed < 100_000:
            fed += len(more)
            list(decoder.feed(more))

    with pytest.raises(errors.BadResponse, match="of more than"):
        feed_on()
    assert fed <= 12_100


def test_a_long_stream_of_short_events_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 1000)
    decoder = MAKERS["openai"]()
    chunk = b': ping\n\ndata: {"choices":[{"delta":{"content":"x"}}]}\n\n'
    assert len([event for _ in range(1000) for event in decoder.feed(chunk)]) == 1000


# Errors inside an answer

INSIDE = [
    ({"error": {"message": "slow down", "type": "rate_limit_error", "code": 429}}, errors.RateLimited, 429),
    ({"error": {"message": "slow down", "code": "429"}}, errors.RateLimited, 429),
    ({"error": {"message": "slow down", "code": "rate_limit_exceeded"}}, errors.RateLimited, 429),
    ({"error": {"message": "bad", "type": "invalid_request_error"}}, errors.InvalidRequest, 400),
    ({"error": {"message": "bad", "type": "BadRequestError", "code": 400}}, errors.InvalidRequest, 400),
    (
        {"error": {"message": "This model's maximum context length is 10 tokens", "code": 400}},
        errors.ContextOverflow,
        400,
    ),
    ({"error": {"message": "gone", "code": "model_not_found"}}, errors.ModelNotFound, 404),
    ({"error": {"message": "who?", "type": "authentication_error"}}, errors.AuthenticationFailed, 401),
    ({"error": {"message": "no", "type": "permission_error"}}, errors.PermissionDenied, 403),
    ({"error": {"message": "flagged by content policy", "code": "content_filter"}}, errors.ContentFiltered, 400),
    ({"error": {"message": "busy", "http_status_code": 503}}, errors.Overloaded, 503),
    ({"error": {"message": "broke", "code": 7}}, errors.ServerError, 500),
    ({"error": "Model is overloaded", "error_type": "overloaded"}, errors.Overloaded, 503),
    ({"error": "Request failed during generation: CUDA", "error_type": "generation"}, errors.ServerError, 500),
    (
        {
            "error": "Input validation error: `inputs` must have less than 4096 tokens. Given: 5000",
            "error_type": "validation",
        },
        errors.ContextOverflow,
        422,
    ),
    ({"error": "something broke"}, errors.ServerError, 500),
    ({"error": ["a", "list"]}, errors.ServerError, 500),
]


@pytest.mark.parametrize(("body", "kind", "status"), INSIDE, ids=lambda value: str(value)[:60])
def test_an_error_inside_a_200_is_an_error(body: dict[str, Any], kind: type[errors.GatewayError], status: int) -> None:
    said = body["error"]["message"] if isinstance(body["error"], dict) else str(body["error"][0])
    data = json.dumps(body).encode()
    begun = b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n'
    for reading in (
        lambda: openai_chat.decode_chat(HttpResponse(200, {}, data), target="t"),
        lambda: read(MAKERS["openai"](), b"data:" + data + b"\n\n"),
        lambda: read(MAKERS["openai"](), begun + b"event: error\ndata: " + data),
    ):
        with pytest.raises(kind) as caught:
            reading()
        assert (type(caught.value), caught.value.status) == (kind, status)
        assert "an error inside the answer" in str(caught.value)
        assert said in str(caught.value)


def test_llama_cpps_own_field_for_errors_is_understood() -> None:
    body = b'error: {"code":503,"message":"Loading model","type":"unavailable_error"}\n\n'
    with pytest.raises(errors.ModelLoading, match="Loading model"):
        read(MAKERS["openai"](), body)
    with pytest.raises(errors.BadResponse, match="it broke"):
        read(MAKERS["openai"](), b"error: it broke\n\n")


def test_ollamas_error_in_the_middle_is_an_error() -> None:
    begun = OLLAMA[: OLLAMA.index(b"\n") + 1]
    with pytest.raises(errors.ServerError, match="an error inside the answer: runner stopped"):
        read(MAKERS["ollama"](), begun + b'{"error":"runner stopped"}\n')
    with pytest.raises(errors.ServerError, match="runner stopped"):
        ollama_chat.decode_chat(HttpResponse(200, {}, b'{"error":"runner stopped"}'), target="t")


@pytest.mark.parametrize("nothing", [None, "", {}])
def test_an_error_that_is_none_is_none(nothing: Any) -> None:
    body = {"choices": [{"message": {"content": "fine"}}], "error": nothing}
    assert decoded(body).text == "fine"


# Whole answers


def decoded(body: Any) -> ChatAnswer:
    builder = AnswerBuilder()
    builder.add(openai_chat.decode_chat(HttpResponse(200, {}, json.dumps(body).encode()), target="target"))
    return builder.answer()


def choice(message: Any, reason: str | None = "stop", **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "message": message, "finish_reason": reason}], **more}


@pytest.mark.parametrize(
    ("message", "text", "reasoning"),
    [
        ({"content": "hi"}, "hi", ""),
        ({"content": None}, "", ""),
        ({}, "", ""),
        ({"content": "hi", "reasoning": "hm"}, "hi", "hm"),
        ({"content": "hi", "reasoning_content": "hm"}, "hi", "hm"),
        ({"content": "hi", "reasoning_content": "hm", "reasoning": "hm"}, "hi", "hm"),  # vLLM sends both
        ({"content": "hi", "reasoning_content": "", "reasoning": "hm"}, "hi", "hm"),
        ({"content": "hi", "reasoning_content": None, "reasoning": None}, "hi", ""),
        ({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, "ab", ""),
        (
            {
                "content": [
                    {
                        "type": "thinking",
                        "thinking": [{"type": "text", "text": "so "}, {"type": "text", "text": "far"}],
                    },
                    {"type": "text", "text": "hi"},
                ],
                "reasoning": "",
            },
            "hi",
            "so far",
        ),
        ({"content": [{"type": "thinking", "thinking": "as text"}, "hi", {"type": "other"}, 3]}, "hi", "as text"),
        ({"content": {"type": "text"}}, "", ""),
    ],
    ids=str,
)
def test_text_and_thoughts_are_told_apart(message: dict[str, Any], text: str, reasoning: str) -> None:
    answer = decoded(choice(message))
    assert (answer.text, answer.reasoning) == (text, reasoning)
    streamed = {"choices": [{"delta": message, "finish_reason": "stop"}]}
    answer = read(MAKERS["openai"](), b"data: " + json.dumps(streamed).encode()).answer
    assert (answer.text, answer.reasoning) == (text, reasoning)


@pytest.mark.parametrize(
    ("usage", "counted"),
    [
        ({}, Usage()),
        ({"usage": None}, Usage()),
        ({"usage": {}}, Usage()),
        ({"usage": {"prompt_tokens": 3, "completion_tokens": 0}}, Usage(3, 0)),
        ({"usage": {"prompt_tokens": -3, "completion_tokens": 4}}, Usage(None, 4)),
        ({"usage": {"prompt_tokens": True, "completion_tokens": 4.5}}, Usage()),
        ({"usage": {"prompt_tokens": 10**12, "completion_tokens": 10**12 + 1}}, Usage(10**12)),
        ({"usage": {"prompt_tokens": 2**64 - 1, "completion_tokens": 10**400}}, Usage()),
        (
            {"usage": {"prompt_tokens": 3, "completion_tokens": 4, "prompt_tokens_details": None, "total_tokens": 7}},
            Usage(3, 4),
        ),
        (
            {
                "usage": {
                    "prompt_tokens": 3,
                    "completion_tokens": 4,
                    "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 9},
                    "completion_tokens_details": {"reasoning_tokens": 2},
                }
            },
            Usage(3, 4, 0, 2),
        ),
    ],
    ids=str,
)
def test_tokens_are_counted_as_far_as_they_are_told(usage: dict[str, Any], counted: Usage) -> None:
    assert decoded(choice({"content": "hi"}, **usage)).usage == counted


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("written", "cost"),
    [
        ("0.00014", "0.00014"),
        ("1.23456789e-05", "0.0000123456789"),
        ("0.1", "0.1"),
        ("0", "0"),
        ("2", "2"),
        ("-0.1", None),
        ("true", None),
        ('"0.1"', None),
        ("null", None),
        ("NaN", None),
        ("1e300", None),
        pytest.param("1" + "0" * 400, None, id="a number of 401 digits"),
    ],
)
def test_what_the_provider_takes_is_read_to_the_last_digit(written: str, cost: str | None, streamed: bool) -> None:
    facts = choice({"content": "hi"}, usage={"prompt_tokens": 3, "completion_tokens": 4, "cost": "?"})
    if streamed:
        facts["choices"][0]["delta"] = facts["choices"][0].pop("message")
    body = json.dumps(facts).replace('"?"', written).encode()
    if streamed:
        usage = read(MAKERS["openai"](), b"data: " + body + b"\n\ndata: [DONE]\n\n").answer.usage
    else:
        found = openai_chat.decode_chat(HttpResponse(200, {}, body), target="t").usage
        assert found is not None
        usage = found
    assert usage == Usage(3, 4, cost_usd=None if cost is None else Decimal(cost))


@pytest.mark.parametrize(
    "body", [{}, {"choices": []}, {"choices": None}, {"choices": "x"}, {"choices": [None]}, [], "hi", None, 3], ids=str
)
def test_what_has_no_answer_in_it_is_refused(body: Any) -> None:
    with pytest.raises(errors.BadResponse, match="OpenAI-compatible"):
        decoded(body)
    with pytest.raises(errors.BadResponse, match="Ollama"):
        ollama_chat.decode_chat(HttpResponse(200, {}, json.dumps(body).encode()), target="t")


@pytest.mark.parametrize("body", [b"", b"{", b"<html>hi</html>", b"\xff\xfe"])
def test_what_is_no_json_is_refused(body: bytes) -> None:
    for decode in (openai_chat.decode_chat, ollama_chat.decode_chat):
        with pytest.raises(errors.BadResponse, match="instead of JSON"):
            decode(HttpResponse(200, {}, body), target="t")


@pytest.mark.parametrize("reason", ["stop", "length", "tool_calls", "content_filter", "eos_token", None])
def test_the_reason_for_the_end_is_handed_on_as_it_is(reason: str | None) -> None:
    assert decoded(choice({"content": "x"}, reason)).finish_reason == reason


def test_of_several_answers_the_first_is_taken_and_none_is_mixed_in() -> None:
    def chunk(index: int, text: str, reason: str | None = None) -> bytes:
        made = {"choices": [{"index": index, "delta": {"content": text}, "finish_reason": reason}]}
        return b"data: " + json.dumps(made).encode() + b"\n\n"

    data = chunk(0, "one ") + chunk(1, "ONE ") + chunk(1, "TWO", "stop") + chunk(0, "two", "length")
    assert read(MAKERS["openai"](), data).said == ("one two", "", [], "length")
    assert not read(MAKERS["openai"](), chunk(0, "one ") + chunk(1, "ONE", "stop")).finished
    both = [{"index": 1, "message": {"content": "ONE"}}, {"index": 0, "message": {"content": "one"}}]
    assert decoded({"choices": both}).text == "one"


def test_who_served_and_the_requests_id_are_in_the_headers() -> None:
    body = json.dumps(choice({"content": "x"}, model="m")).encode()
    headers = {"x-inference-provider": "nebius", "inference-id": "i", "x-request-id": "r"}
    event = openai_chat.decode_chat(HttpResponse(200, headers, body), target="t")
    assert (event.provider, event.request_id, event.model) == ("nebius", "r", "m")
    del headers["x-request-id"]
    assert openai_chat.decode_chat(HttpResponse(200, headers, body), target="t").request_id == "i"
    stream = openai_chat.OpenAIStreamDecoder({"x-inference-id": "h"}, "t")
    assert [event.request_id for event in stream.feed(b'data: {"choices":[]}\n\n')] == ["h"]


def test_logprobs_of_all_pieces_come_together() -> None:
    tokens = [{"token": "a", "logprob": -0.1}, {"token": "b", "logprob": -0.2}]
    whole = {"choices": [{"message": {"content": "ab"}, "logprobs": {"content": tokens}}]}
    assert decoded(whole).logprobs == tuple(tokens)
    lines = [
        {"choices": [{"delta": {}, "logprobs": each}]}
        for each in ({"content": tokens[:1]}, {"content": tokens[1:]}, None)
    ]
    data = b"".join(b"data: " + json.dumps(line).encode() + b"\n\n" for line in lines)
    assert read(MAKERS["openai"](), data).answer.logprobs == tuple(tokens)


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        ({"message": {"content": "hi"}, "done": False}, ChatAnswer("hi")),
        ({"message": {"content": "hi"}, "done": True}, ChatAnswer("hi", finish_reason="stop")),
        (
            {"message": {"content": "", "thinking": "hm"}, "done": True, "done_reason": "length", "eval_count": 7},
            ChatAnswer(reasoning="hm", finish_reason="length", usage=Usage(None, 7)),
        ),
        (
            {
                "model": "big",
                "remote_host": "https://ollama.com",
                "message": {"content": "hi"},
                "done": True,
                "prompt_eval_count": 3,
                "eval_count": 0,
                "logprobs": [{"token": "hi"}],
            },
            ChatAnswer(
                "hi", "", (), "stop", Usage(3, 0), "big", provider="https://ollama.com", logprobs=({"token": "hi"},)
            ),
        ),
    ],
    ids=str,
)
def test_a_whole_answer_of_ollama_is_read(body: dict[str, Any], answer: ChatAnswer) -> None:
    builder = AnswerBuilder()
    builder.add(ollama_chat.decode_chat(HttpResponse(200, {}, json.dumps(body).encode()), target="t"))
    assert builder.answer() == answer


def test_calls_of_ollama_are_whole_with_objects_for_arguments() -> None:
    calls = [
        {"function": {"name": "add", "arguments": {"wo": "Köln"}}},
        {"id": "c2", "function": {"index": 1, "name": "add", "arguments": {}}},
        {"function": {"name": "sub"}},
        {"function": {"arguments": {}}},
        "nonsense",
    ]
    lines = [
        {"message": {"content": "", "tool_calls": calls[:1]}},
        {"message": {"tool_calls": calls[1:]}, "done": True},
    ]
    found = [(None, "add", '{"wo": "Köln"}'), ("c2", "add", "{}"), (None, "sub", "{}")]
    data = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    check_calls(read(MAKERS["ollama"](), data).answer, found)


# Tool calls


def call(name: str | None, arguments: Any = None, id: str | None = None, index: int | None = None) -> dict[str, Any]:  # noqa: A002
    made: dict[str, Any] = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return {**made, **({"id": id} if id is not None else {}), **({"index": index} if index is not None else {})}


@pytest.mark.parametrize(
    ("calls", "found"),
    [
        ([call("add", '{"a":1}', "c1")], [("c1", "add", '{"a":1}')]),
        ([call("add", {"a": 1}, "c1")], [("c1", "add", '{"a": 1}')]),
        ([call("add", "", "c1")], [("c1", "add", "{}")]),
        ([call("add", None, "c1")], [("c1", "add", "{}")]),
        ([call("add", "{}")], [(None, "add", "{}")]),
        ([call("add", "{}", "")], [(None, "add", "{}")]),
        ([call("add", "{}", "add")], [(None, "add", "{}")]),
        # One id for all: TGI's "0", the tool's name, none; the number the same, too.
        (
            [call("add", '{"a":1}', "0"), call("add", '{"a":2}', "0")],
            [("0", "add", '{"a":1}'), (None, "add", '{"a":2}')],
        ),
        ([call("add", "", "add"), call("add", "", "add")], [(None, "add", "{}"), (None, "add", "{}")]),
        ([call("add", "", "", 0), call("add", "", "", 0)], [(None, "add", "{}"), (None, "add", "{}")]),
        ([call("add", "{}", "c1", 0), call("sub", "{}", "c2", 0)], [("c1", "add", "{}"), ("c2", "sub", "{}")]),
        ([call("add", "{}", "c1", 5), call("sub", "{}", "c2", 3)], [("c1", "add", "{}"), ("c2", "sub", "{}")]),
    ],
    ids=str,
)
def test_every_call_of_a_whole_answer_is_one(calls: list[Any], found: list[tuple[str | None, str, str]]) -> None:
    answer = decoded(choice({"role": "assistant", "content": None, "tool_calls": calls}, "tool_calls"))
    assert answer.text == ""
    check_calls(answer, found)


def check_calls(answer: ChatAnswer, found: list[tuple[str | None, str, str]]) -> None:
    """None as an id: one that is made here."""
    assert [(each.name, each.arguments) for each in answer.tool_calls] == [(name, said) for _, name, said in found]
    for each, (given_id, _, _) in zip(answer.tool_calls, found, strict=True):
        assert each.id == given_id if given_id else re.fullmatch("made here|call_[0-9a-f]{24}", each.id)
    ids = [each.id for each in answer.tool_calls if each.id != "made here"]
    assert len(set(ids)) == len(ids)


def d(index: int | None = None, id: str | None = None, name: str | None = None, said: str = "") -> ToolCallDelta:  # noqa: A002
    return ToolCallDelta(index, id, name, said)


PIECES: dict[str, tuple[list[ToolCallDelta], list[tuple[str | None, str, str]]]] = {
    "interleaved": (
        [d(0, "a", "f", "{"), d(1, "b", "g", '{"x"'), d(0, None, None, "}"), d(1, None, None, ":1}")],
        [("a", "f", "{}"), ("b", "g", '{"x":1}')],
    ),
    "numbered backwards": (
        [d(1, "b", "g", "{"), d(0, "a", "f", "{}"), d(1, None, None, "}")],
        [("b", "g", "{}"), ("a", "f", "{}")],
    ),
    "without numbers": (
        [d(None, "a", "f", "{"), d(None, None, None, "}"), d(None, "b", "g", ""), d(None, None, None, "{}")],
        [("a", "f", "{}"), ("b", "g", "{}")],
    ),
    "without numbers, the id with every piece, interleaved": (
        [d(None, "a", "f", "{"), d(None, "b", "g", "{"), d(None, "a", None, "}"), d(None, "b", None, "}")],
        [("a", "f", "{}"), ("b", "g", "{}")],
    ),
    "without numbers and ids": (
        [d(None, None, "f", "{"), d(None, None, None, "}"), d(None, None, "f", "{}")],
        [(None, "f", "{}"), (None, "f", "{}")],
    ),
    "every number 0, as Ollama's OpenAI form": (
        [d(0, "a", "f", '{"x":1}'), d(0, "b", "f", '{"x":2}')],
        [("a", "f", '{"x":1}'), ("b", "f", '{"x":2}')],
    ),
    "every number 0, in pieces, as older vLLMs": (
        [d(0, "a", "f", ""), d(0, None, None, '{"x":1}'), d(0, "b", "f", ""), d(0, None, None, '{"x":2}')],
        [("a", "f", '{"x":1}'), ("b", "f", '{"x":2}')],
    ),
    "every number 0, the id with every piece, as older SGLangs": (
        [d(0, "0", "f", ""), d(0, "0", None, "{}"), d(0, "1", "f", ""), d(0, "1", None, '{"x":2}')],
        [("0", "f", "{}"), ("1", "f", '{"x":2}')],
    ),
    "every number 0, the id with every piece, interleaved": (
        [d(0, "a", "f", "{"), d(0, "b", "g", "{"), d(0, "a", None, "}"), d(0, "b", None, "}")],
        [("a", "f", "{}"), ("b", "g", "{}")],
    ),
    "every number 0, no ids, other tools": (
        [d(0, None, "f", "{}"), d(0, None, "g", "{}")],
        [(None, "f", "{}"), (None, "g", "{}")],
    ),
    "every number 0, no ids, the same tool": (
        [d(0, None, "f", '{"x":1}'), d(0, None, "f", '{"x":2}'), d(0, None, "f", "{}")],
        [(None, "f", '{"x":1}'), (None, "f", '{"x":2}'), (None, "f", "{}")],
    ),
    "the tool's name for an id": (
        [d(0, "f", "f", '{"x":1}'), d(1, "f", "f", '{"x":2}')],
        [(None, "f", '{"x":1}'), (None, "f", '{"x":2}')],
    ),
    "the tool's name for an id, no numbers": (
        [d(None, "f", "f", '{"x":1}'), d(None, "f", "f", '{"x":2}')],
        [(None, "f", '{"x":1}'), (None, "f", '{"x":2}')],
    ),
    "one id for all, numbered": (
        [d(0, "c", "f", "{"), d(1, "c", "g", "{"), d(0, "c", None, "}"), d(1, "c", None, "}")],
        [("c", "f", "{}"), (None, "g", "{}")],
    ),
    "id and name with every piece": (
        [d(0, "a", "f", '{"x"'), d(0, "a", "f", ":"), d(0, "a", "f", "1}"), d(0, "a", "f", "")],
        [("a", "f", '{"x":1}')],
    ),
    "a new id with every piece": ([d(0, "a", "f", "{"), d(0, "b", None, "}")], [("a", "f", "{}")]),
    "a new id with every piece, no numbers": ([d(None, "a", "f", "{"), d(None, "b", None, "}")], [("a", "f", "{}")]),
    "the id comes late": ([d(0, None, "f", "{"), d(0, "a", None, "}")], [(None, "f", "{}")]),
    "the name comes late": ([d(0, "a", None, "{"), d(0, None, "f", "}")], [("a", "f", "{}")]),
    "no arguments": ([d(0, "a", "f"), d(1, "b", "g", "")], [("a", "f", "{}"), ("b", "g", "{}")]),
}


@pytest.mark.parametrize("name", PIECES)
@pytest.mark.parametrize("together", [False, True], ids=["one by one", "in one event"])
def test_pieces_of_calls_find_each_other(name: str, together: bool) -> None:
    pieces, found = PIECES[name]
    builder = AnswerBuilder()
    events = [ChatEvent(tool_calls=tuple(pieces))] if together else [ChatEvent(tool_calls=(piece,)) for piece in pieces]
    given_back = [builder.add(event) for event in events]
    check_calls(builder.answer(), found)
    check_pieces(given_back, builder.answer())


def check_pieces(given_back: Sequence[ChatEvent], answer: ChatAnswer) -> None:
    """Whoever joins the pieces by their numbers alone, as the frameworks do, gets the same calls."""
    found: list[dict[str, Any]] = []
    for piece in (piece for event in given_back for piece in event.tool_calls):
        assert piece.index is not None
        if piece.index == len(found):
            assert piece.id is not None
            found.append({"id": piece.id, "name": "", "arguments": ""})
        else:
            assert piece.id is None
        found[piece.index]["name"] += piece.name or ""
        found[piece.index]["arguments"] += piece.arguments
    assert [(each["id"], each["name"], each["arguments"] or "{}") for each in found] == [
        (each.id, each.name, each.arguments) for each in answer.tool_calls
    ]


def test_a_tool_is_called_by_older_tgis_without_a_list() -> None:
    pieces = [call("add", "", "", 0), call(None, '{"a":', "", 0), call(None, "1}", "", 0)]
    chunks = [{"choices": [{"delta": {"tool_calls": piece}}]} for piece in pieces]
    data = b"".join(b"data:" + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks)
    check_calls(read(MAKERS["openai"](), data).answer, [(None, "add", '{"a":1}')])


arguments_of_a_call = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(st.sampled_from('ab{}[]",:\\ é🎉\n'), max_size=6),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["x", "}"]), inner, max_size=2),
        max_leaves=5,
    ),
    max_size=3,
)
# How servers tell calls apart: whether each has a number, its own or 0, and an id, with its first piece or with every one.
WAYS = {
    "number": (True, False, False, True),
    "number and id": (True, True, False, True),
    "number and id with every piece": (True, True, True, True),
    "0 and id": (False, True, False, False),
    "0 and id with every piece": (False, True, True, True),
    "id": (None, True, False, False),
    "id with every piece": (None, True, True, True),
    "name": (None, False, False, False),
}


@pytest.mark.parametrize("way", WAYS)
@bounded(100)
@given(
    st.data(),
    st.lists(st.tuples(st.sampled_from(["f", "g"]), arguments_of_a_call), min_size=1, max_size=3),
    st.booleans(),
)
def test_calls_come_together_however_they_are_cut(
    way: str, data: st.DataObject, calls: list[tuple[str, dict[str, Any]]], named_again: bool
) -> None:
    numbered, with_id, id_again, may_mix = WAYS[way]
    queues: list[list[ToolCallDelta]] = []
    for number, (name, given_arguments) in enumerate(calls):
        said = json.dumps(given_arguments)
        index = None if numbered is None else number if numbered else 0
        # Named again is what only servers do that number rightly, or give ids again.
        again = name if named_again and id_again else None
        own_id = f"id{number}" if with_id else None
        cuts = [
            piece.decode() for piece in cut(said.encode(), data.draw(st.lists(st.integers(0, len(said)), max_size=4)))
        ]
        rest = [d(index, own_id if id_again else None, again, piece) for piece in cuts[1:]]
        queues.append([d(index, own_id, name, cuts[0]), *rest])
    mixed: list[ToolCallDelta] = []
    begun = 0
    while any(queues):
        # A call may go on while others do, and begins after those before it.
        able = [number for number, queue in enumerate(queues) if queue and number <= begun]
        number = data.draw(st.sampled_from(able)) if may_mix else able[0]
        begun = max(begun, number + 1)
        mixed.append(queues[number].pop(0))
    builder = AnswerBuilder()
    given_back = [builder.add(ChatEvent(tool_calls=(piece,))) for piece in mixed]
    answer = builder.answer()
    assert [(each.name, each.arguments) for each in answer.tool_calls] == [
        (name, json.dumps(given_arguments)) for name, given_arguments in calls
    ]
    check_pieces(given_back, answer)


def test_what_was_gathered_is_a_message_again() -> None:
    builder = AnswerBuilder()
    builder.add(ChatEvent("let me ", tool_calls=(d(0, "a", "f", '{"x"'),)))
    builder.add(ChatEvent("add", tool_calls=(d(0, None, None, ":1}"),), finish_reason="tool_calls"))
    assert (builder.text, builder.finished, builder.has_content) == ("let me add", True, True)
    called = {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}}
    assert builder.answer().message() == {"role": "assistant", "content": "let me add", "tool_calls": [called]}
    assert builder.answer().tool_calls[0].parsed() == {"x": 1}


# A call that is forced out of Ollama


def tool(name: str, parameters: Mapping[str, Any] | None = None) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **({"parameters": parameters} if parameters else {})}}


@pytest.mark.parametrize("several", [False, True], ids=["one tool", "several"])
@bounded(200)
@given(arguments_of_a_call, st.sampled_from([None, 0, 2]), st.booleans(), places, st.sampled_from(["", "\n", " \n\n"]))
def test_a_forced_call_is_the_same_however_its_text_is_cut(
    several: bool, arguments: dict[str, Any], indent: int | None, apart: bool, at: list[int], around: str
) -> None:
    written = {"name": "g", "arguments": arguments} if several else arguments
    text = around + json.dumps(written, indent=indent) + around
    forced = ForcedCall([tool("f"), tool("g")] if several else [tool("g")])
    pieces = [piece.decode() for piece in cut(text.encode(), at)]
    reasons = [None] * (len(pieces) - 1) + ["stop"]
    events = [ChatEvent(piece, finish_reason=reason) for piece, reason in zip(pieces, reasons, strict=True)]
    if apart:  # the reason for the end comes alone, as Ollama's last line does
        events = [replace(event, finish_reason=None) for event in events] + [ChatEvent(finish_reason="stop")]
    builder = AnswerBuilder()
    given_back = [builder.add(forced.read(event)) for event in events]
    answer = builder.answer()
    [made] = answer.tool_calls
    assert (made.name, made.parsed(), answer.text, answer.finish_reason) == ("g", arguments, "", "stop")
    whole = AnswerBuilder()
    whole.add(
        ForcedCall([tool("f"), tool("g")] if several else [tool("g")]).read(ChatEvent(text, finish_reason="stop"))
    )
    assert whole.answer().tool_calls[0].arguments == made.arguments
    check_pieces(given_back, answer)


@pytest.mark.parametrize(
    "text", ['{"name":"g","arguments":', '{"name": "g"', "I'd rather not.", '{"arguments":{},"name":"g"}', "", "  "]
)
def test_what_is_no_forced_call_is_not_hidden(text: str) -> None:
    for size in (1, 3, 100):
        forced, builder = ForcedCall([tool("f"), tool("g")]), AnswerBuilder()
        for start in range(0, len(text), size):
            builder.add(forced.read(ChatEvent(text[start : start + size])))
        builder.add(forced.read(ChatEvent(finish_reason="length")))
        assert (builder.answer().text, builder.answer().tool_calls) == (text, ())


def test_a_call_that_the_server_itself_read_stays() -> None:
    forced, builder = ForcedCall([tool("g")]), AnswerBuilder()
    builder.add(forced.read(ChatEvent(reasoning="hm")))
    builder.add(forced.read(ChatEvent(tool_calls=(d(None, None, "g", '{"x": 1}'),))))
    builder.add(forced.read(ChatEvent(finish_reason="stop")))
    check_calls(builder.answer(), [(None, "g", '{"x": 1}')])
    assert builder.answer().reasoning == "hm"


def test_a_forced_call_is_read_from_the_bytes() -> None:
    lines = [
        {"message": {"content": piece}, "done": False} for piece in ('{"name":"g', '","arguments":{"x"', ":1}", "}")
    ]
    lines.append({"message": {"content": ""}, "done": True, "done_reason": "stop"})
    data = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    for size in (1, 10, 1000):
        stream = ollama_chat.OllamaStreamDecoder({}, "t", ForcedCall([tool("f"), tool("g")]).read)
        found = read(stream, *cut(data, range(0, len(data), size)))
        check_calls(found.answer, [(None, "g", '{"x":1}')])


# What is sent

USER = {"role": "user", "content": "hi"}
SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
ADD, SUB = tool("add", SCHEMA), tool("sub")
JSON_SCHEMA = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA, "strict": True}}


def to_openai(messages: Any = "hi", *, model: str | None = "m", stream: bool = False, **call: Any) -> dict[str, Any]:
    request = replace(ChatRequest.of(messages, **call), stream=stream)
    made = openai_chat.encode_chat("http://h/v1/chat/completions", model, request)
    assert (made.method, made.url, made.headers["content-type"]) == (
        "POST",
        "http://h/v1/chat/completions",
        "application/json",
    )
    return json.loads(made.body or b"")  # type: ignore[no-any-return]


def to_ollama(
    messages: Any = "hi", *, stream: bool = False, own: Mapping[str, Any] | None = None, **call: Any
) -> dict[str, Any]:
    request = replace(ChatRequest.of(messages, **call), stream=stream)
    made = ollama_chat.encode_chat("http://h", "m", request, target="t", **(own or {}))
    assert (made.method, made.url, made.headers["content-type"]) == ("POST", "http://h/api/chat", "application/json")
    return json.loads(made.body or b"")  # type: ignore[no-any-return]


PLAIN_OPENAI = {"messages": [USER], "model": "m"}
PLAIN_OLLAMA = {"messages": [USER], "model": "m", "stream": False, "truncate": False}
NO_THOUGHTS = {"enable_thinking": False}


def test_nothing_is_sent_that_was_not_set() -> None:
    assert to_openai() == PLAIN_OPENAI
    assert to_openai(model=None) == {"messages": [USER]}
    assert to_openai(stop=[], tools=[], extra_body={}) == PLAIN_OPENAI
    assert to_ollama() == PLAIN_OLLAMA
    assert to_ollama(stop=[], tools=[], extra_body={}) == PLAIN_OLLAMA
    assert to_ollama(stream=True) == {**PLAIN_OLLAMA, "stream": True}


@pytest.mark.parametrize(
    ("call", "openai", "ollama"),
    [
        ({"temperature": 0}, {"temperature": 0}, {"options": {"temperature": 0}}),
        ({"temperature": 0.7}, {"temperature": 0.7}, {"options": {"temperature": 0.7}}),
        ({"top_p": 0.5}, {"top_p": 0.5}, {"options": {"top_p": 0.5}}),
        ({"top_k": 0}, {"top_k": 0}, {"options": {"top_k": 0}}),
        ({"max_tokens": 5}, {"max_tokens": 5}, {"options": {"num_predict": 5}}),
        ({"seed": 0}, {"seed": 0}, {"options": {"seed": 0}}),
        ({"frequency_penalty": 0.0}, {"frequency_penalty": 0}, {"options": {"frequency_penalty": 0}}),
        ({"presence_penalty": -1.0}, {"presence_penalty": -1}, {"options": {"presence_penalty": -1}}),
        (
            {"repetition_penalty": 1.1},
            {"repetition_penalty": 1.1, "repeat_penalty": 1.1},
            {"options": {"repeat_penalty": 1.1}},
        ),
        ({"min_p": 0.1}, {"min_p": 0.1}, {"options": {"min_p": 0.1}}),
        ({"stop": "END"}, {"stop": ["END"]}, {"options": {"stop": ["END"]}}),
        ({"stop": ["a", "b"]}, {"stop": ["a", "b"]}, {"options": {"stop": ["a", "b"]}}),
        ({"logprobs": False}, {"logprobs": False}, {"logprobs": False}),
        ({"logprobs": True, "top_logprobs": 0}, *[{"logprobs": True, "top_logprobs": 0}] * 2),
        (
            {"reasoning_effort": "low"},
            {"reasoning_effort": "low", "chat_template_kwargs": {"enable_thinking": True, "reasoning_effort": "low"}},
            {"think": "low"},
        ),
        *[
            ({"reasoning_effort": off}, {"reasoning_effort": "none", "chat_template_kwargs": NO_THOUGHTS}, {"think": False})
            for off in ("none", False)
        ],
        ({"reasoning_effort": True}, {"chat_template_kwargs": {"enable_thinking": True}}, {"think": True}),
        (
            {"reasoning_effort": False, "extra_body": {"chat_template_kwargs": {"thinking": False}}},
            {"reasoning_effort": "none", "chat_template_kwargs": {**NO_THOUGHTS, "thinking": False}},
            {"think": False},
        ),
        ({"extra_body": {"guided_regex": "a+"}}, {"guided_regex": "a+"}, {}),
        ({"extra_body": {"mirostat": 2}}, {"mirostat": 2}, {"options": {"mirostat": 2}}),
        ({"extra_body": {"top_k": 9}, "top_k": 0}, {"top_k": 9}, {"options": {"top_k": 0}}),
        ({"parallel_tool_calls": False}, {}, {}),
        ({"parallel_tool_calls": False, "tools": [ADD]}, {"parallel_tool_calls": False, "tools": [ADD]}, {"tools": [ADD]}),
        ({"tools": [ADD, SUB]}, {"tools": [ADD, SUB]}, {"tools": [ADD, SUB]}),
        ({"tools": [ADD], "tool_choice": "auto"}, {"tools": [ADD], "tool_choice": "auto"}, {"tools": [ADD]}),
        ({"tools": [ADD], "tool_choice": "none"}, {"tools": [ADD], "tool_choice": "none"}, {}),
        (
            {"tools": [ADD], "tool_choice": "required"},
            {"tools": [ADD], "tool_choice": "required"},
            {"tools": [ADD], "format": SCHEMA},
        ),
        (
            {"tools": [ADD, SUB], "tool_choice": "sub"},
            {"tools": [SUB], "tool_choice": "required"},
            {"tools": [SUB], "format": {"type": "object"}},
        ),
        (
            {"tools": [ADD, SUB], "tool_choice": "any"},
            {"tools": [ADD, SUB], "tool_choice": "required"},
            {
                "tools": [ADD, SUB],
                "format": {
                    "anyOf": [
                        {
                            "type": "object",
                            "properties": {"name": {"const": name}, "arguments": schema},
                            "required": ["name", "arguments"],
                            "additionalProperties": False,
                        }
                        for name, schema in (("add", SCHEMA), ("sub", {"type": "object"}))
                    ]
                },
            },
        ),
        ({"response_format": {"type": "text"}}, {"response_format": {"type": "text"}}, {}),
        ({"response_format": {"type": "json_object"}}, {"response_format": {"type": "json_object"}}, {"format": "json"}),
        ({"response_format": JSON_SCHEMA}, {"response_format": JSON_SCHEMA}, {"format": SCHEMA}),
    ],
    ids=lambda value: str(value)[:50],
)  # fmt: skip
def test_exactly_what_is_set_is_sent(call: dict[str, Any], openai: dict[str, Any], ollama: dict[str, Any]) -> None:
    assert to_openai(**call) == {**PLAIN_OPENAI, **openai}
    assert to_ollama(**call) == {**PLAIN_OLLAMA, **ollama}


def test_a_stream_is_asked_for_with_its_tokens_and_uncompressed() -> None:
    assert to_openai(stream=True) == {**PLAIN_OPENAI, "stream": True, "stream_options": {"include_usage": True}}
    request = replace(ChatRequest.of("hi"), stream=True)
    made = openai_chat.encode_chat("http://h", "m", request, stream_usage=False)
    assert json.loads(made.body or b"") == {**PLAIN_OPENAI, "stream": True}
    assert made.headers["accept"].startswith("text/event-stream")
    assert made.headers["accept-encoding"] == "identity"


def test_ollamas_own_options_go_under_those_of_the_call() -> None:
    sent = to_ollama(own={"options": {"num_ctx": 8192, "temperature": 1}, "keep_alive": "5m"}, temperature=0)
    assert sent == {**PLAIN_OLLAMA, "options": {"num_ctx": 8192, "temperature": 0}, "keep_alive": "5m"}
    assert to_ollama(own={"keep_alive": 0})["keep_alive"] == 0


def conversation() -> list[dict[str, Any]]:
    calls = [
        {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"x": 1}'}},
        {"id": "c2", "type": "function", "function": {"name": "sub", "arguments": ""}},
        {"id": "c3", "type": "function", "function": {"name": "add", "arguments": {"x": 2}}},
    ]
    return [
        {"role": "developer", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "See:"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}},
                {"type": "text", "text": "well?"},
            ],
        },
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "tool_call_id": "c2", "content": "two"},
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "one"}]},
        {"role": "tool", "tool_call_id": "c9", "name": "mul", "content": "nine"},
        {"role": "tool", "tool_call_id": "c8", "content": "nobody's"},
        {"role": "user", "content": [{"type": "image_url", "image_url": "data:image/jpeg;charset=x;base64,REVG"}, "and this"]},
    ]  # fmt: skip


def test_ollama_gets_a_conversation_in_its_own_form() -> None:
    assert to_ollama(conversation())["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "See:\nwell?", "images": ["QUJD"]},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"id": "c1", "function": {"name": "add", "arguments": {"x": 1}}},
                {"id": "c2", "function": {"name": "sub", "arguments": {}}},
                {"id": "c3", "function": {"name": "add", "arguments": {"x": 2}}},
            ],
        },
        {"role": "tool", "content": "two", "tool_call_id": "c2", "tool_name": "sub"},
        {"role": "tool", "content": "one", "tool_call_id": "c1", "tool_name": "add"},
        {"role": "tool", "content": "nine", "tool_call_id": "c9", "tool_name": "mul"},
        {"role": "tool", "content": "nobody's", "tool_call_id": "c8"},
        {"role": "user", "content": "and this", "images": ["REVG"]},
    ]


def test_openais_form_gets_a_conversation_as_it_is_and_nobody_changes_it() -> None:
    given_messages, tools, body = conversation(), [copy.deepcopy(ADD)], {"a": {"b": 1}}
    wanted = copy.deepcopy(JSON_SCHEMA)
    call: dict[str, Any] = {"tools": tools, "tool_choice": "add", "response_format": wanted, "extra_body": body}
    assert to_openai(given_messages, **call)["messages"] == conversation()
    to_ollama(given_messages, **call)
    assert (given_messages, tools, body, wanted) == (conversation(), [ADD], {"a": {"b": 1}}, JSON_SCHEMA)


@pytest.mark.parametrize(
    ("content", "kind", "said"),
    [
        (
            [{"type": "image_url", "image_url": {"url": "https://example.org/x.png"}}],
            errors.ModelNotFound,
            "not by a URL",
        ),
        ([{"type": "image_url", "image_url": {"url": "data:text/plain,hi"}}], errors.ModelNotFound, "not by a URL"),
        ([{"type": "input_audio", "input_audio": {}}], errors.ModelNotFound, "'input_audio'"),
        ([{"type": "text"}], errors.InvalidRequest, "'text' without its text"),
        ([{"type": "image_url"}], errors.InvalidRequest, "'image_url' without its image_url"),
        ([{"type": "image_url", "image_url": {}}], errors.InvalidRequest, "'image_url' without its image_url"),
    ],
)
def test_what_ollama_cannot_be_told_is_refused(content: Any, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        to_ollama([{"role": "user", "content": content}])


@pytest.mark.parametrize("arguments", ["{oops", "[1]", "3", '"text"'])
def test_earlier_arguments_that_are_no_object_are_left_to_another_target_by_ollama(arguments: str) -> None:
    broken = {"id": "c", "type": "function", "function": {"name": "add", "arguments": arguments}}
    message = {"role": "assistant", "content": "", "tool_calls": [broken]}
    with pytest.raises(errors.ModelNotFound, match="an earlier call of 'add'"):
        to_ollama([USER, message])
    assert to_openai([USER, message])["messages"][1] == message


@pytest.mark.parametrize("broken", ["add", {}, {"id": "c"}, {"function": "add"}, {"function": {"name": None}}], ids=str)
def test_earlier_calls_that_are_none_are_refused_by_ollama(broken: Any) -> None:
    with pytest.raises(errors.InvalidRequest, match="an earlier tool call is not in OpenAI's form"):
        to_ollama([USER, {"role": "assistant", "content": "", "tool_calls": [broken]}])


@bounded(100)
@given(anything)
def test_any_text_is_sent_as_it_is(text: str) -> None:
    assume(text)
    assert to_openai(text)["messages"][0]["content"] == text
    assert to_ollama([{"role": "user", "content": text}])["messages"][0]["content"] == text


def test_there_are_recordings_for_the_tests_above(recordings: Path) -> None:
    assert sum(each.kind.endswith("stream") for each in exchanges()) >= 22
