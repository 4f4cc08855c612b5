"""HFGatewayRerank: LlamaIndex's node postprocessor over a chain, with its events."""

import asyncio
import copy
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hf_gateway import RerankGateway, errors
from tests.servers.loopback import Reply
from tests.servers.openai import FakeOpenAI
from tests.servers.rerank import probability, shared_words
from tests.support.late import COLLECTED
from tests.support.rerank_callers import MODEL

if COLLECTED:
    from llama_index.core import Settings, VectorStoreIndex
    from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload, LlamaDebugHandler
    from llama_index.core.instrumentation import get_dispatcher
    from llama_index.core.instrumentation.event_handlers import BaseEventHandler
    from llama_index.core.llms import MockLLM
    from llama_index.core.postprocessor.types import BaseNodePostprocessor
    from llama_index.core.query_engine import RetrieverQueryEngine
    from llama_index.core.response_synthesizers import ResponseMode, get_response_synthesizer
    from llama_index.core.schema import ImageNode, NodeWithScore, QueryBundle, TextNode

    from llamaindex_hf_gateway import HFGatewayEmbedding, HFGatewayRerank

    class Heard(BaseEventHandler):
        """Keeps the events of rerankers."""

        events: list[Any] = []

        def handle(self, event: Any, **_: Any) -> None:
            if event.class_name().startswith("ReRank"):
                self.events.append(event)


QUERY = "catch an exception"
TEXTS = ["a list comprehension", "catch an exception with try", "an exception is raised"]


@pytest.fixture(params=["sync", "async"])
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def heard() -> "Iterator[list[Any]]":
    handler, root = Heard(events=[]), get_dispatcher()
    root.add_event_handler(handler)
    yield handler.events
    root.event_handlers.remove(handler)


def nodes(*more: Any) -> "list[NodeWithScore]":
    texts = [TextNode(text=text, id_=f"n{n}", metadata={"page": n}) for n, text in enumerate(TEXTS)]
    return [NodeWithScore(node=node, score=0.5 - n / 10) for n, node in enumerate([*texts, *more])]


def rank(form: str, reranker: "HFGatewayRerank", found: Any, **query: Any) -> "list[NodeWithScore]":
    query = query or {"query_str": QUERY}
    if form == "async":
        return asyncio.run(reranker.apostprocess_nodes(found, **query))
    return reranker.postprocess_nodes(found, **query)


def through(server: FakeOpenAI, **arguments: Any) -> "HFGatewayRerank":
    return HFGatewayRerank(model=MODEL, targets=[f"openai:{server.url}"], max_retries=0, **arguments)


def test_the_best_nodes_come_first_with_their_scores(form: str, primary: FakeOpenAI) -> None:
    reranker = through(primary, top_n=2)
    assert isinstance(reranker, BaseNodePostprocessor)
    best = rank(form, reranker, nodes())
    assert [each.node.node_id for each in best] == ["n1", "n2"]
    sent = primary.requests[-1].json["documents"]
    assert sent == [each.node.get_content("embed") for each in nodes()]
    assert best[0].score == pytest.approx(probability(shared_words(QUERY, sent[1])))


def test_the_callers_nodes_stay_as_they_are(form: str, primary: FakeOpenAI) -> None:
    found = nodes()
    before = copy.deepcopy(found)
    rank(form, through(primary, keep_retrieval_score=True), found)
    assert found == before


def test_the_retrievers_score_can_be_kept(form: str, primary: FakeOpenAI) -> None:
    best = rank(form, through(primary, keep_retrieval_score=True), nodes())
    assert best[0].node.metadata == {"page": 1, "retrieval_score": pytest.approx(0.4)}
    assert "retrieval_score" not in rank(form, through(primary), nodes())[0].node.metadata


@pytest.mark.parametrize("bundle", [False, True])
def test_a_query_is_required_and_may_be_a_bundle(form: str, primary: FakeOpenAI, bundle: bool) -> None:
    reranker = through(primary)
    if bundle:
        assert len(rank(form, reranker, nodes(), query_bundle=QueryBundle(QUERY))) == 3
    else:
        with pytest.raises(errors.InvalidRequest, match="the query is missing"):
            rank(form, reranker, nodes(), query_bundle=None)
        assert primary.requests == []


