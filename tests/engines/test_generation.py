"""Answers that are made in this process: how they come piece by piece, and how they end when nobody wants them any more."""

import asyncio
import gc
import itertools
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from blockbuster import blockbuster_ctx
from hypothesis import example, given
from hypothesis import strategies as st

from hf_gateway import errors
from hf_gateway.engines import ChatEngine
from hf_gateway.engines.response_parsing import Detokenizer, HermesParser, StopStrings
from tests.models.dialogues import HELLO, NUMBERS
from tests.support.tiny import (
    MODEL,
    PATIENCE,
    Steps,
    ask,
    counted_steps,
    joined,
    loaded,
    request,
    rest,
)

pytestmark = pytest.mark.xdist_group("torch")


@pytest.fixture(scope="module")
def engine() -> ChatEngine:
    return loaded()


@pytest.fixture
def steps() -> Iterator[Steps]:
    with counted_steps() as made:
        yield made


def test_pieces_come_while_the_model_still_works(engine: ChatEngine, steps: Steps) -> None:
    steps.allow(3)
    generation = engine.start(request("Count to ten"))
    assert steps.count == 0
    first = generation.read(PATIENCE)
    assert first is not None
    assert "one".startswith(first.text)
    steps.allow(10**9)
    events = [first, *rest(generation)]
    assert len(events) > 10
    assert joined(events).text == "one two three four five six seven eight nine ten"
    assert generation.read(0) is None


def test_the_last_piece_says_why_it_ended_and_what_it_used(engine: ChatEngine) -> None:
    *_, last = rest(engine.start(request("Hello")))
    assert (last.finish_reason, last.model, last.has_content) == ("stop", "tiny-chat", False)
    assert last.usage is not None
    assert last.usage.input_tokens == 17
    assert last.usage.output_tokens == 19


def test_a_character_of_several_tokens_comes_whole(engine: ChatEngine) -> None:
    events = rest(engine.start(request("Say hello in Greek")))
    pieces = [event.text for event in events if event.text]
    assert "".join(pieces) == "Γειά σου Κόσμε 🌍"
    assert "\ufffd" not in "".join(pieces)
    assert len(pieces) < (joined(events).usage.output_tokens or 0) - 10


def test_a_character_that_is_cut_off_is_left_out(engine: ChatEngine) -> None:
    whole = "Γειά σου Κόσμε 🌍"
    for most in range(1, 31):
        given = ask(engine, "Say hello in Greek", max_tokens=most)
        assert whole.startswith(given.text)
        assert given.finish_reason == "length"


async def test_async_it_comes_the_same_and_the_event_loop_goes_on(engine: ChatEngine, steps: Steps) -> None:
    steps.allow(2)
    with blockbuster_ctx():
        generation = engine.start(request("Count to ten"))
        events = [await generation.aread(PATIENCE)]
        await asyncio.to_thread(steps.wait_for, 3)  # so that what two steps give is there, and nothing more comes
        with pytest.raises(errors.AttemptTimedOut):  # noqa: PT012 - how many pieces two steps give is the tokenizer's affair
            while True:
                events.append(await generation.aread(0.05))
        reading = asyncio.create_task(generation.aread(PATIENCE))
        await asyncio.sleep(0)
        assert not reading.done()
        steps.allow(10**9)
        events.append(await reading)
        while (event := await generation.aread(PATIENCE)) is not None:
            events.append(event)
        await generation.aclose()
    assert joined([event for event in events if event]).text == "one two three four five six seven eight nine ten"


async def test_answers_that_wait_for_their_turn_do_not_block_the_event_loop(engine: ChatEngine) -> None:
    async def answer(asked: str) -> str:
        generation, events = engine.start(request(asked)), []
        while (event := await generation.aread(PATIENCE)) is not None:
            events.append(event)
        return joined(events).text

    with blockbuster_ctx():
        answers = await asyncio.gather(*(answer(asked) for asked in ("Hello", "Count to thirty", "Count to ten") * 3))
    assert answers == [HELLO, NUMBERS, "one two three four five six seven eight nine ten"] * 3


def test_one_answer_is_made_at_a_time(engine: ChatEngine, steps: Steps) -> None:
    steps.allow(0)
    first, second = engine.start(request("Count to ten")), engine.start(request("Hello"))
    for waiting in (first, second):
        with pytest.raises(errors.AttemptTimedOut, match=r"nothing within 0\.05 s"):
            waiting.read(0.05)
    steps.wait_for(1)
    steps.allow(10**9)
    assert joined(rest(first)).text.startswith("one two")
    assert joined(rest(second)).text == HELLO


# Ends before the end.


def test_closing_ends_it_within_one_token(engine: ChatEngine, steps: Steps) -> None:
    steps.allow(5)
    generation = engine.start(request("Count to thirty"))
    generation.read(PATIENCE)
    steps.wait_for(6)
    generation.close()
    steps.allow(10**9)
    assert generation.join(PATIENCE)
    assert steps.count == 6
    assert generation.read(0) is None
    assert ask(engine, "Hello").text == HELLO


async def test_closing_async_ends_it_too(engine: ChatEngine, steps: Steps) -> None:
    steps.allow(5)
    generation = engine.start(request("Count to thirty"))
    await generation.aread(PATIENCE)
    await generation.aclose()
    steps.allow(10**9)
    assert await asyncio.to_thread(generation.join, PATIENCE)
    assert steps.count <= 6
    assert await generation.aread(0) is None


