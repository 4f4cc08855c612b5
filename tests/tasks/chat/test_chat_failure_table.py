"""The failure table for chat, row by row, in every form of a call, counting the requests that reach each server."""

import functools
from collections.abc import Callable
from typing import Any

import pytest

from hf_gateway import Target, errors
from tests.servers.chat import Said, script
from tests.servers.loopback import Reply, cut, dead_url, disconnect, error_in_stream, garbage, hang, html, redirect
from tests.servers.ollama import BUSY, FakeOllama
from tests.servers.openai import FakeOpenAI
from tests.servers.router import FakeRouter, loading, rate_limited
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


@pytest.mark.parametrize("status", [400, 422])
def test_invalid_request_fails_at_once_and_asks_nobody_else(
    chatter: Make, primary: FakeOpenAI, backup: FakeOpenAI, status: int
) -> None:
    primary.always(says("messages: content must be a string", status))
    error = refused(chatter(chain(primary, backup)), errors.InvalidRequest)
    assert counts(primary, backup) == (1, 0)
    assert error.status == status


def test_content_filtered_passes_the_providers_reason_on_and_asks_nobody_else(
    chatter: Make, primary: FakeOpenAI, backup: FakeOpenAI
) -> None:
    primary.always(says("The request was rejected by our content policy (violence)", 400))
    error = refused(chatter(chain(primary, backup)), errors.ContentFiltered)
    assert counts(primary, backup) == (1, 0)
    assert "violence" in str(error)


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


def test_context_overflow_goes_to_a_target_whose_context_is_not_known(
    chatter: Make, primary: FakeOpenAI, backup: FakeOpenAI
) -> None:
    primary.always(says(TOO_LONG, 400))
    assert chatter(chain(primary, backup)).ask().text
    assert counts(primary, backup) == (1, 1)


def test_context_overflow_skips_a_target_whose_context_is_not_larger(chatter: Make, primary: FakeOpenAI) -> None:
    primary.always(says(TOO_LONG, 400))
    with FakeOllama({"small": {"capabilities": ["completion"]}}) as small:
        target = Target("ollama", "small", url=small.url, options={"num_ctx": 200})
        error = refused(chatter([*chain(primary), target]), errors.AllTargetsFailed)
        assert (primary.count(PATH), small.count()) == (1, 0)
    assert isinstance(error, errors.AllTargetsFailed)
    assert [type(each).__name__ for each in error.errors] == ["ContextOverflow", "ContextOverflow"]


def test_a_body_that_is_too_large_is_a_context_overflow_since_a_conversation_cannot_be_cut(
    chatter: Make, primary: FakeOpenAI, backup: FakeOpenAI
) -> None:
    primary.always(Reply(413, "length limit exceeded"))
    assert chatter(chain(primary, backup)).ask().text
    assert counts(primary, backup) == (1, 1)
    refused(chatter(chain(primary)), errors.ContextOverflow)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Reply(401), "AuthenticationFailed"),
        (says("API key not valid. Please pass a valid API key.", 400), "AuthenticationFailed"),
        (Reply(403, {"error": "insufficient permissions"}), "PermissionDenied"),
        (Reply(403, {"error": "Access to model x is restricted, it is a gated model"}), "GatedModel"),
        (Reply(404, {"error": "model 'x' not found"}), "ModelNotFound"),
        (Reply(402, {"error": "You have exceeded your monthly included credits"}), "PaymentRequired"),
    ],
    ids=["401", "400 about the key", "403", "403 gated", "404", "402"],
)
def test_refusals_of_one_target_go_to_the_next_without_a_retry(
    chatter: Make, primary: FakeOpenAI, backup: FakeOpenAI, answer: Reply, kind: str
) -> None:
    primary.always(answer)
    assert chatter(chain(primary, backup)).ask().served_by == f"openai:{backup.url}"
    assert counts(primary, backup) == (1, 1)
    assert type(refused(chatter(chain(primary)), getattr(errors, kind))).__name__ == kind
    assert primary.count(PATH) == 2


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


def test_rate_limited_beyond_the_patience_goes_to_the_next_target_and_rests(
    chatter: Make, primary: FakeOpenAI, backup: FakeOpenAI
) -> None:
    primary.fail(rate_limited(4))
    make = chatter(chain(primary, backup))
    make.ask()
    make.ask()
    assert counts(primary, backup) == (1, 2)
    assert make.clock.waited == []
    assert make.gateway.status()[0].retry_in == 4


def test_rate_limited_is_not_waited_out_without_retries(chatter: Make, primary: FakeOpenAI, backup: FakeOpenAI) -> None:
    primary.always(rate_limited(1))
    make = chatter(chain(primary, backup), max_retries=0)
    make.ask()
    assert counts(primary, backup) == (1, 1)
    assert make.clock.waited == []


def test_rate_limited_is_waited_out_when_nobody_else_can_serve(chatter: Make, primary: FakeOpenAI) -> None:
    primary.fail(rate_limited(20))
    make = chatter(chain(primary))
    assert make.ask().text
    assert (primary.count(PATH), make.clock.waited) == (2, [20])


def test_a_loading_model_is_waited_for_when_nobody_else_can_serve(
    chatter: Make, primary: FakeOpenAI, backup: FakeOpenAI
) -> None:
    primary.fail(loading(estimated_time=12))
    make = chatter(chain(primary))
    assert make.ask().text
    assert make.clock.waited == [12]
    primary.fail(loading(estimated_time=12))
    assert chatter(chain(primary, backup)).ask().served_by == f"openai:{backup.url}"


