"""Answers of very many small pieces: each costs the same, or one answer keeps a server from everything else for minutes."""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from hf_gateway import errors
from hf_gateway.values.answer_builder import MAX_TOOL_CALLS_COUNT, AnswerBuilder
from hf_gateway.values.chat import ChatAnswer, ChatEvent, ToolCallDelta
from hf_gateway.wire.ollama_chat import ForcedCall
from hf_gateway.wire.openai_chat import OpenAIStreamDecoder
from hf_gateway.wire.think_tags import ThoughtReader

LIMIT_S = 6.0
"""Of CPU for one answer: each takes less than a second, and took between 8 s and minutes when pieces were read again."""
TOOLS = [{"type": "function", "function": {"name": name}} for name in ("look_up", "count")]


def sse(deltas: Iterable[dict[str, Any]]) -> bytes:
    """Return a stream that has arrived at once, as behind a proxy that collects it."""
    events = ({"model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas)
    return b"".join(b"data: %b\n\n" % json.dumps(event).encode() for event in events) + b"data: [DONE]\n\n"


def decoded(deltas: Iterable[dict[str, Any]]) -> Iterator[ChatEvent]:
    return OpenAIStreamDecoder({}, "target").feed(sse(deltas))


def texts(texts: Iterable[str]) -> Iterator[ChatEvent]:
    return (ChatEvent(text) for text in texts)


def built(events: Iterable[ChatEvent], turned: Callable[[ChatEvent], ChatEvent] = lambda event: event) -> ChatAnswer:
    """Return the answer that events make, within the limit."""
    builder, began = AnswerBuilder(), time.process_time()
    for event in events:
        builder.add(turned(event))
    answer = builder.answer()
    assert time.process_time() - began < LIMIT_S
    return answer


@pytest.mark.parametrize("other", ["\n", '"', "ä\t"])
def test_escapes_among_pieces_that_arrive_together(other: str) -> None:
    count = 20_000
    answer = built(decoded({"content": other if place % 2 else "a"} for place in range(count)))
    assert answer.text == f"a{other}" * (count // 2)


def test_other_pieces_among_pieces_of_text() -> None:
    count = 20_000
    answer = built(decoded({"content": "a", **({"name": "x"} if place % 2 else {})} for place in range(count)))
    assert answer.text == "a" * count


def test_a_tool_call_whose_name_comes_with_every_piece_of_its_arguments() -> None:
    count = 30_000
    pieces = ["[", *(f'"{{\\"{place}", ' for place in range(count)), "0]"]
    events = (ChatEvent(tool_calls=(ToolCallDelta(0, "c", "look_up", piece),)) for piece in pieces)
    (call,) = built(events).tool_calls
    assert len(json.loads(call.arguments)) == count + 1


def test_a_tool_call_that_is_whole_and_goes_on_with_blanks() -> None:
    pieces = ['{"query": "', "a" * 200_000, '"}', *[" "] * 20_000]
    events = (ChatEvent(tool_calls=(ToolCallDelta(0, "c", "look_up", piece),)) for piece in pieces)
    assert len(built(events).tool_calls) == 1


@pytest.mark.parametrize("index", [0, None, "numbered"])
@pytest.mark.parametrize("id_", ["c", "c{}", None])
def test_many_tool_calls(index: Any, id_: str | None) -> None:
    count = MAX_TOOL_CALLS_COUNT
    events = (
        ChatEvent(
            tool_calls=(
                ToolCallDelta(
                    place if index == "numbered" else index, id_ and id_.format(place), "look_up", f'{{"n": {place}}}'
                ),
            )
        )
        for place in range(count)
    )
    calls = built(events).tool_calls
    assert [call.parsed()["n"] for call in calls] == list(range(count))
    assert len({call.id for call in calls}) == count


def test_tool_calls_without_end_are_an_error() -> None:
    delta = ToolCallDelta(None, None, "look_up", "{}")
    with pytest.raises(errors.BadResponse, match="tool calls"):
        built(ChatEvent(tool_calls=(delta,)) for _ in range(MAX_TOOL_CALLS_COUNT + 1))


def test_a_refusal_without_end_is_an_error() -> None:
    with pytest.raises(errors.BadResponse, match="characters"):
        built(ChatEvent(refusal="no " * 1000) for _ in range(10_000))


@pytest.mark.parametrize("before", ["", "<think>a", "<think>a</think>"])
def test_blanks_around_reasoning(before: str) -> None:
    count = 200_000
    reader = ThoughtReader()
    answer = built(texts([before, *[" "] * count, "b"]), reader.read)
    assert "".join((answer.reasoning + answer.text).split()) == ("ab" if before else "b")


def test_a_reason_for_the_end_with_every_piece() -> None:
    count = 100_000
    reader = ThoughtReader(opened=True)
    answer = built((ChatEvent("ab", finish_reason="stop") for _ in range(count)), reader.read)
    assert answer.text + answer.reasoning == "ab" * count


@pytest.mark.parametrize(
    ("count", "pieces"),
    [
        (1, ['{"query": 1', *[" "] * 200_000, "}"]),
        (2, ['{"name": "look_up", "arguments": {"query": 1}', *["\n"] * 200_000, "}"]),
        (2, ['{"name": "', *["look_up "] * 100_000]),
        (2, ["I "] * 100_000),
    ],
)
def test_an_answer_that_was_to_be_a_call(count: int, pieces: list[str]) -> None:
    events = [*texts(pieces), ChatEvent("", finish_reason="stop")]
    answer = built(events, ForcedCall(TOOLS[:count]).read)
    if answer.tool_calls:
        assert json.loads(answer.tool_calls[0].arguments) == {"query": 1}
    else:
        assert answer.text == "".join(pieces)


def test_a_long_call_that_arrives_whole_is_read() -> None:
    text = json.dumps({"name": "count", "arguments": {"query": "a" * 50_000}})
    (call,) = built([ChatEvent(text, finish_reason="stop")], ForcedCall(TOOLS).read).tool_calls
    assert call.name == "count"
    assert len(call.parsed()["query"]) == 50_000
