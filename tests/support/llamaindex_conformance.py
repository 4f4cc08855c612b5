"""What LlamaIndex has no suite for: everything a `BaseEmbedding` owes its framework. Subclass `EmbeddingConformance`."""

import asyncio
import json
import math
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from blockbuster import blockbuster_ctx

from tests.support.late import COLLECTED

if COLLECTED:
    from llama_index.core import VectorStoreIndex
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload
    from llama_index.core.callbacks.base_handler import BaseCallbackHandler
    from llama_index.core.embeddings.loading import load_embed_model
    from llama_index.core.ingestion import IngestionPipeline
    from llama_index.core.instrumentation import get_dispatcher
    from llama_index.core.instrumentation.event_handlers import BaseEventHandler
    from llama_index.core.instrumentation.events.embedding import EmbeddingEndEvent, EmbeddingStartEvent
    from llama_index.core.rate_limiter import BaseRateLimiter
    from llama_index.core.schema import TextNode
    from llama_index.core.storage.kvstore import SimpleKVStore


TEXTS = ["A try statement handles errors.", "A for loop repeats.", "one\ntwo", "中文", "The yield keyword."]
KEY = "hf_dontShowThisToAnybody"


if COLLECTED:

    class Told(BaseEventHandler):
        """Keeps the events of embedding."""

        events: list[Any] = []

        def handle(self, event: Any, **_: Any) -> None:
            if isinstance(event, EmbeddingStartEvent | EmbeddingEndEvent):
                self.events.append(event)


@contextmanager
def told() -> Iterator[list[Any]]:
    """Give the list in which events arrive."""
    handler, root = Told(events=[]), get_dispatcher()
    root.add_event_handler(handler)
    try:
        yield handler.events
    finally:
        root.event_handlers = [each for each in root.event_handlers if each is not handler]


if COLLECTED:

    class Callbacks(BaseCallbackHandler):
        """Keeps the payloads of the older callbacks, which start and end in any order."""

        def __init__(self) -> None:
            super().__init__([], [])
            self.started: dict[str, dict[str, Any]] = {}
            self.ended: dict[str, dict[str, Any]] = {}

        def on_event_start(self, event_type, payload=None, event_id="", parent_id="", **_):
            if event_type is CBEventType.EMBEDDING:
                self.started[event_id] = payload
            return event_id

        def on_event_end(self, event_type, payload=None, event_id="", **_):
            if event_type is CBEventType.EMBEDDING:
                self.ended[event_id] = payload

        def start_trace(self, trace_id=None):
            pass

        def end_trace(self, trace_id=None, trace_map=None):
            pass

    class Counting(BaseRateLimiter):
        """Counts who asks, and lets everybody pass."""

        def __init__(self) -> None:
            self.acquired = 0

        def acquire(self, num_tokens: int = 0) -> None:
            self.acquired += 1

        async def async_acquire(self, num_tokens: int = 0) -> None:
            self.acquired += 1


def close(left: list[list[float]], right: list[list[float]]) -> bool:
    return len(left) == len(right) and all(math.dist(a, b) < 1e-5 for a, b in zip(left, right, strict=True))


async def embed(embedding: "BaseEmbedding", how: str, texts: list[str]) -> list[list[float]]:
    """Embed a batch in the blocking or in the async form."""
    return (
        await embedding.aget_text_embedding_batch(texts)
        if how == "async"
        else embedding.get_text_embedding_batch(texts)
    )