@pytest.mark.parametrize("top_n", [None, 4])
def test_nodes_without_text_are_not_lost(form: str, primary: FakeOpenAI, top_n: Any) -> None:
    picture = ImageNode(image_url="https://example.org/cat.png", id_="picture")
    best = rank(form, through(primary, top_n=top_n), nodes(picture, TextNode(text="", id_="blank")))
    assert [each.node.node_id for each in best] == ["n1", "n2", "n0", "picture", "blank"][:top_n]
    assert best[3].score is None
    assert best[3].node is picture


def test_no_nodes_are_no_request(form: str, primary: FakeOpenAI) -> None:
    assert rank(form, through(primary), []) == []
    assert primary.requests == []


def test_its_start_and_end_are_reported_in_events(form: str, primary: FakeOpenAI, heard: list[Any]) -> None:
    best = rank(form, through(primary, top_n=1), nodes())
    start, end = heard
    assert (start.class_name(), start.query, start.top_n, start.model_name) == ("ReRankStartEvent", QUERY, 1, MODEL)
    assert [each.node.node_id for each in start.nodes] == ["n0", "n1", "n2"]
    assert (end.class_name(), end.nodes) == ("ReRankEndEvent", best)


def test_a_failure_ends_the_callback_event_and_reaches_the_caller(form: str, primary: FakeOpenAI) -> None:
    primary.always(Reply(401))
    debug = LlamaDebugHandler(print_trace_on_end=False)
    with pytest.raises(errors.AuthenticationFailed):
        rank(form, through(primary, callback_manager=CallbackManager([debug])), nodes())
    assert len(debug.get_events(CBEventType.RERANKING)) == 2


def test_callbacks_are_told_of_it(form: str, primary: FakeOpenAI) -> None:
    debug = LlamaDebugHandler(print_trace_on_end=False)
    best = rank(form, through(primary, callback_manager=CallbackManager([debug])), nodes())
    ((start, end),) = debug.get_event_pairs(CBEventType.RERANKING)
    assert (start.payload or {})[EventPayload.MODEL_NAME] == MODEL
    assert (start.payload or {})[EventPayload.QUERY_STR] == QUERY
    assert (end.payload or {})[EventPayload.NODES] == best


def test_in_a_query_engine(form: str, primary: FakeOpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Settings, "_llm", MockLLM())
    index = VectorStoreIndex([each.node for each in nodes()], embed_model=HFGatewayEmbedding(targets=["hash"]))
    engine = RetrieverQueryEngine(
        index.as_retriever(similarity_top_k=3),
        response_synthesizer=get_response_synthesizer(response_mode=ResponseMode.NO_TEXT),
        node_postprocessors=[through(primary, top_n=1)],
    )
    answer = asyncio.run(engine.aquery(QUERY)) if form == "async" else engine.query(QUERY)
    assert [each.node.node_id for each in answer.source_nodes] == ["n1"]


def test_it_is_built_from_a_gateway_from_a_file_and_from_a_pickle(primary: FakeOpenAI, tmp_path: Path) -> None:
    gateway = RerankGateway(MODEL, [f"openai:{primary.url}"], top_n=1)
    made = HFGatewayRerank.from_gateway(gateway, keep_retrieval_score=True)
    assert (made.gateway is gateway, made.top_n, made.keep_retrieval_score) == (True, 1, True)
    file = tmp_path / "hf-gateway.toml"
    file.write_text(
        f'[chains.best]\ntask = "rerank"\nmodel = "{MODEL}"\ntargets = ["openai:{primary.url}"]\ntop_n = 2\n'
    )
    read = HFGatewayRerank.from_config("best", file, top_n=1)
    for reranker in (
        read,
        pickle.loads(pickle.dumps(read)),
        copy.deepcopy(read),
        HFGatewayRerank.from_dict(read.to_dict()),
    ):
        assert [each.node.node_id for each in reranker.postprocess_nodes(nodes(), query_str=QUERY)] == ["n1"]


def test_to_dict_names_the_class_and_no_key() -> None:
    reranker = HFGatewayRerank(model=MODEL, targets=["openai:http://127.0.0.1:9"], api_key="sk-secret-key")
    shown = reranker.to_dict()
    assert (shown["class_name"], shown["model"]) == ("HFGatewayRerank", MODEL)
    assert "sk-secret-key" not in str(shown) + repr(reranker)
    assert b"sk-secret-key" not in pickle.dumps(reranker)
