"""The cache in both frameworks' classes, the frameworks' own stores as caches, and their own caches over our classes.

A comment names the fault elsewhere that a test stands against.
"""

import asyncio
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from blockbuster import blockbuster_ctx

from hf_gateway import Gateway, errors
from hf_gateway.storage.files import home
from tests.servers import unit_vectors
from tests.servers.loopback import Loopback
from tests.servers.openai import FakeOpenAI
from tests.servers.router import MINILM
from tests.support.late import COLLECTED

if COLLECTED:
    from langchain_classic.embeddings import CacheBackedEmbeddings
    from langchain_classic.storage import LocalFileStore
    from langchain_core.stores import InMemoryByteStore
    from llama_index.core.ingestion import IngestionCache, IngestionPipeline
    from llama_index.core.ingestion.pipeline import get_transformation_hash
    from llama_index.core.schema import TextNode
    from llama_index.core.storage.kvstore import SimpleKVStore

    from langchain_hf_gateway import HFGatewayEmbeddings, cache_backed
    from langchain_hf_gateway.byte_store import RoleStore
    from llamaindex_hf_gateway import HFGatewayEmbedding


MODEL = "test/embedder"
PATH = "/v1/embeddings"
PROMPTS = {"query_prompt": "q: ", "document_prompt": "d: "}
HOW = pytest.mark.parametrize("how", ["sync", "async"])


@pytest.fixture
def server():
    with FakeOpenAI(models=None) as started:
        yield started


@pytest.fixture(params=["ByteStore", "LocalFileStore", "KVStore"])
def store(request: pytest.FixtureRequest, tmp_path) -> Any:
    made: dict[str, Callable[[], Any]] = {
        "ByteStore": InMemoryByteStore,
        "LocalFileStore": lambda: LocalFileStore(tmp_path / "kept"),
        "KVStore": SimpleKVStore,
    }
    return made[request.param]()


def langchain(server: Loopback, **fields: Any) -> "HFGatewayEmbeddings":
    return HFGatewayEmbeddings(
        **{"model": MODEL, "targets": [f"openai:{server.url}"], "check_space": False, "max_retries": 0, **fields}
    )


def llamaindex(server: Loopback, **fields: Any) -> "HFGatewayEmbedding":
    return HFGatewayEmbedding(
        **{"model_name": MODEL, "targets": [f"openai:{server.url}"], "check_space": False, "max_retries": 0, **fields}
    )


def nodes() -> "list[TextNode]":
    return [TextNode(text=f"text {i}") for i in range(4)]


class TestStoresAsCaches:
    @HOW
    async def test_what_is_there_asks_nobody(self, how, store, server):
        for _ in range(2):
            embeddings = langchain(server, cache=store)
            texts = ["foo", "bar", "foo"]
            vectors = await embeddings.aembed_documents(texts) if how == "async" else embeddings.embed_documents(texts)
            assert vectors == unit_vectors(texts)
        assert server.count(PATH) == 1

    def test_neither_spaces_nor_roles_nor_frameworks_mix(self, store, server):
        for prompts in (PROMPTS, {"query_prompt": "Q: ", "document_prompt": "D: "}):
            one, other = langchain(server, cache=store, **prompts), llamaindex(server, cache=store, **prompts)
            for _ in range(2):
                (query,) = unit_vectors([prompts["query_prompt"] + "foo"])
                (document,) = unit_vectors([prompts["document_prompt"] + "foo"])
                assert one.embed_query("foo") == other.get_query_embedding("foo") == query
                assert one.embed_documents(["foo"])[0] == other.get_text_embedding("foo") == document
        assert server.count(PATH) == 4

    def test_a_key_value_store_that_was_written_down_still_serves(self, server):
        kept = SimpleKVStore()
        vector = llamaindex(server, cache=kept).get_text_embedding("foo")
        rebuilt = SimpleKVStore.from_dict(json.loads(json.dumps(kept.to_dict())))
        assert llamaindex(server, cache=rebuilt).get_text_embedding("foo") == vector
        assert server.count(PATH) == 1

    @pytest.mark.parametrize("value", [{}, {"vector": "no base64!"}, {"vector": 7}, {"other": "AAAA"}], ids=str)
    def test_a_spoilt_value_in_a_key_value_store_is_a_miss(self, value, server):
        kept = SimpleKVStore()
        langchain(server, cache=kept).embed_query("foo")
        for name in list(kept.get_all("hf_gateway_vectors")):
            kept.put(name, value, "hf_gateway_vectors")
        embeddings = langchain(server, cache=kept)
        assert embeddings.embed_query("foo") == unit_vectors(["foo"])[0]
        assert embeddings.gateway.cache.counts.spoilt == 1


