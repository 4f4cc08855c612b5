"""What failures lead to that only chat has, or has otherwise than other tasks: filters, broken tool calls, patience."""

import functools
from collections.abc import Callable
from typing import Any

import pytest

from hf_gateway import Target, errors
from tests.servers.chat import Said, script
from tests.servers.loopback import Reply, error_in_stream, hang
from tests.servers.ollama import BUSY, FakeOllama
from tests.servers.openai import FakeOpenAI
from tests.servers.router import FakeRouter, rate_limited
from tests.support.chatters import FORMS, Chatter
from tests.support.embedders import chain

PATH = "/v1/chat/completions"
Make = Callable[..., Chatter]


@pytest.fixture(params=FORMS)
def chatter(request: pytest.FixtureRequest) -> Make:
    return functools.partial(Chatter, request.param)


def refused(make: Chatter, error: type[errors.GatewayError], **call: Any) -> errors.GatewayError:
    with pytest.raises(error) as caught:
        make.ask(**call)
    assert make.pieces == []
    return caught.value


def says(message: str, status: int) -> Reply:
    return Reply(status, {"error": {"message": message, "type": "x", "code": status}})


def counts(*servers: FakeOpenAI) -> tuple[int, ...]:
    return tuple(server.count(PATH) for server in servers)


def test_content_filtered_as_a_finish_reason_is_an_error_too(chatter: Make, backup: FakeOpenAI) -> None:
    with FakeOpenAI(models=None, brain=script(Said("", finish_reason="content_filter"))) as primary:
        refused(chatter(chain(primary, backup)), errors.ContentFiltered)
        assert counts(primary, backup) == (1, 0)


def test_content_filtered_goes_to_the_next_target_where_the_chain_says_so(
    chatter: Make, primary: FakeOpenAI, backup: FakeOpenAI
) -> None:
    primary.always(says("The request was rejected by our content policy (violence)", 400))
    assert chatter(chain(primary, backup), next_on_content_filter=True).ask().text
    assert counts(primary, backup) == (1, 1)


TOO_LONG = "This model's maximum context length is 256 tokens. However, you requested 812 tokens in the messages."


def test_context_overflow_skips_a_target_whose_context_is_not_larger(chatter: Make, primary: FakeOpenAI) -> None:
    primary.always(says(TOO_LONG, 400))
    with FakeOllama({"small": {"capabilities": ["completion"]}}) as small:
        target = Target("ollama", "small", url=small.url, options={"num_ctx": 200})
        error = refused(chatter([*chain(primary), target]), errors.AllTargetsFailed)
        assert (primary.count(PATH), small.count()) == (1, 0)
    assert isinstance(error, errors.AllTargetsFailed)
    assert [type(each).__name__ for each in error.errors] == ["ContextOverflow", "ContextOverflow"]


def test_payment_required_skips_targets_billed_to_the_same_account(chatter: Make, backup: FakeOpenAI) -> None:
    with FakeRouter() as router:
        router.always(Reply(402, {"error": "You have exceeded your monthly included credits"}))
        hosted = [Target("hf", url=router.url, provider=name, credential="hf_exhausted") for name in ("groq", "novita")]
        assert chatter([*hosted, *chain(backup)]).ask().text
        assert (router.count(), backup.count(PATH)) == (1, 1)


def test_rate_limited_within_the_patience_is_waited_out_since_another_target_is_another_model(
    chatter: Make, primary: FakeOpenAI, backup: FakeOpenAI
) -> None:
    primary.fail(rate_limited(3))
    make = chatter(chain(primary, backup))
    assert make.ask().served_by == f"openai:{primary.url}"
    assert counts(primary, backup) == (2, 0)
    assert make.clock.waited == [3]


def test_rate_limited_is_not_waited_out_without_retries(chatter: Make, primary: FakeOpenAI, backup: FakeOpenAI) -> None:
    primary.always(rate_limited(1))
    make = chatter(chain(primary, backup), max_retries=0)
    make.ask()
    assert counts(primary, backup) == (1, 1)
    assert make.clock.waited == []


def test_a_busy_ollama_is_asked_once_more_and_then_the_next(chatter: Make, backup: FakeOpenAI) -> None:
    with FakeOllama({"llama3.1": {"capabilities": ["completion"]}}) as ollama:
        ollama.always(BUSY)
        assert chatter([Target("ollama", "llama3.1", url=ollama.url), *chain(backup)]).ask().text
        assert (ollama.count("/api/chat"), backup.count(PATH)) == (2, 1)


