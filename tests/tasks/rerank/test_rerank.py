"""Rankings: the values, one target for all documents, scales, limits, bad input, and what is recorded."""

import math
import pickle
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hf_gateway import Gateway, RerankGateway, errors, ledger
from hf_gateway.values.rerank import logit_of, probability_of
from tests.servers.loopback import Normal, Reply, dead_url, html
from tests.servers.openai import FakeOpenAI
from tests.servers.rerank import answer, entries, pair_tokens, probability, shared_words
from tests.servers.tei import FakeTEI
from tests.support.embedders import chain
from tests.support.rerank_callers import FORMS, MODEL, RerankCaller

QUERY = "catch an exception"
DOCUMENTS = ["a list comprehension", "catch an exception with try", "an exception is raised"]


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def tei() -> Iterator[FakeTEI]:
    with FakeTEI(model_type="reranker", model_id=MODEL) as server:
        yield server


def last_body(server: Any) -> Any:
    return server.requests[-1].json


class TestRanking:
    def test_the_best_come_first_with_their_places_and_texts(self, form: str, primary: FakeOpenAI) -> None:
        result = RerankCaller(form, chain(primary)).rerank(QUERY, DOCUMENTS)
        assert [hit.index for hit in result] == [1, 2, 0]
        assert [hit.document for hit in result] == [DOCUMENTS[1], DOCUMENTS[2], DOCUMENTS[0]]
        assert [hit.score for hit in result] == sorted((hit.score for hit in result), reverse=True)
        assert (result.scale, result.served_by, len(result)) == ("probability", (f"openai:{primary.url}",), 3)
        assert result[0].score == pytest.approx(probability(shared_words(QUERY, DOCUMENTS[1])))

    def test_top_n_of_the_call_of_the_chain_and_beyond_the_end(self, form: str, primary: FakeOpenAI) -> None:
        call = RerankCaller(form, chain(primary), top_n=2)
        assert [hit.index for hit in call.rerank(QUERY, DOCUMENTS)] == [1, 2]
        assert [hit.index for hit in call.rerank(QUERY, DOCUMENTS, top_n=1)] == [1]
        assert len(call.rerank(QUERY, DOCUMENTS, top_n=99)) == 3
        assert "top_n" not in last_body(primary)

    def test_one_document(self, form: str, primary: FakeOpenAI) -> None:
        (hit,) = RerankCaller(form, chain(primary)).rerank(QUERY, DOCUMENTS[:1])
        assert (hit.index, hit.document) == (0, DOCUMENTS[0])

    def test_no_documents_is_an_empty_result_and_no_request(self, form: str, primary: FakeOpenAI) -> None:
        result = RerankCaller(form, chain(primary)).rerank(QUERY, [])
        assert (list(result), result.served_by, primary.requests) == ([], (), [])

    def test_duplicates_are_sent_once_and_each_has_its_place(self, form: str, primary: FakeOpenAI) -> None:
        result = RerankCaller(form, chain(primary)).rerank(QUERY, [DOCUMENTS[0], DOCUMENTS[1], DOCUMENTS[0]])
        assert last_body(primary)["documents"] == DOCUMENTS[:2]
        assert [hit.index for hit in result] == [1, 0, 2]
        assert result[1].score == result[2].score

    def test_equal_scores_keep_the_callers_order(self, form: str, primary: FakeOpenAI) -> None:
        primary.always(Reply(200, {"results": entries([0.5, 0.5, 0.5])}))
        assert [hit.index for hit in RerankCaller(form, chain(primary)).rerank(QUERY, DOCUMENTS)] == [0, 1, 2]

    def test_a_generator_is_taken_and_read_once(self, form: str, primary: FakeOpenAI) -> None:
        result = RerankCaller(form, chain(primary)).rerank(QUERY, (text for text in DOCUMENTS))
        assert sorted(hit.index for hit in result) == [0, 1, 2]

    def test_ten_thousand_documents_go_in_parts_and_come_back_in_one_order(self, form: str) -> None:
        documents = [f"document {number}" + " exception" * (number % 7 == 0) for number in range(10_000)]
        with FakeOpenAI(models=None) as server:
            result = RerankCaller(form, chain(server)).rerank("exception", documents, top_n=2_000)
            assert server.count("/v1/rerank") == 50
        assert len(result) == 2_000
        assert all(hit.index % 7 == 0 for hit in result[:1_428])  # type: ignore[index]
        assert result.usage.documents == 10_000
        assert all(documents[hit.index] == hit.document for hit in result)

    def test_the_factory_builds_the_same(self, primary: FakeOpenAI) -> None:
        gateway = Gateway(MODEL, chain(primary), task="rerank", top_n=1)
        assert isinstance(gateway, RerankGateway)
        copied = pickle.loads(pickle.dumps(gateway))
        assert [hit.index for hit in copied.rerank(QUERY, DOCUMENTS)] == [1]


