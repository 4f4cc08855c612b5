"""Pieces of a stream that differ in their text alone: parsed once, and joined for a caller who wants the whole answer."""

import itertools
import json
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_gateway import errors
from hf_gateway.values.answer_builder import AnswerBuilder
from hf_gateway.values.chat import ChatAnswer, ChatEvent
from hf_gateway.wire import openai_chat


def read(joins: bool, pieces: Iterable[bytes]) -> tuple[list[ChatEvent], ChatAnswer]:
    """Return the events of a stream, and the answer that they make."""
    decoder, builder = openai_chat.OpenAIStreamDecoder({}, "target", joins=joins), AnswerBuilder()
    events = [builder.add(event) for piece in pieces for event in decoder.feed(piece)]
    return events + [builder.add(event) for event in decoder.end()], builder.answer()


def cut(data: bytes, at: Iterable[int]) -> list[bytes]:
    places = [0, *sorted(min(place, len(data)) for place in at), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(places)]


TEXTS = st.lists(st.text(st.sampled_from('ab "\\\n\t\x7fäß\u2028🙂')) | st.text(), max_size=12)


def pieces_of_one_form(texts: Sequence[str], *, escaped: bool = False) -> list[bytes]:
    """The events of a stream that differ in their texts alone, as nearly all of a stream do."""
    form: dict[str, Any] = {
        "id": "c",
        "model": "m",
        "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": None}],
    }
    events = []
    for text in texts:
        form["choices"][0]["delta"]["content"] = text
        events.append(b"data: %b\n\n" % json.dumps(form, ensure_ascii=escaped).encode("utf-8", "surrogatepass"))
    return events


@settings(max_examples=100, derandomize=True, deadline=None, database=None)
@given(TEXTS, st.booleans(), st.lists(st.integers(0, 2000), max_size=6))
def test_pieces_that_differ_in_their_text_alone_are_read_like_any_other(
    texts: list[str], escaped: bool, at: list[int]
) -> None:
    data = b"".join(pieces_of_one_form(texts, escaped=escaped)) + b"data: [DONE]\n\n"
    whole = read(False, [data])
    assert [event.text for event in whole[0]] == texts
    assert {event.model for event in whole[0]} <= {"m"}
    assert read(False, cut(data, at)) == whole
    joined = read(True, cut(data, at))
    assert joined[1] == whole[1]


def test_texts_that_arrive_together_are_one_event_for_a_caller_who_wants_the_whole() -> None:
    data = b"".join(pieces_of_one_form([f"word{number} " for number in range(50)]))
    decoder = openai_chat.OpenAIStreamDecoder({}, "target", joins=True)
    events = list(decoder.feed(data))
    assert "".join(event.text for event in events) == "".join(f"word{number} " for number in range(50))
    assert len(events) <= 3
    assert len(list(openai_chat.OpenAIStreamDecoder({}, "target").feed(data))) == 50


@pytest.mark.parametrize("joins", [False, True])
def test_a_character_that_is_divided_between_two_pieces_is_garbled(joins: bool) -> None:
    start, end = "ä".encode()[:1], "ä".encode()[1:]
    before, after = pieces_of_one_form(["TEXT"])[0].split(b"TEXT")
    data = b"".join([before + text + after for text in (b"x", b"y", start, end)])
    events = openai_chat.OpenAIStreamDecoder({}, "target", joins=joins).feed(data)
    texts: list[str] = []
    with pytest.raises(errors.BadResponse, match="garbled"):
        texts.extend(event.text for event in events)
    assert "".join(texts) == "xy"
