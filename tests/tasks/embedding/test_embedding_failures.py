"""What failures lead to that only embedding has, or has otherwise than other tasks: batches, texts of a batch, dimensions."""

import functools
from collections.abc import Callable
from typing import Any

import pytest

from hf_gateway import Target, errors
from tests.servers import unit_vectors
from tests.servers.loopback import (
    Recorded,
    Reply,
    Stream,
)
from tests.servers.openai import FakeOpenAI
from tests.servers.router import FakeHub, FakeRouter, rate_limited
from tests.servers.tei import FakeTEI
from tests.support.embedders import MODEL, Caller, chain
from tests.support.late import COLLECTED

if COLLECTED:
    from langchain_core.exceptions import ModelError


PATH = "/v1/embeddings"
Make = Callable[..., Caller]


@pytest.fixture(params=["sync", "async"])
def caller(request: pytest.FixtureRequest) -> Make:
    return functools.partial(Caller, request.param == "async")


def refused(make: Caller, error: type[Exception]) -> errors.GatewayError:
    with pytest.raises(error) as caught:
        make.documents(["one", "two"])
    assert isinstance(caught.value, errors.GatewayError)
    return caught.value


def says(message: str, status: int) -> Reply:
    return Reply(status, {"error": {"message": message, "type": "x", "code": status}})


# ContextOverflow: never the same request again; to a target whose context is larger or not known.

TOO_LONG = "This model's maximum context length is 256 tokens. However, you requested 812 tokens in the input."


def test_context_overflow_skips_a_target_whose_context_is_not_larger(caller: Make, primary: FakeOpenAI) -> None:
    primary.always(says(TOO_LONG, 400))
    with FakeTEI(max_input_length=256) as small:
        make = caller([*chain(primary), f"tei:{small.url}"], model="sentence-transformers/all-MiniLM-L6-v2")
        error = refused(make, errors.AllTargetsFailed)
        # Both, and then each alone, since nobody says which it was.
        assert (len(primary.requests[0].json["input"]), small.count("/embed")) == (2, 0)
        assert {len(request.json["input"]) for request in primary.requests[1:]} == {1}
    assert [type(each).__name__ for each in error.errors] == ["ContextOverflow", "ContextOverflow"]


LLAMA = {
    "error": {
        "code": 500,
        "message": "input (902 tokens) is too large to process. increase the physical batch size (current batch size: 512)",
        "type": "server_error",
    }
}


class Physical(FakeOpenAI):
    """llama.cpp, which takes a text only where it fits into one physical batch, and answers 500 for the whole list otherwise."""

    def handle(self, request: Recorded) -> Reply | Stream:
        if any(len(text.split()) > 512 for text in request.json.get("input", ())):
            return Reply(500, LLAMA)
        return super().handle(request)


def test_an_overflow_says_which_text_it_is_and_both_lengths_and_the_server_stays_in_use(caller: Make) -> None:
    texts = [f"text {number}" for number in range(20)]
    with Physical(models=None) as server:
        make = caller(chain(server))
        for place in (13, 0, 19):
            long = [*texts[:place], "word " * 902, *texts[place + 1 :]]
            error = refused_texts(make, long)
            assert (error.place, error.limit, error.length) == (place, 512, 902)
            assert f"text {place} of 20: input (902 tokens)" in str(error)
        assert make.gateway.status()[0].breaker == "closed"
        assert make.documents(texts) == unit_vectors(texts)


def test_the_place_of_an_overflow_is_that_in_the_callers_list_whatever_is_cached_or_double(caller: Make) -> None:
    with Physical(models=None) as server:
        make = caller(chain(server), cache="memory")
        make.documents(["one", "two"])
        error = refused_texts(make, ["one", "two", "three", "three", "word " * 902])
        assert error.place == 4
        assert (refused_texts(make, ["word " * 902]).place, refused_texts(make, ["one", "word " * 902]).place) == (0, 1)


def test_one_long_text_goes_to_the_next_target_with_its_batch(caller: Make, backup: FakeOpenAI) -> None:
    texts = ["short", "word " * 902]
    with Physical(models=None) as server:
        assert caller(chain(server, backup)).documents(texts) == unit_vectors(texts)
        assert (server.count(PATH), backup.count(PATH)) == (1, 1)


def test_texts_that_may_be_cut_go_to_a_target_with_less_room_that_cuts_them(caller: Make, primary: FakeOpenAI) -> None:
    primary.always(says(TOO_LONG, 400))
    with FakeTEI(model_id=MODEL, max_input_length=128) as small:
        make = caller([*chain(primary), f"tei:{small.url}"], truncate=True, check_space=False)
        make.documents(["short"])
        assert small.count("/embed") == 1


