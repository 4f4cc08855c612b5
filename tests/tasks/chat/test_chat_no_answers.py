"""Answers that are none, or not what they seem: nobody gets an empty text, a refusal or another model for an answer unsaid."""

import functools
import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from hf_gateway import Target, errors
from hf_gateway.tasks.chat.answer_checks import FINISH_REASON_FAILURES
from hf_gateway.values.chat import ChatResult
from hf_gateway.values.usage import Usage
from tests.servers.loopback import Reply
from tests.servers.ollama import FakeOllama
from tests.servers.openai import FakeOpenAI
from tests.support.chatters import FORMS, Chatter
from tests.support.embedders import chain
from tests.support.late import COLLECTED

if COLLECTED:
    from langchain_hf_gateway import ChatHFGateway
    from langchain_hf_gateway.messages import usage_metadata
    from llamaindex_hf_gateway import HFGatewayLLM
    from llamaindex_hf_gateway.responses import usage_of


PATH = "/v1/chat/completions"
Make = Callable[..., Chatter]


@pytest.fixture(params=FORMS)
def chatter(request: pytest.FixtureRequest) -> Make:
    return functools.partial(Chatter, request.param)


@pytest.fixture(params=["streamed", "astreamed"])
def streamer(request: pytest.FixtureRequest) -> Make:
    return functools.partial(Chatter, request.param)


def whole(message: Any, finish_reason: str | None = "stop", **facts: Any) -> Reply:
    """Return an answer at once."""
    return Reply(200, {"choices": [{"index": 0, "message": message, "finish_reason": finish_reason}], **facts})


def stream(*deltas: Mapping[str, Any], finish_reason: str | None = "stop", done: bool = True, **facts: Any) -> Reply:
    """Return an answer in pieces, each delta one, the finish reason another."""
    chunks = [{"delta": delta} for delta in deltas]
    if finish_reason is not None:
        chunks.append({"delta": {}, "finish_reason": finish_reason})  # type: ignore[dict-item]
    lines = [json.dumps({"choices": [{"index": 0, **chunk}], **facts}) for chunk in chunks] + ["[DONE]"] * done
    return Reply(200, "".join(f"data: {line}\n\n" for line in lines), {"content-type": "text/event-stream"})


# Empty


@pytest.mark.parametrize(
    "answer",
    [
        whole({"role": "assistant", "content": None}),
        whole({"role": "assistant", "content": ""}),
        whole({"role": "assistant", "content": "", "tool_calls": []}),
        whole(None),
        whole({"role": "assistant", "content": []}, None),
        whole({"role": "assistant", "content": ""}, "length"),
        stream({"role": "assistant", "content": ""}),
        stream({"role": "assistant"}, {"content": None}, finish_reason="tool_calls"),
        stream({"role": "assistant"}, {"content": ""}, finish_reason=None),
    ],
    ids=["null", "empty", "no calls", "no message", "no reason", "length", "stream", "calls in none", "only [DONE]"],
)
def test_an_empty_answer_is_none(chatter: Make, primary: FakeOpenAI, backup: FakeOpenAI, answer: Reply) -> None:
    primary.always(answer)
    assert chatter(chain(primary, backup)).ask().served_by == f"openai:{backup.url}"
    assert (primary.count(PATH), backup.count(PATH)) == (1, 1)
    with pytest.raises(errors.BadResponse, match=r"the answer is empty|without a finish reason"):
        chatter(chain(primary)).ask()


def test_the_callers_own_limits_may_leave_nothing(chatter: Make, primary: FakeOpenAI) -> None:
    primary.always(stream({"role": "assistant", "content": ""}, finish_reason="length"))
    assert chatter(chain(primary)).ask(max_tokens=1).text == ""
    assert chatter(chain(primary)).ask(extra_body={"max_completion_tokens": 1}).text == ""
    primary.always(stream({"role": "assistant", "content": ""}, finish_reason="MAX_TOKENS"))
    assert chatter(chain(primary)).ask(max_tokens=1).text == ""
    primary.always(stream({"role": "assistant", "content": ""}))
    assert chatter(chain(primary)).ask(stop=["\n"]).text == ""


CALLED = {"id": "c1", "type": "function", "function": {"name": "save", "arguments": "{}"}}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "saved"}


@pytest.mark.parametrize("content", ["Paris. I note that down.", [{"type": "text", "text": "Paris."}]])
def test_a_model_that_has_answered_beside_its_call_may_add_nothing(
    chatter: Make, primary: FakeOpenAI, backup: FakeOpenAI, content: Any
) -> None:
    primary.always(stream({"role": "assistant", "content": ""}))
    called = {"role": "assistant", "content": content, "tool_calls": [CALLED]}
    asked = {"role": "user", "content": "What is the capital of France?"}
    answer = chatter(chain(primary, backup)).ask([asked, called, RESULT])
    assert (answer.text, answer.served_by, backup.count()) == ("", f"openai:{primary.url}", 0)