class TestClasses:
    def test_by_default_there_is_none(self, server):
        for embedding in (langchain(server), llamaindex(server)):
            assert embedding.cache is None
            assert embedding.gateway.cache is None
        assert not (home() / "vectors.sqlite").exists()

    def test_both_classes_share_the_file_under_home(self, server):
        documents = langchain(server, cache=True).embed_documents(["foo", "bar"])
        assert llamaindex(server, cache=True).get_text_embedding_batch(["foo", "bar"]) == documents
        assert server.count(PATH) == 1
        assert (home() / "vectors.sqlite").is_file()

    @pytest.mark.parametrize("how", ["langchain", "llamaindex"])
    async def test_no_file_is_touched_on_the_event_loop(self, how, server):
        embedding: Any = (langchain if how == "langchain" else llamaindex)(server, cache=True)
        counts = []
        with blockbuster_ctx():
            for _ in range(2):
                if how == "langchain":
                    await asyncio.gather(*(embedding.aembed_query(f"text {i}") for i in range(3)))
                else:
                    await embedding.aget_text_embedding_batch([f"text {i}" for i in range(3)])
                counts.append(server.count(PATH))
        # Queries that come at the same time may share a request.
        assert counts[0] in ((1, 2, 3) if how == "langchain" else (1,))
        assert counts[1] == counts[0]

    @pytest.mark.parametrize("given", [True, "kept.sqlite", "store"])
    def test_it_is_no_part_of_what_the_classes_are(self, given, server):
        given = InMemoryByteStore() if given == "store" else given
        with_cache, without = llamaindex(server, cache=given), llamaindex(server)
        assert with_cache.to_dict() == without.to_dict()
        assert with_cache.to_payload() == without.to_payload()
        assert get_transformation_hash(nodes(), with_cache) == get_transformation_hash(nodes(), without)
        assert "cache" not in langchain(server, cache=given).model_dump()
        assert "kept.sqlite" not in repr(langchain(server, cache=given))

    @pytest.mark.parametrize("given", [True, "kept.sqlite"])
    def test_it_goes_along_in_a_pickle(self, given, server):
        langchain(server, cache=given).embed_documents(["foo"])
        for embedding in (langchain(server, cache=given), llamaindex(server, cache=given)):
            rebuilt = pickle.loads(pickle.dumps(embedding))
            assert rebuilt.gateway.embed(["foo"]).served_by == ("cache",)

    def test_a_class_over_a_gateway_has_that_gateways_cache(self, server):
        gateway = Gateway(MODEL, [f"openai:{server.url}"], cache=True, check_space=False)
        gateway.embed(["foo"])
        for made in (HFGatewayEmbeddings.from_gateway(gateway), HFGatewayEmbedding.from_gateway(gateway)):
            assert made.gateway.embed(["foo"]).served_by == ("cache",)

    def test_what_is_no_cache_is_refused(self):
        for made in (HFGatewayEmbeddings, HFGatewayEmbedding):
            with pytest.raises(errors.ConfigError, match="cache is True, a path"):
                made(targets=["hash"], cache=3)


class TestCacheBackedEmbeddings:
    def test_langchains_own_query_cache_would_look_among_the_documents(self, server):
        # What `cache_backed` is for: the same store, namespace and key for both roles.
        embeddings = langchain(server, **PROMPTS)
        cached = CacheBackedEmbeddings.from_bytes_store(
            embeddings,
            InMemoryByteStore(),
            namespace=embeddings.space.id,
            query_embedding_cache=True,
            key_encoder="sha256",
        )
        cached.embed_documents(["foo"])
        assert cached.embed_query("foo") == unit_vectors(["d: foo"])[0]

    @pytest.mark.parametrize("kind", ["memory", "files"])
    @HOW
    async def test_neither_spaces_nor_roles_share_an_entry(self, how, kind, server, tmp_path):
        kept: Any = InMemoryByteStore() if kind == "memory" else LocalFileStore(tmp_path / "kept")
        for prompts in (PROMPTS, {"query_prompt": "Q: ", "document_prompt": "D: "}):
            for _ in range(2):
                embeddings = langchain(server, **prompts)
                cached = CacheBackedEmbeddings.from_bytes_store(embeddings, **cache_backed(embeddings, kept))
                if how == "async":
                    found = [(await cached.aembed_documents(["foo"]))[0], await cached.aembed_query("foo")]
                else:
                    found = [cached.embed_documents(["foo"])[0], cached.embed_query("foo")]
                assert found == unit_vectors([prompts["document_prompt"] + "foo", prompts["query_prompt"] + "foo"])
        assert server.count(PATH) == 4

    def test_cutting_and_not_cutting_share_none(self, server):
        kept = InMemoryByteStore()
        for truncate in (True, False):
            embeddings = langchain(server, truncate=truncate)
            CacheBackedEmbeddings.from_bytes_store(embeddings, **cache_backed(embeddings, kept)).embed_query("foo")
        assert server.count(PATH) == 2

    def test_while_the_space_is_open_there_is_no_namespace(self, server):
        embeddings = langchain(server, targets=[f"openai:{server.url}", "hash:64"], on_space_change="separate")
        with pytest.raises(errors.ConfigError, match="no target has answered yet"):
            cache_backed(embeddings, InMemoryByteStore())
        embeddings.embed_query("foo")
        assert set(cache_backed(embeddings, InMemoryByteStore())) == {
            "document_embedding_cache",
            "query_embedding_cache",
            "key_encoder",
        }

    @HOW
    async def test_a_roles_view_of_a_store_lists_and_deletes_its_own(self, how, server):
        kept = InMemoryByteStore()
        queries, documents = RoleStore(kept, "query"), RoleStore(kept, "document")
        for view in (queries, documents):
            view.mset([("a", b"1"), ("b", b"2")])
        if how == "async":
            await queries.amdelete(["a"])
        else:
            queries.mdelete(["a"])
        assert (list(queries.yield_keys()), list(documents.yield_keys(prefix="a"))) == (["b"], ["a"])
        assert queries.mget(["a", "b"]) == [None, b"2"]


