"""HFGatewaySparseEmbeddings: Qdrant's interface, in Qdrant itself and without it."""

import pickle
import subprocess
import sys
from typing import Any

import pytest

from hf_gateway import SparseGateway, errors
from hf_gateway.values.sparse import SparseVector
from tests.servers.loopback import Reply
from tests.support.late import COLLECTED
from tests.support.sparse import MODEL, PATH, chain, splade, weights

if COLLECTED:
    from langchain_core.exceptions import ModelError
    from langchain_qdrant import QdrantVectorStore, RetrievalMode, SparseEmbeddings
    from langchain_qdrant import SparseVector as QdrantVector
    from qdrant_client.models import Modifier

    from langchain_hf_gateway import HFGatewayEmbeddings, HFGatewaySparseEmbeddings

TOPICS = ["try and except handle errors", "the for loop", "import a module and its names", "the the the the"]


async def test_it_is_what_qdrant_asks_for() -> None:
    with splade() as server:
        sparse = HFGatewaySparseEmbeddings(model=MODEL, targets=chain(server))
        assert isinstance(sparse, SparseEmbeddings)
        found = sparse.embed_documents(["b a a", "c"])
        assert all(isinstance(vector, QdrantVector) for vector in found)
        assert [dict(zip(each.indices, each.values, strict=True)) for each in found] == weights(["b a a", "c"])
        assert await sparse.aembed_documents(["b a a", "c"]) == found
        assert sparse.embed_query("c") == await sparse.aembed_query("c") == found[1]
        assert server.count(PATH) == 4


@pytest.mark.parametrize("mode", ["SPARSE", "HYBRID"])
def test_qdrant_finds_by_it_and_weighs_rare_words(mode: str) -> None:
    store = QdrantVectorStore.from_texts(
        TOPICS,
        embedding=HFGatewayEmbeddings(targets=["hash:256"]) if mode == "HYBRID" else None,
        sparse_embedding=HFGatewaySparseEmbeddings(targets=["bm25"]),
        retrieval_mode=RetrievalMode[mode],
        sparse_vector_params={"modifier": Modifier.IDF},
        location=":memory:",
        collection_name="topics",
    )
    try:
        (found,) = store.similarity_search("what does the except handle", k=1)
        assert found.page_content == TOPICS[0]
    finally:
        store.client.close()


def test_a_gateway_can_be_used_and_a_copy_keeps_its_space() -> None:
    with SparseGateway(targets=["bm25"]) as gateway:
        sparse = HFGatewaySparseEmbeddings.from_gateway(gateway)
        vector = sparse.embed_query("x")
        assert sparse.gateway is gateway
        assert sparse.space == gateway.space
        for copied in (pickle.loads(pickle.dumps(sparse)), sparse.model_copy(update={"truncate": True})):
            assert copied.embed_query("x") == vector
            assert copied.gateway.space_binding.pinned == gateway.space
        assert sparse.status()[0].ready


def test_the_dense_gateway_is_refused() -> None:
    from hf_gateway import Gateway

    with pytest.raises(errors.ConfigError, match="HFGatewaySparseEmbeddings is for sparse"):
        HFGatewaySparseEmbeddings.from_gateway(Gateway(targets=["hash"]))


def test_errors_are_langchains_too() -> None:
    with splade() as server:
        server.always(Reply(401), path=PATH)
        with pytest.raises(ModelError) as caught:
            HFGatewaySparseEmbeddings(model=MODEL, targets=chain(server)).embed_query("x")
        assert isinstance(caught.value, errors.AuthenticationFailed)


def test_a_wrong_argument_names_the_right_one() -> None:
    wrong: dict[str, Any] = {"trunkate": True}
    with pytest.raises(errors.ConfigError, match="truncate"):
        HFGatewaySparseEmbeddings(targets=["bm25"], **wrong)


def test_without_langchain_qdrant_the_methods_are_the_same() -> None:
    script = (
        "import sys\n"
        "sys.modules['langchain_qdrant'] = None\n"
        "from langchain_hf_gateway import HFGatewaySparseEmbeddings\n"
        "vector = HFGatewaySparseEmbeddings(targets=['bm25']).embed_query('one two')\n"
        "print(type(vector).__module__, len(vector.indices), vector.values)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout.split() == [SparseVector.__module__, "2", "[1.0,", "1.0]"], done.stderr