def test_what_is_closed_before_it_is_read_never_runs(engine: ChatEngine, steps: Steps) -> None:
    generation = engine.start(request("Hello"))
    generation.close()
    assert generation.read(PATIENCE) is None
    assert generation.join(0)
    assert steps.count == 0


def test_one_that_waits_for_its_turn_and_is_closed_goes_away_without_having_run(
    engine: ChatEngine, steps: Steps
) -> None:
    steps.allow(2)
    first, second = engine.start(request("Count to ten")), engine.start(request("Hello"))
    first.read(PATIENCE)
    with pytest.raises(errors.AttemptTimedOut):
        second.read(0.0)
    second.close()
    assert second.join(PATIENCE)
    steps.allow(10**9)
    whole = joined(rest(first))
    assert steps.count == whole.usage.output_tokens


def test_a_reader_that_is_forgotten_ends_its_answer(engine: ChatEngine, steps: Steps) -> None:
    steps.allow(5)
    before = set(threading.enumerate())
    generation = engine.start(request("Count to thirty"))
    generation.read(PATIENCE)
    (thread,) = set(threading.enumerate()) - before
    steps.wait_for(6)
    del generation
    gc.collect()
    steps.allow(10**9)
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert steps.count == 6


def test_the_interpreter_ends_in_the_middle_of_an_answer() -> None:
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from hf_gateway.values.chat import ChatRequest\n"
        "from hf_gateway.engines import open_chat_engine\n"
        "from hf_gateway.engines.sources import ModelFiles\n"
        "engine = open_chat_engine(ModelFiles(Path(sys.argv[1]), 'path'), {})\n"
        "generation = engine.start(ChatRequest.of('Count to thirty', max_tokens=4000))\n"
        "print(generation.read(30).text)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(MODEL)], capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "one".startswith(done.stdout.strip())


@pytest.mark.parametrize("fault", [RuntimeError("out of luck"), MemoryError("none left")])
def test_what_fails_in_the_model_reaches_the_reader(engine: ChatEngine, steps: Steps, fault: Exception) -> None:
    steps.allow(3)
    generation = engine.start(request("Count to ten"))
    assert generation.read(PATIENCE) is not None
    steps.fault = fault
    steps.allow(10**9)
    with pytest.raises(errors.EngineFailed, match=f"{type(fault).__name__}: {fault}"):
        rest(generation)
    assert generation.read(0) is None
    steps.fault = None
    assert ask(engine, "Hello").text == HELLO


# Reading, however the text is cut into pieces.

ANSWER = (
    "<think>\nHm < 3.\n</think>\n\nI ask </it>.\n"
    '<tool_call>\n{"name": "f", "arguments": {"a": "ü"}}\n</tool_call>\n<tool_call>\n{"name": "g"}</tool_call>\n and done\n'
)


@given(st.lists(st.integers(0, len(ANSWER)), max_size=40))
def test_markers_never_show_however_they_are_cut(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(ANSWER)]
    reading = HermesParser("<think><tool_call>")
    events = [event for start, end in itertools.pairwise(places) for event in reading.feed(ANSWER[start:end])]
    given = joined(events + reading.finish())
    assert (given.reasoning, given.text) == ("Hm < 3.", "I ask </it>.and done\n")
    assert [(call.name, call.arguments) for call in given.tool_calls] == [("f", '{"a": "ü"}'), ("g", "{}")]


def test_calls_of_which_the_template_knows_nothing_are_text() -> None:
    reading = HermesParser("")
    events = reading.feed(ANSWER)
    given = joined(events + reading.finish())
    assert (given.reasoning, given.text) == ("Hm < 3.", ANSWER.partition("</think>\n\n")[2])


@pytest.mark.parametrize("template", ["", "<think><tool_call>"])
@pytest.mark.parametrize("before", ["", "<think>\nhm\n</think>\n\n"])
def test_a_tag_that_an_answer_mentions_is_text(template: str, before: str) -> None:
    text = "Write <think>, think, and close it with `</think>`."
    reading = HermesParser(template)
    given = joined([event for letter in before + text for event in reading.feed(letter)] + reading.finish())
    assert (given.reasoning, given.text) == ("hm" if before else "", text)


@given(
    st.text("abx", max_size=30),
    st.lists(st.text("abx", min_size=1, max_size=4), max_size=3),
    st.lists(st.integers(0, 30)),
)
@example("baa", ["a", "baa"], [2])
@example("baa", ["a", "baa"], [])
def test_stop_strings_are_found_however_they_are_cut(text: str, stops: list[str], cuts: list[int]) -> None:
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    reading = StopStrings(stops)
    shown = "".join(reading.feed(text[start:end]) for start, end in itertools.pairwise(places))
    shown += reading.finish()
    # A model is stopped by the string that is complete first; of two that end together, the longer one is left out whole.
    met = min(((text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text), default=None)
    assert shown == (text if met is None else text[: met[1]])


@given(st.text(st.characters(codec="utf-8", exclude_characters="\ufffd"), max_size=12))
def test_text_of_single_bytes_comes_in_whole_characters(text: str) -> None:
    letters = Detokenizer(lambda ids: bytes(ids).decode(errors="replace"))
    pieces = [letters.feed(byte) for byte in text.encode()]
    assert "\ufffd" not in "".join(pieces)
    assert "".join(pieces) + letters.finish() == text