class TestInput:
    @pytest.mark.parametrize(
        ("query", "documents", "call", "words"),
        [
            ("", ["a"], {}, "the query is empty"),
            (" \n", ["a"], {}, "the query has nothing but blanks"),
            (None, ["a"], {}, "the query is NoneType"),
            ("q", "a text", {}, "documents is one str; pass a list of strings"),
            ("q", None, {}, "documents is NoneType"),
            ("q", ["a", 3], {}, "document 1 of 2 is int"),
            ("q", ["a", ""], {}, "document 1 of 2 is empty"),
            ("q", ["a", "\ud800"], {}, "document 1 of 2 has a lone surrogate"),
            ("q", ["a"], {"top_n": 0}, "top_n is a whole number above 0"),
            ("q", ["a"], {"top_n": -1}, "top_n is a whole number above 0"),
            ("q", ["a"], {"top_n": True}, "top_n is a whole number above 0"),
            ("q", ["a"], {"top_n": "3"}, "top_n is a whole number above 0"),
            pytest.param("q", ["a"], {"top_n": -(10**5000)}, "top_n is a whole number above 0", id="a huge number"),
            pytest.param("q", ["a"], {"top_n": b"\x89PNG"}, "or None for all, not bytes;", id="binary data"),
        ],
    )
    def test_what_cannot_be_ranked_is_an_error_before_anything_is_sent(
        self, form: str, primary: FakeOpenAI, query: Any, documents: Any, call: Any, words: str
    ) -> None:
        with pytest.raises(errors.InvalidRequest, match=words):
            RerankCaller(form, chain(primary)).rerank(query, documents, **call)
        assert primary.requests == []

    @pytest.mark.parametrize("settings", [{"top_n": 0}, {"scale": "bm25"}, {"scale": "percent"}, {"truncat": True}])
    def test_settings_that_make_no_sense_are_errors(self, settings: Any) -> None:
        with pytest.raises((errors.ConfigError, ValueError), match=r"top_n|scale|truncate"):
            RerankGateway(MODEL, ["openai:http://127.0.0.1:9"], **settings)

    @pytest.mark.parametrize("target", ["hf", "hf:hf-inference", "ollama:m", "hash"])
    def test_a_kind_that_does_not_rerank_is_an_error_that_names_those_that_do(self, target: str) -> None:
        with pytest.raises(errors.ConfigError, match=r"does not support rerank.*Kinds of target for rerank: .*tei"):
            RerankGateway(MODEL, [target])

    def test_a_document_that_is_too_long_is_named_as_the_caller_counts(self, form: str) -> None:
        documents = ["short", "short", *(f"text {number}" for number in range(9)), "word " * 100, "text 3"]
        with FakeOpenAI(models=None, max_input_length=50) as server:
            with pytest.raises(errors.ContextOverflow, match=r"document 11 of 13: .*maximum context length") as caught:
                RerankCaller(form, chain(server)).rerank(QUERY, documents)
            assert caught.value.place == 11
            assert len(RerankCaller(form, chain(server), truncate=True).rerank(QUERY, documents)) == 13

    def test_it_is_named_by_a_chain_too(self, form: str) -> None:
        with FakeOpenAI(models=None, max_input_length=50) as one, FakeOpenAI(models=None, max_input_length=50) as two:
            with pytest.raises(errors.AllTargetsFailed, match="document 2 of 3") as caught:
                RerankCaller(form, chain(one, two)).rerank(QUERY, ["a", "b", "word " * 100])
            assert [type(error) for error in caught.value.errors] == [errors.ContextOverflow] * 2

    def test_a_target_with_a_larger_context_takes_what_is_too_long(self, form: str) -> None:
        with FakeOpenAI(models=None, max_input_length=50) as small, FakeOpenAI(models=None) as large:
            result = RerankCaller(form, chain(small, large)).rerank(QUERY, ["a", "word " * 100])
            assert result.served_by == (f"openai:{large.url}",)


