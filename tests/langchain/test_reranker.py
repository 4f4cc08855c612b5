"""HFGatewayReranker: LangChain's document compressor over a chain."""

import asyncio
import copy
import pickle
from pathlib import Path
from typing import Any, Literal

import pytest

from hf_gateway import RerankGateway, errors
from tests.servers.openai import FakeOpenAI
from tests.servers.rerank import probability, shared_words
from tests.support.late import COLLECTED
from tests.support.rerank_callers import MODEL

if COLLECTED:
    from langchain_classic.retrievers import ContextualCompressionRetriever
    from langchain_core.documents import BaseDocumentCompressor, Document
    from langchain_core.exceptions import ContextOverflowError, ModelInvalidRequestError
    from langchain_core.retrievers import BaseRetriever

    from langchain_hf_gateway import HFGatewayReranker

    class Found(BaseRetriever):
        """Finds the same documents for every query."""

        documents: list[Document]

        def _get_relevant_documents(self, query: str, **_: Any) -> list[Document]:
            return self.documents


QUERY = "catch an exception"
TEXTS = ["a list comprehension", "catch an exception with try", "an exception is raised"]
FORMS: tuple[Literal["sync", "async"], ...] = ("sync", "async")


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def documents() -> "list[Document]":
    return [Document(page_content=text, id=f"d{n}", metadata={"n": n, "tags": ["a"]}) for n, text in enumerate(TEXTS)]


def compress(form: str, reranker: "HFGatewayReranker", found: Any, query: Any = QUERY) -> "list[Document]":
    if form == "async":
        return asyncio.run(reranker.acompress_documents(found, query))
    return reranker.compress_documents(found, query)


def through(server: FakeOpenAI, **arguments: Any) -> "HFGatewayReranker":
    return HFGatewayReranker(model=MODEL, targets=[f"openai:{server.url}"], max_retries=0, **arguments)


def test_the_best_documents_come_first_with_score_and_scale(form: str, primary: FakeOpenAI) -> None:
    reranker = through(primary, top_n=2)
    assert isinstance(reranker, BaseDocumentCompressor)
    best = compress(form, reranker, documents())
    assert [(document.id, document.page_content) for document in best] == [("d1", TEXTS[1]), ("d2", TEXTS[2])]
    score = pytest.approx(probability(shared_words(QUERY, TEXTS[1])))
    assert best[0].metadata == {"n": 1, "tags": ["a"], "relevance_score": score, "relevance_scale": "probability"}


def test_the_callers_documents_stay_as_they_are(form: str, primary: FakeOpenAI) -> None:
    found = documents()
    before = copy.deepcopy(found)
    best = compress(form, through(primary), found)
    best[0].metadata["more"] = 1
    assert found == before


@pytest.mark.parametrize("top_n", [None, 2, 3])
def test_documents_without_text_come_last_and_without_a_score(form: str, primary: FakeOpenAI, top_n: Any) -> None:
    found = [Document(page_content=""), *documents(), Document(page_content=" \n")]
    best = compress(form, through(primary, top_n=top_n), found)
    assert [document.page_content for document in best] == [TEXTS[1], TEXTS[2], TEXTS[0], "", " \n"][:top_n]
    assert "relevance_score" not in (best[4].metadata if top_n is None else {})
    assert primary.requests[-1].json["documents"] == TEXTS


def test_nothing_found_is_nothing_and_no_request(form: str, primary: FakeOpenAI) -> None:
    assert compress(form, through(primary), []) == []
    assert compress(form, through(primary), [Document(page_content="")])[0].page_content == ""
    assert primary.requests == []


def test_in_a_contextual_compression_retriever(form: str, primary: FakeOpenAI) -> None:
    retriever = ContextualCompressionRetriever(
        base_compressor=through(primary, top_n=1), base_retriever=Found(documents=documents())
    )
    best = asyncio.run(retriever.ainvoke(QUERY)) if form == "async" else retriever.invoke(QUERY)
    assert [document.page_content for document in best] == [TEXTS[1]]


def test_errors_are_langchains_too(form: str, primary: FakeOpenAI) -> None:
    with pytest.raises(ModelInvalidRequestError) as caught:
        compress(form, through(primary), documents(), "")
    assert isinstance(caught.value, errors.InvalidRequest)
    with FakeOpenAI(models=None, max_input_length=8) as small:
        for found in (["a", "word " * 20, "b"], ["", "word " * 20, "b"]):
            with pytest.raises(ContextOverflowError, match="document 1 of 3") as overflow:
                compress(form, through(small), [Document(page_content=text) for text in found])
            assert overflow.value.place == 1


def test_a_lexical_chain_says_that_its_scale_is_bm25(form: str) -> None:
    best = compress(form, HFGatewayReranker(targets=["lexical"]), documents())
    assert {document.metadata["relevance_scale"] for document in best} == {"bm25"}


def test_it_is_built_from_a_gateway_from_a_file_and_from_a_pickle(primary: FakeOpenAI, tmp_path: Path) -> None:
    gateway = RerankGateway(MODEL, [f"openai:{primary.url}"], top_n=1)
    made = HFGatewayReranker.from_gateway(gateway)
    assert (made.gateway is gateway, made.top_n, made.model) == (True, 1, MODEL)
    file = tmp_path / "hf-gateway.toml"
    file.write_text(
        f'[chains.best]\ntask = "rerank"\nmodel = "{MODEL}"\ntargets = ["openai:{primary.url}"]\ntop_n = 2\n'
    )
    read = HFGatewayReranker.from_config("best", file, top_n=1)
    for reranker in (read, pickle.loads(pickle.dumps(read)), copy.deepcopy(read), read.model_copy()):
        assert [each.page_content for each in reranker.compress_documents(documents(), QUERY)] == [TEXTS[1]]
    assert len(read.model_copy(update={"top_n": 3}).compress_documents(documents(), QUERY)) == 3


def test_an_unknown_argument_names_the_nearest_one() -> None:
    with pytest.raises(errors.ConfigError, match="top_n"):
        HFGatewayReranker(targets=["lexical"], topn=3)  # type: ignore[call-arg]


def test_its_key_is_in_no_repr_and_no_pickle() -> None:
    reranker = HFGatewayReranker(model=MODEL, targets=["openai:http://127.0.0.1:9"], api_key="sk-secret-key")
    assert "sk-secret-key" not in repr(reranker) + str(reranker.model_dump())
    assert b"sk-secret-key" not in pickle.dumps(reranker)
