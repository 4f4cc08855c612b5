"""What rerankers are sent, and how their answers are read: servers of `/v1/rerank`, text-embeddings-inference, endpoints."""

from typing import Any

import pytest

from hf_gateway import RerankGateway, Target, errors
from tests.servers.loopback import Reply
from tests.servers.openai import FakeOpenAI
from tests.servers.rerank import FORMS as SERVERS
from tests.servers.rerank import Form, entries, pair_tokens, probability, shared_words
from tests.servers.tei import FakeTEI
from tests.support.rerank_callers import FORMS, MODEL, RerankCaller

QUERY = "catch an exception"
DOCUMENTS = ["a list comprehension", "catch an exception with try", "an exception is raised"]
TOKENS = sum(pair_tokens(QUERY, text) for text in DOCUMENTS)
LONG = "word " * 300


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class TestOpenAIForm:
    @pytest.mark.parametrize("server", SERVERS)
    def test_the_answer_of_each_server_is_read(self, form: str, server: Form) -> None:
        with FakeOpenAI(models=None, reranks_like=server) as fake:
            result = RerankCaller(form, [f"openai:{fake.url}"]).rerank(QUERY, DOCUMENTS)
        assert [hit.index for hit in result] == [1, 2, 0]
        wanted = [probability(shared_words(QUERY, hit.document)) for hit in result]
        assert [hit.score for hit in result] == pytest.approx(wanted)
        assert result.usage.input_tokens == (None if server in ("cohere-v1", "list") else TOKENS)

    def test_the_request_is_what_every_server_knows(self, form: str) -> None:
        with FakeOpenAI(models=None, rerank_fields=("model", "query", "documents")) as fake:
            RerankCaller(form, [f"openai:{fake.url}"], top_n=1).rerank(QUERY, DOCUMENTS)
            assert fake.requests[-1].json == {"model": MODEL, "query": QUERY, "documents": DOCUMENTS}

    @pytest.mark.parametrize(
        ("prefix", "path"), [("", "/v1/rerank"), ("/v2", "/v2/rerank"), ("/api/rerank", "/api/rerank")]
    )
    def test_the_url_is_completed(self, form: str, prefix: str, path: str) -> None:
        with FakeOpenAI(models=None, prefix=path.removesuffix("/rerank")) as fake:
            RerankCaller(form, [f"openai:{fake.url.removesuffix('/')}{prefix}"]).rerank(QUERY, DOCUMENTS)
            assert [request.path for request in fake.requests] == [path]

    def test_a_key_goes_with_it(self, form: str) -> None:
        with FakeOpenAI(models=None, api_key="sk-test") as fake:
            target = Target("openai", url=fake.url, credential="sk-test")
            assert len(RerankCaller(form, [target]).rerank(QUERY, DOCUMENTS)) == 3
            with pytest.raises(errors.AuthenticationFailed):
                RerankCaller(form, [f"openai:{fake.url}"]).rerank(QUERY, DOCUMENTS)

    def test_max_texts_divides_and_a_refused_number_is_learnt(self, form: str) -> None:
        documents = [f"document {number}" for number in range(100)]
        with FakeOpenAI(models=None) as fake:
            target = {"kind": "openai", "url": fake.url, "options": {"max_texts": 40}}
            RerankCaller(form, [target]).rerank(QUERY, documents)
            assert [len(request.json["documents"]) for request in fake.requests] == [40, 40, 20]
        with FakeOpenAI(models=None, max_inputs=30) as fake:
            call = RerankCaller(form, [f"openai:{fake.url}"])
            assert len(call.rerank(QUERY, documents)) == 100
            assert [len(request.json["documents"]) for request in fake.requests] == [100, 30, 30, 30, 10]
            call.rerank(QUERY, documents)
            assert fake.count("/v1/rerank") == 9

    def test_truncation_is_asked_for_where_the_server_knows_it(self, form: str) -> None:
        with FakeOpenAI(models=None, max_input_length=100) as fake:
            result = RerankCaller(form, [f"openai:{fake.url}"], truncate=True).rerank(QUERY, [LONG, "short"])
            assert fake.requests[-1].json["truncate_prompt_tokens"] == -1
        assert len(result) == 2

    def test_a_server_that_refuses_the_field_is_asked_without_it_from_then_on(self, form: str) -> None:
        with FakeOpenAI(models=None, rerank_fields=("model", "query", "documents")) as fake:
            call = RerankCaller(form, [f"openai:{fake.url}"], truncate=True)
            for requests in (2, 3):
                assert len(call.rerank(QUERY, DOCUMENTS)) == 3
                assert fake.count("/v1/rerank") == requests

    def test_without_truncate_it_is_the_servers_error(self, form: str) -> None:
        with FakeOpenAI(models=None, max_input_length=100) as fake:
            with pytest.raises(errors.ContextOverflow, match="document 1 of 2") as caught:
                RerankCaller(form, [f"openai:{fake.url}"]).rerank(QUERY, ["short", LONG])
            assert (caught.value.limit, caught.value.place) == (100, 1)
            assert "truncate_prompt_tokens" not in fake.requests[-1].json

    def test_a_list_of_models_does_not_prove_a_reranker_so_check_scores_a_word(self) -> None:
        with FakeOpenAI(models=[MODEL]) as fake:
            gateway = RerankGateway(MODEL, [f"openai:{fake.url}"])
            assert [(each.answers, each.report.serves) for each in gateway.check()] == [(True, [MODEL])]
            fake.always(Reply(404, {"detail": "Not Found"}))
            assert [each.answers for each in gateway.check()] == [False]

    def test_check_finds_the_list_of_models_beside_a_complete_url(self) -> None:
        with FakeOpenAI(models=[MODEL]) as fake:
            (checked,) = RerankGateway(MODEL, [f"openai:{fake.url}/v1/rerank"]).check()
            assert (checked.answers, [request.path for request in fake.requests]) == (
                True,
                ["/v1/models", "/v1/rerank"],
            )

    def test_a_document_too_large_for_the_body_is_an_error_and_not_sent(self, form: str) -> None:
        with FakeOpenAI(models=None) as fake:
            with pytest.raises(errors.ContextOverflow, match=r"document 1 of 2: too large for this target"):
                RerankCaller(form, [f"openai:{fake.url}"]).rerank(QUERY, ["short", "x" * 8_000_000])
            assert [len(request.body) < 1000 for request in fake.requests] in ([], [True])

    @pytest.mark.parametrize("scores", ["percent", 3, None])
    def test_an_unknown_scale_is_an_error_when_the_chain_is_built(self, scores: Any) -> None:
        with pytest.raises(errors.ConfigError, match="scores is 'auto', 'probability' or 'logit'"):
            RerankGateway(MODEL, [{"kind": "openai", "url": "http://127.0.0.1:9", "options": {"scores": scores}}])