def no_more(embedding: "BaseEmbedding", monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every further computation fail."""

    def computed(*_: Any) -> Any:
        raise AssertionError("was computed again")

    for name in ("_get_text_embeddings", "_aget_text_embeddings", "_get_query_embedding", "_aget_query_embedding"):
        monkeypatch.setattr(type(embedding), name, computed)


HOW = pytest.mark.parametrize("how", ["sync", "async"])


class EmbeddingConformance:
    """What LlamaIndex relies on, for any embedding class. Subclass it and give `embedding_class` and `embedding_params`."""

    @property
    def embedding_class(self) -> "type[BaseEmbedding]":
        raise NotImplementedError

    @property
    def embedding_params(self) -> dict[str, Any]:
        return {}

    def make(self, **more: Any) -> "BaseEmbedding":
        return self.embedding_class(**{**self.embedding_params, **more})

    async def test_a_vector_is_a_list_of_plain_floats_and_the_same_in_all_forms(self):
        embedding = self.make()
        queries = [embedding.get_query_embedding("foo"), await embedding.aget_query_embedding("foo")]
        texts = [embedding.get_text_embedding("foo"), await embedding.aget_text_embedding("foo")]
        batches = [(await embed(embedding, how, ["foo"]))[0] for how in ("sync", "async")]
        assert {type(number) for vector in queries + texts + batches for number in vector} == {float}
        assert close(queries[:1], queries[1:])
        assert close([texts[0]] * 3, [texts[1], *batches])

    @HOW
    async def test_a_batch_keeps_its_order(self, how):
        embedding = self.make(embed_batch_size=2)
        assert close(await embed(embedding, how, TEXTS), [embedding.get_text_embedding(text) for text in TEXTS])

    async def test_no_texts_are_no_vectors(self):
        assert [await embed(self.make(), how, []) for how in ("sync", "async")] == [[], []]

    @HOW
    async def test_every_batch_is_announced_and_reported(self, how):
        callbacks = Callbacks()
        embedding = self.make(embed_batch_size=2, callback_manager=CallbackManager([callbacks]))
        with told() as events:
            vectors = await embed(embedding, how, TEXTS)
        starts = [event for event in events if isinstance(event, EmbeddingStartEvent)]
        ends = [event for event in events if isinstance(event, EmbeddingEndEvent)]
        chunks = [TEXTS[:2], TEXTS[2:4], TEXTS[4:]]
        assert [event.model_dict for event in starts] == [embedding.to_payload()] * 3
        assert [event.chunks for event in ends] == chunks
        assert [vector for event in ends for vector in event.embeddings] == vectors
        assert list(callbacks.ended) == list(callbacks.started)
        assert [payload[EventPayload.SERIALIZED] for payload in callbacks.started.values()] == [
            embedding.to_payload()
        ] * 3
        assert [payload[EventPayload.CHUNKS] for payload in callbacks.ended.values()] == chunks
        assert [
            vector for payload in callbacks.ended.values() for vector in payload[EventPayload.EMBEDDINGS]
        ] == vectors

    async def test_single_texts_and_queries_are_reported_too(self):
        embedding = self.make()
        with told() as events:
            embedding.get_query_embedding("foo")
            await embedding.aget_query_embedding("foo")
            embedding.get_text_embedding("foo")
            await embedding.aget_text_embedding("foo")
        assert [type(event) for event in events] == [EmbeddingStartEvent, EmbeddingEndEvent] * 4

    async def test_workers_change_nothing_but_the_way(self):
        embedding = self.make(embed_batch_size=1, num_workers=2)
        assert close(await embed(embedding, "async", TEXTS), embedding.get_text_embedding_batch(TEXTS))

    @HOW
    async def test_what_the_cache_has_is_not_computed_again(self, how, monkeypatch):
        embedding = self.make(embeddings_cache=SimpleKVStore(), embed_batch_size=2)
        first, query = await embed(embedding, how, TEXTS), await embedding.aget_query_embedding("foo")
        no_more(embedding, monkeypatch)
        assert await embed(embedding, how, TEXTS) == first
        assert embedding.get_query_embedding("foo") == query

    @HOW
    async def test_the_rate_limiter_is_asked_once_a_batch(self, how):
        limiter = Counting()
        await embed(self.make(rate_limiter=limiter, embed_batch_size=2), how, TEXTS)
        assert limiter.acquired == 3

    @pytest.mark.parametrize("through", ["dict", "json", "load_embed_model", "pickle", "pickle after use"])
    def test_it_survives_being_written_down(self, through):
        embedding = self.make()
        if through == "pickle after use":
            embedding.get_text_embedding("foo")
        rebuilt = {
            "dict": lambda: type(embedding).from_dict(embedding.to_dict()),
            "json": lambda: type(embedding).from_json(embedding.to_json()),
            "load_embed_model": lambda: load_embed_model(embedding.to_dict()),
        }.get(through, lambda: pickle.loads(pickle.dumps(embedding)))()
        assert type(rebuilt) is type(embedding)
        assert rebuilt.to_dict() == embedding.to_dict()
        assert close([rebuilt.get_text_embedding("foo")], [embedding.get_text_embedding("foo")])

    def test_its_dict_names_the_class_and_nothing_that_leaves_vectors_alone(self):
        # A class that forgets class_name is "base_component", and shares the pipeline's cache with the next that does.
        other = self.make(embed_batch_size=3, num_workers=2, embeddings_cache=SimpleKVStore(), rate_limiter=Counting())
        written = self.make().to_dict()
        assert written["class_name"] == self.embedding_class.class_name() != BaseEmbedding.class_name()
        assert json.loads(other.to_json()) == written == other.to_dict()

    def test_it_works_again_and_again_and_over_two_event_loops(self):
        # HuggingFaceInferenceAPIEmbedding: "Event loop is closed" from the second call on.
        embedding = self.make()
        vectors = [embedding.get_text_embedding("foo"), embedding.get_text_embedding("foo")]
        vectors += [asyncio.run(embedding.aget_text_embedding("foo")) for _ in range(2)]
        assert close(vectors[:1] * 4, [*vectors[1:], embedding.get_text_embedding("foo")])

    async def test_the_blocking_form_works_in_a_running_loop(self):
        # llama_index#22744: asyncio.run() cannot be called from a running event loop, in notebooks and in FastAPI.
        embedding = self.make()
        assert close([embedding.get_query_embedding("foo")], [await embedding.aget_query_embedding("foo")])

    async def test_the_async_form_never_blocks_the_event_loop(self):
        # llama_index#13987: "call will be blocking, making async less useful".
        embedding = self.make(embed_batch_size=2)
        with blockbuster_ctx():
            await embedding.aget_query_embedding("foo")
            await embedding.aget_text_embedding_batch(TEXTS)

    async def test_nodes_get_their_vectors(self):
        nodes = [TextNode(text=text) for text in TEXTS]
        embedding = self.make()
        embedding(nodes)
        first = [node.embedding for node in nodes]
        await embedding.acall(nodes)
        assert close(first, [node.embedding for node in nodes])

    async def test_an_index_finds_the_text(self):
        index = VectorStoreIndex([TextNode(text=text) for text in TEXTS], embed_model=self.make())
        retriever = index.as_retriever(similarity_top_k=1)
        found = [*retriever.retrieve(TEXTS[1]), *await retriever.aretrieve(TEXTS[1])]
        assert [node.get_content() for node in found] == [TEXTS[1]] * 2

    def test_a_pipeline_takes_the_second_run_from_its_cache(self, monkeypatch):
        embedding = self.make()
        pipeline = IngestionPipeline(transformations=[embedding])
        first = pipeline.run(nodes=[TextNode(text=text) for text in TEXTS])
        no_more(embedding, monkeypatch)
        again = pipeline.run(nodes=[TextNode(text=text) for text in TEXTS])
        assert [node.embedding for node in again] == [node.embedding for node in first]