@pytest.mark.parametrize(
    "before",
    [
        [{"role": "assistant", "content": "", "tool_calls": [CALLED]}, RESULT],
        [{"role": "assistant", "content": "Yes.", "tool_calls": [CALLED]}, RESULT, {"role": "user", "content": "And?"}],
        [
            {"role": "assistant", "content": "Of an earlier turn."},
            {"role": "user", "content": "And?"},
            {"role": "assistant", "content": None, "tool_calls": [CALLED]},
            RESULT,
        ],
    ],
    ids=["no text", "a new question", "text of an earlier turn"],
)
def test_a_model_that_has_not_answered_yet_owes_an_answer(
    chatter: Make, primary: FakeOpenAI, backup: FakeOpenAI, before: list[dict[str, Any]]
) -> None:
    primary.always(stream({"role": "assistant", "content": ""}))
    answer = chatter(chain(primary, backup)).ask([{"role": "user", "content": "Hello?"}, *before])
    assert answer.served_by == f"openai:{backup.url}"


LOADED = Reply(
    200,
    json.dumps({"message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "load"}) + "\n",
    {"content-type": "application/x-ndjson"},
)


def test_an_ollama_that_only_loaded_the_model_is_asked_once_more(chatter: Make) -> None:
    with FakeOllama({"m": {"capabilities": ["completion"]}}) as ollama:
        ollama.fail(LOADED)
        make = chatter([Target("ollama", "m", url=ollama.url)])
        assert make.ask().text
        assert (ollama.count("/api/chat"), make.clock.waited) == (2, [0])


def test_an_ollama_that_goes_on_loading_is_left_for_the_next(chatter: Make, backup: FakeOpenAI) -> None:
    with FakeOllama({"m": {"capabilities": ["completion"]}}) as ollama:
        ollama.always(LOADED)
        target = Target("ollama", "m", url=ollama.url)
        assert chatter([target, *chain(backup)]).ask().served_by == f"openai:{backup.url}"
        assert ollama.count("/api/chat") == 2
        with pytest.raises(errors.ModelLoading, match="generated nothing"):
            chatter([target], max_retries=0).ask()
        assert ollama.count("/api/chat") == 3


# Ends that are none


@pytest.mark.parametrize("streamed", [False, True])
def test_what_a_choice_says_of_its_failure_counts(chatter: Make, primary: FakeOpenAI, streamed: bool) -> None:
    body: dict[str, Any] = {
        "choices": [{"index": 0, "finish_reason": "error", "error": {"code": 429, "message": "the provider is busy"}}]
    }
    if streamed:
        primary.always(Reply(200, f"data: {json.dumps(body)}\n\n", {"content-type": "text/event-stream"}))
    else:
        primary.always(Reply(200, body))
    with pytest.raises(errors.RateLimited, match="the provider is busy"):
        chatter(chain(primary), max_retries=0).ask()


@pytest.mark.parametrize("reason", [*FINISH_REASON_FAILURES, "SAFETY"])
def test_a_finish_reason_that_tells_of_a_failure_is_one(
    chatter: Make, primary: FakeOpenAI, backup: FakeOpenAI, reason: str
) -> None:
    kind, _ = FINISH_REASON_FAILURES[reason.lower()]
    primary.always(stream({"role": "assistant"}, finish_reason=reason))
    if kind.try_next:
        assert chatter(chain(primary, backup)).ask().served_by == f"openai:{backup.url}"
    with pytest.raises(kind, match=reason):
        chatter(chain(primary)).ask()
    if not kind.try_next:
        with pytest.raises(kind):
            chatter(chain(primary, backup)).ask()
        assert backup.count() == 0


@pytest.mark.parametrize("reason", ["abort", "error", "network_error"])
def test_an_answer_that_was_given_up_after_its_first_words_is_interrupted(
    streamer: Make, primary: FakeOpenAI, backup: FakeOpenAI, reason: str
) -> None:
    primary.always(stream({"content": "Once"}, {"content": " upon"}, finish_reason=reason))
    with pytest.raises(errors.StreamInterrupted, match=reason) as caught:
        streamer(chain(primary, backup)).ask()
    assert caught.value.partial == "Once upon"
    assert backup.count() == 0


def test_a_stream_that_says_it_is_done_without_a_finish_reason_is_an_answer_and_says_so(
    chatter: Make, primary: FakeOpenAI, caplog: pytest.LogCaptureFixture
) -> None:
    primary.always(stream({"content": "Once"}, {"content": " upon"}, finish_reason=None))
    make = chatter(chain(primary), streaming=True)
    for _ in range(2):
        result = make.ask()
        assert (result.text, result.finish_reason) == ("Once upon", None)
        assert "without a finish reason" in result.notes[0]
    assert [record.getMessage() for record in caplog.records] == [f"openai:{primary.url}: {result.notes[0]}"]


@pytest.mark.parametrize("arguments", ['{"city": "Par', "", '["Paris"]'], ids=["half", "none", "a list"])
def test_done_after_half_a_tool_call_is_no_end(streamer: Make, primary: FakeOpenAI, arguments: str) -> None:
    call = {"index": 0, "id": "a", "function": {"name": "get_weather", "arguments": arguments}}
    text = [] if arguments else [{"content": ""}]
    calls = [{"tool_calls": [call]}] if arguments else []
    primary.always(stream(*text, *calls, finish_reason=None))
    with pytest.raises((errors.StreamInterrupted, errors.StreamBroken)):
        streamer(chain(primary)).ask()


def test_done_after_a_whole_tool_call_is_an_end(chatter: Make, primary: FakeOpenAI) -> None:
    call = {"index": 0, "id": "a", "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}
    primary.always(stream({"tool_calls": [call]}, finish_reason=None))
    assert chatter(chain(primary), streaming=True).ask().tool_calls[0].parsed() == {"city": "Paris"}


# Refusals


@pytest.mark.parametrize(
    "answer",
    [
        whole({"role": "assistant", "content": None, "refusal": "I will not help with that"}),
        whole({"role": "assistant", "content": [{"type": "refusal", "refusal": "I will not help with that"}]}),
        stream({"role": "assistant", "refusal": "I will not"}, {"refusal": " help with that"}),
    ],
    ids=["field", "part", "stream"],
)
def test_a_refusal_never_looks_like_an_answer(
    chatter: Make, primary: FakeOpenAI, backup: FakeOpenAI, answer: Reply
) -> None:
    primary.always(answer)
    make = chatter(chain(primary, backup))
    with pytest.raises(errors.ContentFiltered, match="I will not help with that"):
        make.ask()
    assert make.pieces == []
    assert backup.count() == 0


# Another model


def test_a_server_that_answers_with_another_model_than_was_named_is_told_of(
    chatter: Make, primary: FakeOpenAI, caplog: pytest.LogCaptureFixture
) -> None:
    named, served = "Qwen/Qwen2.5-VL-7B-Instruct", "Qwen2.5-VL-72B-Instruct"
    primary.always(stream({"content": "Hello"}, model=served))
    make = chatter(chain(primary), model=named, streaming=True)
    for _ in range(2):
        result = make.ask()
        assert result.model == served
        assert named in result.notes[0]
        assert served in result.notes[0]
    assert len(caplog.records) == 1
    assert chatter(chain(primary), model="Qwen/Qwen2.5-VL-72B-Instruct").ask().notes == ()
    assert chatter(chain(primary), model="default").ask().notes == ()
    assert len(caplog.records) == 1


def test_both_frameworks_show_what_is_unusual_about_an_answer(primary: FakeOpenAI) -> None:
    named: dict[str, Any] = {"model": "meta-llama/Llama-3.1-8B-Instruct", "targets": chain(primary)}
    primary.always(whole({"content": "Hello"}, model="llama3.1:70b"))
    answer = ChatHFGateway(**named).invoke("hi")
    assert "llama3.1:70b" in answer.response_metadata["hf_gateway"]["notes"][0]
    raw = HFGatewayLLM(**named).complete("hi").raw
    assert isinstance(raw, dict)
    assert "llama3.1:70b" in raw["hf_gateway"]["notes"][0]
    primary.always(whole({"content": "Hello"}, model="llama3.1:8b"))
    assert "notes" not in ChatHFGateway(**named).invoke("hi").response_metadata["hf_gateway"]


# Tokens


def test_output_tokens_count_also_where_the_prompts_were_not_counted(chatter: Make) -> None:
    said = {"message": {"role": "assistant", "content": "Yes."}, "done": True, "done_reason": "stop", "eval_count": 7}
    with FakeOllama({"m": {"capabilities": ["completion"]}}) as ollama:
        ollama.always(Reply(200, json.dumps(said) + "\n", {"content-type": "application/x-ndjson"}))
        target = Target("ollama", "m", url=ollama.url)
        result: ChatResult = chatter([target]).ask()
        assert result.usage == Usage(None, 7)
        answer = ChatHFGateway(targets=[target]).invoke("hi")
    assert answer.usage_metadata == {"input_tokens": 0, "output_tokens": 7, "total_tokens": 7}
    assert usage_metadata(Usage(3)) is None
    assert usage_of(result.usage) == {"completion_tokens": 7}