@pytest.mark.parametrize("door", ["langchain", "llamaindex"])
def test_what_a_frameworks_cache_has_is_held_to_the_index_too(
    door: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def embedder(url: str) -> Any:
        if door == "llamaindex":
            made = HFGatewayEmbedding(model_name="test/x", embeddings_cache=kept, **given(url))
            return made, made.get_text_embedding
        inner = HFGatewayEmbeddings(model="test/x", **given(url))
        outer = CacheBackedEmbeddings.from_bytes_store(inner, **cache_backed(inner, kept))
        return inner, lambda text: outer.embed_documents([text])

    def given(url: str) -> dict[str, Any]:
        return {"targets": [f"openai:{url}"], "check_space": True, "max_retries": 0}

    kept = SimpleKVStore() if door == "llamaindex" else InMemoryByteStore()
    other = FakeOpenAI(models=None, embed=lambda texts: unit_vectors([f"another model: {text}" for text in texts]))
    with FakeOpenAI(models=None) as one, other as impostor:
        _, embed = embedder(impostor.url)
        embed("measured now")
        embed("a note")
        late, embed_late = embedder(impostor.url)
        late.lock_index(tmp_path / "index")  # and another machine takes its place
        (tmp_path / "index" / "space.json").unlink()
        with monkeypatch.context() as there:
            there.setenv("HF_GATEWAY_HOME", str(tmp_path / "another machine"))
            first = Gateway("test/x", **given(one.url))
            first.lock_index(tmp_path / "index")
            first.embed(["a note"])
        with pytest.raises(errors.SpaceMismatch):
            embed_late("a note")


class TestLlamaIndexsOwnCaches:
    @HOW
    async def test_embeddings_cache_keeps_spaces_and_roles_apart(self, how, server):
        # LlamaIndex's own keys are the text alone (run-llama/llama_index PR 23181).
        kept = SimpleKVStore()
        for prompts in (PROMPTS, {"query_prompt": "Q: ", "document_prompt": "D: "}):
            for _ in range(2):
                embedding = llamaindex(server, embeddings_cache=kept, **prompts)
                if how == "async":
                    found = [
                        (await embedding.aget_text_embedding_batch(["foo"]))[0],
                        await embedding.aget_query_embedding("foo"),
                    ]
                else:
                    found = [embedding.get_text_embedding_batch(["foo"])[0], embedding.get_query_embedding("foo")]
                assert found == unit_vectors([prompts["document_prompt"] + "foo", prompts["query_prompt"] + "foo"])
        assert server.count(PATH) == 4

    @pytest.mark.parametrize(
        ("change", "shares"),
        [
            ({"timeout": 7}, True),
            ({"check_space": True}, True),
            ({"canary_every": 0}, True),
            ({"embed_batch_size": 2}, True),
            ({"dimensions": 8}, False),
            ({"normalize": True}, False),
            ({"document_prompt": "d: "}, False),
            ({"revision": "v2"}, False),
            ({"model_name": MINILM}, False),
            ({"truncate": True}, False),
        ],
        ids=str,
    )
    def test_a_pipelines_cache_is_shared_within_a_space_and_never_beyond(self, change, shares, server):
        cache = IngestionCache()

        def vectors(**fields: Any) -> Any:
            pipeline = IngestionPipeline(transformations=[llamaindex(server, **fields)], cache=cache)
            return [node.embedding for node in pipeline.run(nodes=nodes())]

        first = vectors()
        before = server.count(PATH)
        again = vectors(**change)
        assert (server.count(PATH) == before) == shares
        assert again == first or not shares

    def test_two_pipelines_of_two_spaces_over_one_vector_cache(self, server):
        # The pipeline's cache is new each time; ours remembers.
        for change in ({}, {"dimensions": 8}):
            for _ in range(2):
                made = IngestionPipeline(transformations=[llamaindex(server, cache=True, **change)]).run(nodes=nodes())
                assert {len(node.embedding) for node in made} == {change.get("dimensions", 384)}
        assert server.count(PATH) == 2