class TestOneTarget:
    def test_when_a_target_dies_between_two_parts_the_next_one_scores_all_documents(self, form: str) -> None:
        documents = [f"document {number}" for number in range(500)]
        with FakeOpenAI(models=None, score=lambda query, document: 9.0) as dying, FakeOpenAI(models=None) as backup:
            dying.fail(Normal(), Normal())
            dying.always(Reply(404, {"error": "model 'x' not found"}))
            result = RerankCaller(form, chain(dying, backup)).rerank("document 7", documents)
            assert dying.count("/v1/rerank") == 3  # two parts, and the one that failed
            # The part that the first one failed at, and then all three from the start.
            assert [len(request.json["documents"]) for request in backup.requests] == [100, 200, 200, 100]
        assert result.served_by == (f"openai:{backup.url}",)
        assert result[0].document == "document 7"
        assert max(hit.score for hit in result) < probability(5)
        assert result.usage.documents == 500 + 500
        assert [attempt.outcome for attempt in result.attempts] == ["served", "failed", "served"]

    def test_targets_that_take_turns_in_failing_give_no_mixture(self, form: str) -> None:
        documents = [f"document {number}" for number in range(400)]
        with FakeOpenAI(models=None) as one, FakeOpenAI(models=None) as two:
            for server in (one, two):
                server.fail(Normal())
                server.always(Reply(404, {"error": "model 'x' not found"}))
            with pytest.raises(errors.GatewayError):
                RerankCaller(form, chain(one, two)).rerank(QUERY, documents)

    def test_when_each_target_fails_in_the_middle_no_scores_are_mixed(self, form: str) -> None:
        documents = [f"document {number}" for number in range(400)]
        gone = Reply(404, {"error": "model 'x' not found"})
        with FakeOpenAI(models=None) as one, FakeOpenAI(models=None) as two:
            one.fail(Normal(), gone, Normal())
            two.fail(Normal(), Normal(), gone)
            with pytest.raises(
                errors.BadResponse, match="no target answered all parts of the request, and the scores of"
            ):
                RerankCaller(form, chain(one, two)).rerank(QUERY, documents)
            assert (one.count("/v1/rerank"), two.count("/v1/rerank")) == (3, 3)

    def test_a_dead_primary_is_passed_over_with_its_reason(self, form: str, backup: FakeOpenAI) -> None:
        result = RerankCaller(form, [f"openai:{dead_url()}", *chain(backup)]).rerank(QUERY, DOCUMENTS)
        assert [attempt.outcome for attempt in result.attempts] == ["failed", "served"]

    def test_html_of_a_proxy_goes_to_the_next_target(self, form: str, primary: FakeOpenAI, backup: FakeOpenAI) -> None:
        primary.always(html(200))
        result = RerankCaller(form, chain(primary, backup)).rerank(QUERY, DOCUMENTS)
        assert result.served_by == (f"openai:{backup.url}",)
        assert "HTML page" in (result.attempts[0].error or "")


