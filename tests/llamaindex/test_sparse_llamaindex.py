"""HFGatewaySparseEmbedding: LlamaIndex's `BaseSparseEmbedding`."""

import pickle
from typing import Any

import pytest

from hf_gateway import Gateway, SparseGateway, errors
from tests.support.late import COLLECTED
from tests.support.sparse import MODEL, PATH, chain, splade, weights

if COLLECTED:
    from llama_index.core.base.embeddings.base_sparse import BaseSparseEmbedding
    from llama_index.core.instrumentation import get_dispatcher
    from llama_index.core.instrumentation.event_handlers.base import BaseEventHandler
    from llama_index.core.instrumentation.events.embedding import SparseEmbeddingEndEvent

    from llamaindex_hf_gateway import HFGatewaySparseEmbedding

    class Heard(BaseEventHandler):
        events: list[Any] = []

        def handle(self, event: Any, **_: Any) -> None:
            self.events.append(event)


async def test_each_form_gives_the_weights() -> None:
    texts = ["b a a", "c", "d e"]
    with splade() as server:
        sparse = HFGatewaySparseEmbedding(model_name=MODEL, targets=chain(server))
        assert isinstance(sparse, BaseSparseEmbedding)
        expected = weights(texts)
        assert sparse.get_text_embedding("b a a") == await sparse.aget_text_embedding("b a a") == expected[0]
        assert sparse.get_query_embedding("c") == await sparse.aget_query_embedding("c") == expected[1]
        before = server.count(PATH)
        assert sparse.get_text_embedding_batch(texts) == await sparse.aget_text_embedding_batch(texts) == expected
        assert server.count(PATH) - before == 2
        assert sparse.get_agg_embedding_from_queries(["c", "c"]) == expected[1]


def test_batches_of_the_framework_are_reported_and_keep_their_order() -> None:
    dispatcher, heard = get_dispatcher(), Heard()
    dispatcher.add_event_handler(heard)
    try:
        sparse = HFGatewaySparseEmbedding(targets=["bm25"], embed_batch_size=2)
        found = sparse.get_text_embedding_batch(["one", "two", "three"])
    finally:
        dispatcher.event_handlers.remove(heard)
    ends = [event for event in heard.events if isinstance(event, SparseEmbeddingEndEvent)]
    assert [event.chunks for event in ends] == [["one", "two"], ["three"]]
    assert found == [embedding for event in ends for embedding in event.embeddings]


def test_a_query_and_a_document_are_compared() -> None:
    sparse = HFGatewaySparseEmbedding(targets=["bm25"])
    query = sparse.get_query_embedding("handle errors")
    near, far = sparse.get_text_embedding_batch(["except clauses handle errors", "a list comprehension"])
    assert sparse.similarity(query, near) > sparse.similarity(query, far) == 0.0


def test_a_gateway_can_be_used_and_copies_keep_its_space() -> None:
    with SparseGateway(targets=["bm25"]) as gateway:
        sparse = HFGatewaySparseEmbedding.from_gateway(gateway, embed_batch_size=7)
        vector = sparse.get_text_embedding("x")
        assert (sparse.gateway, sparse.embed_batch_size) == (gateway, 7)
        copied = pickle.loads(pickle.dumps(sparse))
        assert copied.get_text_embedding("x") == vector
        assert copied.gateway.space_binding.pinned == gateway.space
    with pytest.raises(errors.ConfigError, match="is for sparse"):
        HFGatewaySparseEmbedding.from_gateway(Gateway(targets=["hash"]))


def test_model_is_another_word_for_model_name() -> None:
    assert HFGatewaySparseEmbedding(model="a/b", targets=["tei:http://127.0.0.1:9"]).model_name == "a/b"


def test_what_it_shows_has_no_key() -> None:
    sparse = HFGatewaySparseEmbedding(model_name=MODEL, targets=["tei:http://127.0.0.1:9"], api_key="my_secret")
    assert "my_secret" not in f"{sparse!r}{sparse.to_payload()}{sparse.model_dump()}"
    assert sparse.to_payload()["targets"] == ["tei:http://127.0.0.1:9"]
    assert sparse.model_dump()["class_name"] == "HFGatewaySparseEmbedding"


def test_a_chain_of_the_config_file(tmp_path: Any) -> None:
    file = tmp_path / "hf-gateway.toml"
    file.write_text('[chains.words]\ntask = "sparse"\ntargets = ["bm25"]\n')
    sparse = HFGatewaySparseEmbedding.from_config("words", file, embed_batch_size=3)
    assert sparse.embed_batch_size == 3
    assert sparse.get_text_embedding("x")