def test_a_silent_server_alone_is_an_error_after_the_time_without_progress(chatter: Make, primary: FakeOpenAI) -> None:
    primary.always(hang())
    make = chatter(chain(primary), attempt_timeout=0.2, streaming=True, first_content_timeout=99)
    refused(make, errors.AttemptTimedOut)
    assert primary.count(PATH) == 1


def test_a_missing_key_skips_the_target_and_says_so(chatter: Make, backup: FakeOpenAI) -> None:
    result = chatter(["hf", *chain(backup)]).ask()
    assert result.attempts[0].outcome == "skipped"
    assert "HF_TOKEN" in (result.attempts[0].error or "")
    assert "HF_TOKEN" in str(refused(chatter(["hf"]), errors.KeyMissing))


def test_the_breaker_opens_for_chat_after_three_failures_in_a_row(
    chatter: Make, primary: FakeOpenAI, backup: FakeOpenAI
) -> None:
    primary.always(Reply(500, {"error": "down"}))
    make = chatter(chain(primary, backup), max_retries=0)
    for _ in range(5):
        make.ask()
    assert counts(primary, backup) == (3, 5)
    assert not make.gateway.status()[0].ready


def test_a_targets_own_model_stays_when_a_call_names_another(
    chatter: Make, primary: FakeOpenAI, backup: FakeOpenAI
) -> None:
    primary.always(Reply(401))
    make = chatter([*chain(primary), Target("openai", "own-name", url=backup.url)])
    assert make.ask(model="other").model == "own-name"
    assert primary.requests[0].json["model"] == "other"
    with pytest.raises(errors.InvalidRequest, match="names a model of its own"):
        chatter([Target("openai", "own-name", url=backup.url)]).ask(model="other")


def test_a_missing_key_is_warned_of_once_and_a_failure_each_time(
    primary: FakeOpenAI, backup: FakeOpenAI, caplog: pytest.LogCaptureFixture
) -> None:
    keyless = Chatter("whole", ["hf", *chain(backup)])
    for _ in range(3):
        keyless.ask()
    assert len(caplog.records) == 1
    primary.always(Reply(404, {"error": "model 'x' not found"}))
    failing = Chatter("whole", chain(primary, backup))
    for _ in range(2):
        failing.ask()
    assert len(caplog.records) == 3


# BadGeneration: the model's own fault, so it is asked once more, and then the next.

BROKEN = {
    "error": {
        "message": "Failed to call a function. Please adjust your prompt.",
        "type": "invalid_request_error",
        "code": "tool_use_failed",
        "failed_generation": "<function=search>{broken",
    }
}


@pytest.mark.parametrize("where", ["body", "stream"])
def test_a_broken_tool_call_is_asked_for_once_more_and_then_of_the_next(
    chatter: Make, primary: FakeOpenAI, backup: FakeOpenAI, where: str
) -> None:
    make = chatter(chain(primary, backup))
    if where == "stream" and not make.streamed:
        pytest.skip("this form does not stream")
    primary.always(Reply(400, BROKEN) if where == "body" else error_in_stream(0, BROKEN))
    result = make.ask()
    assert counts(primary, backup) == (2, 1)
    assert [attempt.outcome for attempt in result.attempts] == ["failed", "served"]
    assert "BadGeneration" in str(result.attempts[0].error)
    assert "<function=search>{broken" in str(result.attempts[0].error)
    for _ in range(3):
        make.ask()
    assert make.gateway.status()[0].breaker == "closed"


def test_a_broken_tool_call_may_be_better_the_second_time(
    chatter: Make, primary: FakeOpenAI, backup: FakeOpenAI
) -> None:
    primary.fail(Reply(400, BROKEN))
    assert chatter(chain(primary, backup)).ask().served_by == f"openai:{primary.url}"
    assert counts(primary, backup) == (2, 0)


def test_a_broken_tool_call_alone_ends_in_an_error_with_what_the_model_wrote(
    chatter: Make, primary: FakeOpenAI
) -> None:
    primary.always(Reply(400, BROKEN))
    error = refused(chatter(chain(primary)), errors.BadGeneration)
    assert isinstance(error, errors.BadGeneration)
    assert error.failed_generation == "<function=search>{broken"


def test_what_a_server_takes_and_what_it_got_reach_the_error(chatter: Make, primary: FakeOpenAI) -> None:
    body = {
        "code": 400,
        "message": "the request is too big",
        "type": "exceed_context_size_error",
        "n_prompt_tokens": 5000,
        "n_ctx": 4096,
    }
    primary.always(Reply(400, {"error": body}))
    error = refused(chatter(chain(primary)), errors.ContextOverflow)
    assert isinstance(error, errors.ContextOverflow)
    assert (error.limit, error.length) == (4096, 5000)