class TestKeys:
    KEY = "sk-abcdefghij1234567890klmnop"

    @pytest.mark.parametrize("before", [0, 50, 60, 70, 72, 200])
    def test_that_a_server_quotes_are_not_shown_where_the_quotation_is_cut(self, form: str, before: int) -> None:
        with FakeOpenAI(models=None) as server:
            server.always(Reply(200, b"z" * before + self.KEY.encode() + b" and more"))
            with pytest.raises(errors.BadResponse, match="instead of JSON") as caught:
                RerankCaller(form, chain(server), api_key=self.KEY, max_retries=0).rerank(QUERY, ["a"])
            (checked,) = RerankCaller(form, chain(server), api_key=self.KEY).gateway.check()
        assert self.KEY[:8] not in str(caught.value)
        assert "instead of JSON" in (checked.error or "")
        assert self.KEY[:8] not in repr(checked)

    def test_that_a_server_gives_for_its_model_are_not_recorded(self, form: str, tmp_path: Path) -> None:
        path = tmp_path / "ledger.db"
        with FakeOpenAI(models=None) as server:
            server.always(Reply(200, {"results": entries([0.5]), "model": f"m {self.KEY}", "id": self.KEY}))
            book = ledger.enable(f"sqlite:///{path}")
            try:
                RerankCaller(form, chain(server), api_key=self.KEY).rerank(QUERY, ["a"])
                assert book.flush()
            finally:
                ledger.disable()
        with sqlite3.connect(path) as database:
            found = set(database.execute("select model, request_id from llm_observations"))
        assert found == {("m ***", "***")}


class TestScales:
    @pytest.mark.parametrize("scale", ["probability", "logit"])
    @pytest.mark.parametrize("like", ["vllm", "llama.cpp"])
    def test_scores_have_the_scale_of_the_chain_whatever_the_server_gives(
        self, form: str, like: Any, scale: Any
    ) -> None:
        with FakeOpenAI(models=None, reranks_like=like) as server:
            result = RerankCaller(form, chain(server), scale=scale).rerank(QUERY, DOCUMENTS)
        logits = [shared_words(QUERY, hit.document) for hit in result]
        wanted = logits if scale == "logit" else list(map(probability, logits))
        assert result.scale == scale
        assert [hit.score for hit in result] == pytest.approx(wanted)

    def test_a_server_that_gave_logits_once_is_not_taken_for_one_of_probabilities_later(self, form: str) -> None:
        with FakeOpenAI(models=None, reranks_like="llama.cpp") as server:
            call = RerankCaller(form, chain(server), scale="logit")
            call.rerank(QUERY, DOCUMENTS)
            server.always(Reply(200, {"results": entries([0.25, 0.75])}))
            assert [hit.score for hit in call.rerank(QUERY, DOCUMENTS[:2])] == [0.75, 0.25]

    @pytest.mark.parametrize(("scores", "expected"), [("logit", probability(0.5)), ("probability", 0.5), ("auto", 0.5)])
    def test_the_option_scores_says_what_the_values_cannot(self, form: str, scores: str, expected: float) -> None:
        with FakeOpenAI(models=None) as server:
            server.always(Reply(200, {"results": entries([0.5])}))
            target = {"kind": "openai", "url": server.url, "options": {"scores": scores}}
            assert RerankCaller(form, [target]).rerank(QUERY, ["a"])[0].score == pytest.approx(expected)

    @pytest.mark.parametrize("scores", [[5.5, 0.5], [0.5, -0.001]])
    def test_a_declared_probability_outside_of_0_to_1_is_a_bad_answer_that_names_the_option(
        self, form: str, scores: list[float], backup: FakeOpenAI
    ) -> None:
        with FakeOpenAI(models=None) as server:
            server.always(Reply(200, {"results": entries(scores)}))
            target = {"kind": "openai", "url": server.url, "options": {"scores": "probability"}}
            result = RerankCaller(form, [target, *chain(backup)]).rerank(QUERY, DOCUMENTS[:2])
        assert result.served_by == (f"openai:{backup.url}",)
        assert "where a probability from 0 to 1 belongs" in (result.attempts[0].error or "")
        assert "option scores to 'logit'" in (result.attempts[0].error or "")

    @pytest.mark.parametrize("kind", ["tei", "endpoint"])
    def test_a_server_that_gives_logits_where_probabilities_were_asked_for_is_a_bad_answer(
        self, form: str, tei: FakeTEI, kind: str
    ) -> None:
        tei.always(Reply(200, [{"index": 0, "score": 5.5}]), "/rerank")
        target = [f"{kind}:{tei.url}"]
        with pytest.raises(errors.BadResponse, match=r"the score 5.5 where a probability .* scale='logit'"):
            RerankCaller(form, target, max_retries=0).rerank(QUERY, ["a"])
        assert RerankCaller(form, target, max_retries=0, scale="logit").rerank(QUERY, ["a"])[0].score == 5.5

    def test_logits_that_become_the_same_probability_keep_their_order(self, form: str) -> None:
        with FakeOpenAI(models=None) as server:
            server.always(Reply(200, {"results": entries([800.0, 900.0, -800.0, -900.0])}))
            result = RerankCaller(form, chain(server)).rerank(QUERY, ["a", "b", "c", "d"])
        assert [hit.index for hit in result] == [1, 0, 2, 3]
        assert [hit.score for hit in result] == [1.0, 1.0, 0.0, 0.0]

    @pytest.mark.parametrize("value", [-30.0, -1.0, 0.0, 0.5, 3.0, 30.0])
    def test_the_two_scales_are_each_others_inverse(self, value: float) -> None:
        assert logit_of(probability_of(value)) == pytest.approx(value, rel=1e-2)

    @pytest.mark.parametrize("value", [0.0, 1.0])
    def test_certain_probabilities_have_finite_logits(self, value: float) -> None:
        assert math.isfinite(logit_of(value))

    @pytest.mark.parametrize("scale", ["probability", "logit"])
    def test_tei_is_asked_for_the_scale_of_the_chain(self, form: str, tei: FakeTEI, scale: Any) -> None:
        result = RerankCaller(form, [f"tei:{tei.url}"], scale=scale).rerank(QUERY, DOCUMENTS)
        assert last_body(tei)["raw_scores"] is (scale == "logit")
        logit = shared_words(QUERY, DOCUMENTS[1])
        assert result[0].score == pytest.approx(logit if scale == "logit" else probability(logit))