def refused_texts(make: Caller, texts: list[str]) -> errors.ContextOverflow:
    with pytest.raises(errors.ContextOverflow) as caught:
        make.documents(texts)
    return caught.value


# BatchTooLarge: split and go on.


@pytest.mark.parametrize(
    "answer",
    [
        Reply(413, "Failed to buffer the request body: length limit exceeded"),
        Reply(422, {"error": "batch size 8 > maximum allowed batch size 3", "error_type": "Validation"}),
    ],
    ids=["413", "422"],
)
def test_batch_too_large_is_split_and_goes_on_at_the_same_target(
    caller: Make, primary: FakeOpenAI, backup: FakeOpenAI, answer: Reply
) -> None:
    texts = [f"text {number}" for number in range(8)]
    primary.fail(answer)
    assert caller(chain(primary, backup)).documents(texts) == unit_vectors(texts)
    # Sorted, since the last parts are under way at the same time.
    sizes = sorted((len(request.json["input"]) for request in primary.requests), reverse=True)
    assert sizes == ([8, 3, 3, 2] if answer.status == 422 else [8, 4, 4])
    assert backup.count() == 0


class Narrow(FakeOpenAI):
    """A server that takes so many texts, or bytes, at once, and refuses more with its own words."""

    def __init__(self, refusal: Reply, *, texts: int = 1000, size: int = 10**9) -> None:
        self.refused = 0
        self._refusal_of_more, self._texts, self._size = refusal, texts, size
        super().__init__(models=None)

    def handle(self, request: Recorded) -> Reply | Stream:
        if len(request.body) <= self._size and len(request.json["input"]) <= self._texts:
            return super().handle(request)
        self.refused += 1
        return self._refusal_of_more


@pytest.mark.parametrize(
    ("refusal", "limit"),
    [
        (Reply(422, {"error": "batch size 256 > maximum allowed batch size 32"}), {"texts": 32}),
        (says("the array has at most 32 items", 400), {"texts": 32}),
        (Reply(422, {"error": "batch size exceeded"}), {"texts": 40}),
        (Reply(413, "Payload Too Large"), {"size": 2000}),
    ],
    ids=["422 with the number", "400 with the number", "422 without", "413"],
)
def test_batch_too_large_is_heeded_ever_after(caller: Make, refusal: Reply, limit: dict[str, int]) -> None:
    texts = [f"text {number}" for number in range(300)]
    with Narrow(refusal, **limit) as server:
        make = caller(chain(server))
        assert make.documents(texts) == unit_vectors(texts)
        assert server.refused
        server.refused = 0
        assert make.documents(texts) == unit_vectors(texts)
        assert server.refused == 0


def test_a_refused_batch_keeps_no_longer_text_from_being_sent_alone(caller: Make) -> None:
    with Narrow(Reply(413, "Payload Too Large"), size=5000) as server:
        make = caller(chain(server))
        texts = [f"text {number}" for number in range(300)]
        assert make.documents(texts) == unit_vectors(texts)
        long = ["word " * 800]
        assert make.documents(long) == unit_vectors(long)


def test_a_batch_with_one_long_text_does_not_make_all_later_ones_small(caller: Make) -> None:
    with Narrow(Reply(422, {"error": "batch size error"}), size=20_000) as server:
        make = caller(chain(server))
        mixed = ["word " * 3600, "word " * 3500, *(f"text {number}" for number in range(30))]
        assert make.documents(mixed) == unit_vectors(mixed)
        assert server.refused
        before, texts = server.count(PATH), [f"text {number}" for number in range(200)]
        assert make.documents(texts) == unit_vectors(texts)
        assert server.count(PATH) - before == 1