class TestTei:
    def test_the_request_follows_its_openapi_document(self, form: str) -> None:
        with FakeTEI(model_type="reranker", model_id=MODEL) as fake:
            result = RerankCaller(form, [f"tei:{fake.url}"]).rerank(QUERY, DOCUMENTS)
            body = {"query": QUERY, "texts": DOCUMENTS, "truncate": False, "raw_scores": False}
            assert fake.requests[-1].json == body
        assert [hit.index for hit in result] == [1, 2, 0]
        assert result.usage.input_tokens == TOKENS

    def test_lists_are_divided_by_its_limit_before_anything_is_refused(self, form: str) -> None:
        with FakeTEI(model_type="reranker", max_client_batch_size=4) as fake:
            result = RerankCaller(form, [f"tei:{fake.url}"]).rerank(QUERY, [f"text {number}" for number in range(10)])
            assert [len(request.json["texts"]) for request in fake.requests if request.path == "/rerank"] == [4, 4, 2]
        assert len(result) == 10

    @pytest.mark.parametrize("truncate", [False, True])
    def test_a_long_document_is_an_error_or_truncated_and_never_cut_in_silence(self, form: str, truncate: bool) -> None:
        with FakeTEI(model_type="reranker") as fake:
            call = RerankCaller(form, [f"tei:{fake.url}"], truncate=truncate)
            if truncate:
                assert len(call.rerank(QUERY, ["short", LONG])) == 2
            else:
                with pytest.raises(errors.ContextOverflow, match=r"document 1 of 2: .*must have less than 256 tokens"):
                    call.rerank(QUERY, ["short", LONG])
            assert fake.requests[-1].json["truncate"] is truncate

    def test_a_server_of_embeddings_is_refused_by_its_info(self, form: str) -> None:
        with FakeTEI() as fake:
            with pytest.raises(errors.ModelNotFound, match="not a reranker"):
                RerankCaller(form, [f"tei:{fake.url}"]).rerank(QUERY, DOCUMENTS)
            assert [request.path for request in fake.requests] == ["/info"]

    def test_check_names_the_model_and_the_limit(self) -> None:
        with FakeTEI(model_type="reranker", model_id=MODEL) as fake:
            (checked,) = RerankGateway(MODEL, [f"tei:{fake.url}"]).check()
        assert (checked.answers, checked.report.serves) == (True, [MODEL])
        assert "32 documents at once" in checked.report.detail


class TestEndpoint:
    def test_its_container_is_asked_like_tei(self, form: str) -> None:
        with FakeTEI(model_type="reranker", api_key="hf_test") as fake:
            target = Target("endpoint", url=fake.url, credential="hf_test")
            result = RerankCaller(form, [target]).rerank(QUERY, [f"text {number}" for number in range(40)])
            assert [(request.path, len(request.json["texts"])) for request in fake.requests] == [
                ("/rerank", 32),
                ("/rerank", 8),
            ]
        assert len(result) == 40

    def test_check_asks_its_info(self) -> None:
        with FakeTEI(model_type="reranker", model_id=MODEL) as fake, FakeTEI() as other:
            gateway = RerankGateway(MODEL, [f"endpoint:{fake.url}", f"endpoint:{other.url}"])
            assert [each.answers for each in gateway.check()] == [True, False]


def test_hugging_faces_providers_have_no_route_for_it() -> None:
    with pytest.raises(errors.ConfigError, match="'hf' does not support rerank") as caught:
        RerankGateway("BAAI/bge-reranker-base", ["hf"])
    for kind in ("local", "endpoint", "tei", "openai", "lexical"):
        assert kind in str(caught.value)


def test_entries_are_read_in_any_order() -> None:
    with FakeOpenAI(models=None) as fake:
        fake.always(Reply(200, {"results": entries([0.1, 0.9, 0.5])[::-1]}))
        result = RerankGateway(MODEL, [f"openai:{fake.url}"]).rerank(QUERY, DOCUMENTS)
    assert [hit.index for hit in result] == [1, 2, 0]