class TestRecords:
    def test_usage_counts_documents_and_the_servers_tokens(self, form: str, primary: FakeOpenAI) -> None:
        usage = RerankCaller(form, chain(primary)).rerank(QUERY, DOCUMENTS).usage
        assert usage.input_tokens == sum(pair_tokens(QUERY, text) for text in DOCUMENTS)
        assert (usage.documents, usage.output_tokens, usage.cost_usd) == (3, None, None)

    def test_tokens_that_no_server_reports_are_unknown_and_not_zero(self, form: str) -> None:
        with FakeOpenAI(models=None, reranks_like="cohere-v1") as server:
            usage = RerankCaller(form, chain(server)).rerank(QUERY, DOCUMENTS).usage
        assert (usage.input_tokens, usage.documents) == (None, 3)

    def test_a_request_is_a_row_with_its_documents_and_no_text(
        self, form: str, primary: FakeOpenAI, tmp_path: Path
    ) -> None:
        book = ledger.enable(f"sqlite:///{tmp_path / 'ledger.db'}")
        try:
            RerankCaller(form, chain(primary), chain="ranking").rerank(QUERY, DOCUMENTS)
            assert book.flush()
        finally:
            ledger.disable()
        rows = sqlite3.connect(tmp_path / "ledger.db")
        rows.row_factory = sqlite3.Row
        found = [dict(each) for each in rows.execute("select * from llm_observations order by id")]
        request, attempt = found
        expected = {"kind": "request", "task": "rerank", "texts": 3, "status": "ok", "chain": "ranking"}
        assert expected.items() <= request.items()
        assert (request["input_tokens"], attempt["target"]) == (
            sum(pair_tokens(QUERY, text) for text in DOCUMENTS),
            f"openai:{primary.url}",
        )
        assert not [value for row in found for value in row.values() if "exception" in str(value)]

    def test_status_and_check_know_it(self, primary: FakeOpenAI) -> None:
        gateway = RerankGateway(MODEL, [*chain(primary), f"openai:{dead_url()}"])
        assert [each.ready for each in gateway.status()] == [True, True]
        assert [each.answers for each in gateway.check()] == [True, False]

    def test_a_result_of_an_observer_is_the_callers(self, form: str, primary: FakeOpenAI) -> None:
        call, seen = RerankCaller(form, chain(primary)), []
        call.gateway.observe(seen.append)
        assert seen == [call.rerank(QUERY, DOCUMENTS)]


def test_the_fake_answers_like_each_server() -> None:
    body = {"query": QUERY, "documents": DOCUMENTS, "model": "m"}
    assert isinstance(answer("list", body), list)
    assert set(answer("cohere-v1", body)) == {"id", "results", "meta"}
