"""BM25 over given documents: the scores of rank-bm25, in any script, and the target `lexical`."""

import math
import random
from typing import Any

import pytest

from hf_gateway import RerankGateway, errors
from hf_gateway.engines.bm25 import bm25_scores
from hf_gateway.engines.words import terms_of
from tests.servers.loopback import dead_url
from tests.support.late import COLLECTED
from tests.support.rerank_callers import FORMS, RerankCaller

if COLLECTED:
    import numpy as np
    from rank_bm25 import BM25Okapi

    class LuceneIdf(BM25Okapi):
        """rank-bm25 with the inverse document frequency that is never negative."""

        def _calc_idf(self, nd: dict[str, int]) -> None:
            self.idf = {
                word: math.log(1 + (self.corpus_size - count + 0.5) / (count + 0.5)) for word, count in nd.items()
            }


WORDS = [f"word{number}" for number in range(200)]


def collection(seed: int, size: int = 300) -> list[str]:
    chosen = random.Random(seed)
    return [" ".join(chosen.choices(WORDS, k=chosen.randint(1, 60))) for _ in range(size)]


@pytest.mark.parametrize("seed", range(5))
def test_scores_and_ranks_are_those_of_rank_bm25(seed: int) -> None:
    documents = collection(seed)
    query = " ".join(random.Random(seed).choices(WORDS, k=4))
    found = bm25_scores(query, documents)
    tokens = [text.split() for text in documents]
    assert found == pytest.approx(list(LuceneIdf(tokens).get_scores(query.split())))
    # A word in less than half of the documents has another weight there, and with one word only the ranks do not depend on it.
    for word in query.split():
        mine = np.argsort(-np.asarray(bm25_scores(word, documents)), kind="stable")
        theirs = np.argsort(-BM25Okapi(tokens).get_scores([word]).round(9), kind="stable")
        assert mine.tolist() == theirs.tolist()


@pytest.mark.parametrize(
    ("query", "document"),
    [
        ("CAFÉ", "ein Café in Łódź"),
        ("школа", "Школа № 5"),
        ("深層学習", "深層学習は特徴を学ぶ"),
        ("ภาษา", "ภาษาไทย"),
        ("c++", "templates in C++"),
        ("🙂", "well done 🙂"),
    ],
)
def test_words_are_found_in_any_script(query: str, document: str) -> None:
    found = bm25_scores(query, ["something else", document])
    assert found[1] > 0 == found[0]


@pytest.mark.parametrize("documents", [["?!"], ["…", "—"], ["one"], ["one", "two"]])
def test_what_shares_no_word_scores_zero(documents: list[str]) -> None:
    assert bm25_scores("query", documents) == [0.0] * len(documents)
    assert bm25_scores("?!", documents) == [0.0] * len(documents)


def test_terms_are_whole_words() -> None:
    assert terms_of("Raised, exceptions") == ["raised", "exceptions"]


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class TestTarget:
    def test_it_ranks_without_a_model_on_its_own_scale(self, form: str) -> None:
        result = RerankCaller(form, ["lexical"], model=None, scale="logit").rerank("raise", ["catch", "raise it"])
        assert ([hit.index for hit in result], result.scale, result.served_by) == ([1, 0], "bm25", ("lexical",))
        assert result[1].score == 0
        assert (result.usage.input_tokens, result.usage.documents) == (0, 2)

    def test_all_documents_of_a_call_are_one_collection(self, form: str) -> None:
        documents = [*collection(1, 2_000), *("a" * 50_000 + str(number) for number in range(50)), WORDS[3]]
        result = RerankCaller(form, ["lexical"]).rerank(WORDS[3], documents)
        unique = list(dict.fromkeys(documents))
        expected = dict(zip(unique, bm25_scores(WORDS[3], unique), strict=True))
        assert [hit.score for hit in result] == [expected[hit.document] for hit in result]

    def test_it_is_never_a_default(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert [target.kind for target in RerankGateway("m/m").targets] == ["local"]
        monkeypatch.setenv("HF_GATEWAY_RERANK_TARGETS", "lexical")
        assert [target.kind for target in RerankGateway().targets] == ["lexical"]

    def test_as_the_last_resort_it_says_so(self, form: str) -> None:
        result = RerankCaller(form, [f"tei:{dead_url()}", "lexical"], max_retries=0).rerank("raise", ["raise it"])
        assert (result.scale, [attempt.outcome for attempt in result.attempts]) == ("bm25", ["failed", "served"])

    @pytest.mark.parametrize("target", ["lexical:BAAI/bge-reranker-base", {"kind": "lexical", "options": {"k1": 2}}])
    def test_it_takes_no_argument_and_no_options(self, target: Any) -> None:
        with pytest.raises(errors.ConfigError, match=r"no argument|no option"):
            RerankGateway(targets=[target])

    def test_it_is_for_nothing_else(self) -> None:
        from hf_gateway import Gateway

        with pytest.raises(errors.ConfigError, match=r"'lexical' does not support embedding; it is for rerank"):
            Gateway(targets=["lexical"])

    def test_check_and_status(self) -> None:
        gateway = RerankGateway(targets=["lexical"])
        (checked,) = gateway.check()
        assert checked.answers
        assert gateway.status()[0].ready