@pytest.mark.parametrize("status", [500, 502, 503, 529, 424])
def test_a_failing_server_is_asked_once_more_and_then_the_next(
    chatter: Make, primary: FakeOpenAI, backup: FakeOpenAI, status: int
) -> None:
    primary.always(Reply(status, {"error": "no"}))
    assert chatter(chain(primary, backup)).ask().text
    assert counts(primary, backup) == (2, 1)


def test_a_busy_ollama_is_asked_once_more_and_then_the_next(chatter: Make, backup: FakeOpenAI) -> None:
    with FakeOllama({"llama3.1": {"capabilities": ["completion"]}}) as ollama:
        ollama.always(BUSY)
        assert chatter([Target("ollama", "llama3.1", url=ollama.url), *chain(backup)]).ask().text
        assert (ollama.count("/api/chat"), backup.count(PATH)) == (2, 1)


def test_nobody_listens_is_tried_once_more_and_then_the_next(chatter: Make, backup: FakeOpenAI) -> None:
    result = chatter([f"openai:{dead_url()}", *chain(backup)]).ask()
    assert [(attempt.outcome, attempt.calls) for attempt in result.attempts] == [("failed", 2), ("served", 1)]


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_a_connection_that_breaks_before_the_answer_is_tried_once_more(
    chatter: Make, primary: FakeOpenAI, backup: FakeOpenAI, reset: bool
) -> None:
    primary.always(disconnect(reset=reset))
    assert chatter(chain(primary, backup)).ask().text
    assert counts(primary, backup) == (2, 1)


def test_a_silent_server_is_left_for_the_next_without_a_retry(
    chatter: Make, primary: FakeOpenAI, backup: FakeOpenAI
) -> None:
    primary.always(hang())
    assert chatter(chain(primary, backup), first_content_timeout=0.2).ask().text
    assert counts(primary, backup) == (1, 1)


def test_a_silent_server_alone_is_an_error_after_the_time_without_progress(chatter: Make, primary: FakeOpenAI) -> None:
    primary.always(hang())
    make = chatter(chain(primary), attempt_timeout=0.2, streaming=True, first_content_timeout=99)
    refused(make, errors.AttemptTimedOut)
    assert primary.count(PATH) == 1


@pytest.mark.parametrize(
    "answer",
    [
        html(200),
        garbage(),
        redirect("http://elsewhere.test/"),
        cut(b'{"choices": [', missing=0),
        Reply(200, []),
        Reply(200, {"choices": []}),
        Reply(200, {}),
        Reply(200, "data: hello\n\n", {"content-type": "text/event-stream"}),
        Reply(200, "", {"content-type": "text/event-stream"}),
    ],
    ids=["HTML", "garbage", "redirect", "half JSON", "a list", "no choices", "{}", "no JSON in SSE", "empty SSE"],
)
def test_a_bad_answer_goes_to_the_next_target_without_a_retry(
    chatter: Make, primary: FakeOpenAI, backup: FakeOpenAI, answer: Any
) -> None:
    primary.always(answer)
    assert chatter(chain(primary, backup)).ask().text
    assert counts(primary, backup) == (1, 1)
    refused(chatter(chain(primary), streaming=True), errors.BadResponse)


def test_max_retries_0_means_one_request(chatter: Make, primary: FakeOpenAI) -> None:
    primary.always(Reply(503, {"error": "busy"}))
    refused(chatter(chain(primary), max_retries=0), errors.Overloaded)
    assert primary.count(PATH) == 1


def test_a_missing_key_skips_the_target_and_says_so(chatter: Make, backup: FakeOpenAI) -> None:
    result = chatter(["hf", *chain(backup)]).ask()
    assert result.attempts[0].outcome == "skipped"
    assert "HF_TOKEN" in (result.attempts[0].error or "")
    assert "HF_TOKEN" in str(refused(chatter(["hf"]), errors.KeyMissing))


def test_everybody_failing_lists_each_with_its_reason(chatter: Make, primary: FakeOpenAI, backup: FakeOpenAI) -> None:
    primary.always(Reply(401))
    backup.always(html(200))
    error = refused(chatter(chain(primary, backup)), errors.AllTargetsFailed)
    assert isinstance(error, errors.AllTargetsFailed)
    assert [type(each).__name__ for each in error.errors] == ["AuthenticationFailed", "BadResponse"]


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


# Unsupported: tools, images, a template. The next target at once, and the server is well for what it can do.


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, {"error": {"code": 500, "message": "tools param requires --jinja flag", "type": "server_error"}}),
        (500, {"error": {"code": 500, "message": "image input is not supported", "type": "server_error"}}),
        (422, {"error": "Template error: template not found", "error_type": "template_error"}),
        (400, {"error": {"message": "The model 'm' is not available here", "code": "model_not_supported"}}),
    ],
)
def test_what_a_target_cannot_do_goes_to_the_next_at_once(
    chatter: Make, primary: FakeOpenAI, backup: FakeOpenAI, status: int, body: Any
) -> None:
    primary.always(Reply(status, body))
    assert chatter(chain(primary, backup)).ask().served_by == f"openai:{backup.url}"
    assert counts(primary, backup) == (1, 1)


def test_what_a_target_cannot_do_does_not_rest_it(chatter: Make, primary: FakeOpenAI, backup: FakeOpenAI) -> None:
    primary.always(says("tools param requires --jinja flag", 500))
    make = chatter(chain(primary, backup))
    for _ in range(4):
        make.ask()
    assert counts(primary, backup) == (4, 4)
    primary.recover()
    assert make.ask().served_by == f"openai:{primary.url}"


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