def test_a_limit_is_asked_for_again_after_a_minute(caller: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("hf_gateway.backends.batching.monotonic", lambda: now[0])
    texts = [f"text {number}" for number in range(64)]
    with Narrow(Reply(422, {"error": "batch size 64 > maximum allowed batch size 4"}), texts=4) as server:
        make = caller(chain(server))
        assert make.documents(texts) == unit_vectors(texts)
        before, server._texts = server.count(PATH), 1000
        make.documents(texts)
        assert server.count(PATH) - before == 16
        now[0] += 61
        make.documents(texts)
        assert server.count(PATH) - before == 17


# AuthenticationFailed, PermissionDenied, GatedModel: no retry, next target.


def test_payment_required_skips_targets_billed_to_the_same_account(caller: Make, backup: FakeOpenAI) -> None:
    routes = [
        {"provider": name, "providerId": "m", "status": "live", "task": "feature-extraction"}
        for name in ("hf-inference", "scaleway")
    ]
    with FakeRouter() as router, FakeHub() as hub, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", hub.url)
        hub.always(Reply(200, {"id": "m", "inferenceProviderMapping": routes}))
        hosted = [
            Target("hf", url=router.url, provider=name, credential="hf_exhausted")
            for name in ("hf-inference", "scaleway")
        ]
        make = caller([*hosted, *chain(backup)])
        assert make.documents(["one"]) == unit_vectors(["one"])
        assert (router.count(), backup.count(PATH)) == (1, 1)


# RateLimited: the next target at once; the target rests; alone it is waited for if that fits the deadline.


def test_rate_limited_beyond_the_deadline_is_raised_at_once_with_its_time(caller: Make, primary: FakeOpenAI) -> None:
    primary.always(rate_limited(50))
    make = caller(chain(primary), timeout=30)
    error = refused(make, errors.RateLimited)
    assert primary.count(PATH) == 1
    assert make.clock.waited == []
    assert error.retry_after == 50


def test_rate_limited_everywhere_waits_for_the_first_that_is_ready(
    caller: Make, primary: FakeOpenAI, backup: FakeOpenAI
) -> None:
    primary.fail(rate_limited(30))
    backup.fail(rate_limited(5))
    make = caller(chain(primary, backup))
    assert make.documents(["one"]) == unit_vectors(["one"])
    assert (primary.count(PATH), backup.count(PATH)) == (1, 2)
    assert make.clock.waited == [5]


# BadResponse: no retry, next target.


def answer_with(rows: list[list[Any]]) -> Reply:
    return Reply(
        200, {"object": "list", "data": [{"index": i, "embedding": row} for i, row in enumerate(rows)], "model": "m"}
    )


def test_vectors_of_the_wrong_dimension_are_a_bad_response(caller: Make, backup: FakeOpenAI) -> None:
    minilm = "sentence-transformers/all-MiniLM-L6-v2"
    with FakeOpenAI(models=None, embed=functools.partial(unit_vectors, dim=768)) as wide:
        assert caller(chain(wide, backup), model=minilm).documents(["one"]) == unit_vectors(["one"])
        assert (wide.count(PATH), backup.count(PATH)) == (1, 1)


def test_a_dimension_that_changes_behind_the_same_url_is_a_bad_response(caller: Make, primary: FakeOpenAI) -> None:
    make = caller(chain(primary))
    make.documents(["one", "two"])
    primary.always(answer_with(unit_vectors(["one", "two"], dim=768)))
    assert "768" in str(refused(make, errors.BadResponse))


def test_vectors_of_another_dimension_than_before_go_to_the_next_target(
    caller: Make, primary: FakeOpenAI, backup: FakeOpenAI
) -> None:
    make = caller(chain(primary, backup))
    make.documents(["one", "two"])
    primary.always(answer_with(unit_vectors(["one", "two"], dim=768)))
    assert make.documents(["one", "two"]) == unit_vectors(["one", "two"])
    assert (primary.count(PATH), backup.count(PATH)) == (2, 1)


# SpaceMismatch: nobody else is asked, since the setting is wrong.


def test_a_server_of_another_model_is_a_space_mismatch_and_nothing_is_embedded(
    caller: Make, backup: FakeOpenAI
) -> None:
    with FakeTEI(model_id="BAAI/bge-small-en-v1.5") as other:
        make = caller([f"tei:{other.url}", *chain(backup)], model="sentence-transformers/all-MiniLM-L6-v2")
        error = refused(make, errors.SpaceMismatch)
        assert (other.count("/embed"), backup.count()) == (0, 0)
    assert "BAAI/bge-small-en-v1.5" in str(error)
    assert "all-MiniLM-L6-v2" in str(error)


# What the caller is told.


def test_every_error_of_the_table_is_a_langchain_model_error(caller: Make, primary: FakeOpenAI) -> None:
    primary.always(Reply(401))
    assert isinstance(refused(caller(chain(primary)), errors.AuthenticationFailed), ModelError)


def test_a_fallback_is_told_in_the_log_and_in_the_attempts(
    caller: Make, primary: FakeOpenAI, backup: FakeOpenAI, caplog: pytest.LogCaptureFixture
) -> None:
    primary.always(Reply(404, {"error": "model 'x' not found"}))
    make = caller(chain(primary, backup))
    seen: list[Any] = []
    make.gateway.observe(seen.append)
    make.documents(["one"])
    assert [attempt.outcome for attempt in seen[0].attempts] == ["failed", "served"]
    assert seen[0].served_by == (f"openai:{backup.url}",)
    assert f"served by openai:{backup.url}" in caplog.text
    assert "ModelNotFound" in caplog.text
