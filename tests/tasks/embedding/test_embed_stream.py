"""Any number of texts, as they come: in order, a bounded number of them read ahead, and nothing lost when something breaks."""

import asyncio
import contextlib
import itertools
import threading
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from typing import Any

import pytest

from hf_gateway import Gateway, Target, errors
from hf_gateway.testing import ManualClock
from hf_gateway.values.embedding import EmbedResult
from tests.servers import unit_vectors
from tests.servers.loopback import Normal, Reply, hang
from tests.servers.openai import FakeOpenAI
from tests.servers.tei import FakeTEI
from tests.support.callers import PATIENCE, Loop
from tests.support.doors import door
from tests.support.embedders import MODEL
from tests.support.gates import Gates, UntilGone
from tests.support.late import COLLECTED

if COLLECTED:
    import numpy as np
    from langchain_core import exceptions as langchain

    from langchain_hf_gateway import HFGatewayEmbeddings


PATH = "/v1/embeddings"
DOWN = Reply(500, {"error": "down"})
Stream = Callable[..., Iterator[list[float]]]


@pytest.fixture
def server() -> Iterator[FakeOpenAI]:
    with FakeOpenAI(models=None) as started:
        yield started


def through(*servers: FakeOpenAI, at_once: int = 4, **settings: Any) -> Gateway:
    """Build a chain whose batches have `at_once` texts."""
    targets = [Target("openai", url=each.url, options={"max_texts": at_once}) for each in servers]
    return Gateway(MODEL, targets, **{"clock": ManualClock(), "max_retries": 0, **settings})


def texts_of(n: int) -> list[str]:
    return [f"text {number}" for number in range(n)]


class Source:
    """Gives so many texts, and knows how many were read and whether it was closed."""

    def __init__(
        self, n: int, fault: Exception | None = None, then: dict[int, Callable[[], Any]] | None = None
    ) -> None:
        self.n, self.fault, self.then = n, fault, then or {}
        self.read, self.closed = 0, False

    def __iter__(self) -> Iterator[str]:
        try:
            for number in range(self.n):
                self.read += 1
                self.then.get(number, int)()
                yield f"text {number}"
            if self.fault is not None:
                raise self.fault
        finally:
            self.closed = True

    async def waited_for(self) -> AsyncIterator[str]:
        """Give the same, asynchronously."""
        with contextlib.closing(iter(self)) as texts:
            for text in texts:
                await asyncio.sleep(0)
                yield text


class Asynchronous:
    """An async stream, driven on a loop of its own as a blocking iterator."""

    def __init__(self, loop: Loop, vectors: AsyncIterator[list[float]]) -> None:
        self._loop, self._vectors = loop, vectors

    def __iter__(self) -> "Asynchronous":
        return self

    def __next__(self) -> list[float]:
        try:
            return self._loop.begin(self._next()).result(PATIENCE)
        except StopAsyncIteration:
            raise StopIteration from None

    async def _next(self) -> list[float]:
        return await anext(self._vectors)

    def close(self) -> None:
        self._loop.begin(self._vectors.aclose()).result(PATIENCE)


@pytest.fixture(params=["blocking", "async of texts", "async of texts that are waited for"])
def stream(request: pytest.FixtureRequest) -> Iterator[Stream]:
    """Give the vectors of a source in each form: `stream(gateway, texts)`."""
    loop = Loop()

    def begin(embedder: Any, texts: Iterable[str] | Source, **how: Any) -> Any:
        if request.param == "blocking":
            return embedder.embed_stream(iter(texts), **how)
        if request.param == "async of texts":
            return Asynchronous(loop, embedder.aembed_stream(iter(texts), **how))
        waited_for = texts.waited_for() if isinstance(texts, Source) else one_by_one(texts)
        return Asynchronous(loop, embedder.aembed_stream(waited_for, **how))

    yield begin
    loop.close()


async def one_by_one(texts: Iterable[str]) -> AsyncIterator[str]:
    for text in texts:
        yield text


class TestVectors:
    def test_they_come_in_the_order_of_the_texts(self, server, stream):
        gateway = through(server)
        assert list(stream(gateway, texts_of(103))) == unit_vectors(texts_of(103))
        sizes = [len(request.json["input"]) for request in server.requests]
        assert sorted(sizes) == [3] + [4] * 25

    def test_several_batches_are_under_way_at_once(self, server, stream):
        gates = Gates()
        server.always(gates)
        vectors = stream(through(server), texts_of(40))
        answering = threading.Thread(target=lambda: (gates.wait_for(1), gates.let(), gates.wait_for(3), gates.open()))
        answering.start()
        assert list(vectors) == unit_vectors(texts_of(40))
        answering.join(PATIENCE)
        assert gates.peak >= 2

    def test_no_texts_are_no_vectors_and_no_request(self, server, stream):
        assert list(stream(through(server), [])) == []
        assert server.count() == 0

    def test_both_roles_get_their_prompts(self, server, stream):
        gateway = through(server, query_prompt="query: ", document_prompt="passage: ")
        assert list(stream(gateway, ["foo"], role="query")) == unit_vectors(["query: foo"])
        assert list(stream(gateway, ["foo"])) == unit_vectors(["passage: foo"])

    @pytest.mark.parametrize("kind", ["HFGatewayEmbeddings", "HFGatewayEmbedding"])
    def test_the_frameworks_classes_stream_too(self, server, stream, kind):
        embeddings = door(kind).from_gateway(through(server))
        assert list(stream(embeddings, texts_of(9))) == unit_vectors(texts_of(9))

    def test_duplicates_of_a_batch_are_sent_once(self, server, stream):
        texts = [f"text {number % 2}" for number in range(12)]
        assert list(stream(through(server), texts)) == unit_vectors(texts)
        assert [len(request.json["input"]) for request in server.requests] == [2, 2, 2]

    def test_a_cache_spares_what_was_embedded_before(self, server, stream, tmp_path):
        gateway = through(server, cache=str(tmp_path / "vectors.db"))
        assert list(stream(gateway, texts_of(10))) == unit_vectors(texts_of(10))
        before = server.count()
        assert list(stream(gateway, texts_of(14))) == unit_vectors(texts_of(14))
        sent = [text for request in server.requests[before:] for text in request.json["input"]]
        assert sorted(sent) == sorted(texts_of(14)[10:])

    def test_observers_see_one_result_a_batch(self, server, stream):
        gateway, seen = through(server), []
        gateway.observe(seen.append)
        list(stream(gateway, texts_of(10)))
        assert sorted(len(result.vectors) for result in seen) == [2, 4, 4]
        assert all(isinstance(result, EmbedResult) for result in seen)

    def test_the_batches_are_as_large_as_the_server_takes(self, stream):
        with FakeTEI(model_id=MODEL, max_client_batch_size=5) as tei:
            vectors = stream(Gateway(MODEL, [f"tei:{tei.url}"]), texts_of(40))
            assert np.allclose(list(vectors), unit_vectors(texts_of(40)), atol=1e-6)
            assert {len(r.json["inputs"]) for r in tei.requests if r.path == "/embed"} <= {1, 2, 3, 4, 5}

    def test_the_last_text_alone_shares_no_request_of_others(self, server, stream):
        gateway, gates = through(server, coalesce=1), Gates()
        server.always(gates)
        vectors = stream(gateway, texts_of(1))
        others = Loop()
        first = others.begin(gateway.aembed(["alone"]))
        gates.wait_for(1)
        builder = others.begin(gateway.aembed(["gathering"]))
        others.settle()
        server.recover()
        assert list(vectors) == unit_vectors(texts_of(1))
        gates.open()
        assert [each.result(PATIENCE).vectors[0] for each in (first, builder)] == unit_vectors(["alone", "gathering"])
        assert sorted(request.json["input"] for request in server.requests) == [["alone"], ["gathering"], ["text 0"]]
        others.close()


def far_ahead(gateway: Gateway, source: Source, form: str) -> tuple[int, int]:
    """Return how many vectors came, and how many more texts than that were read at any time."""
    count = ahead = 0

    def seen() -> None:
        nonlocal count, ahead
        count += 1
        ahead = max(ahead, source.read - count)

    async def all_of_them() -> None:
        texts = source if form == "async of texts" else source.waited_for()
        async with gateway:
            async for _ in gateway.aembed_stream(texts):
                seen()

    if form == "blocking":
        with gateway:
            for _ in gateway.embed_stream(source):
                seen()
    else:
        asyncio.run(all_of_them())
    return count, ahead


class TestBounds:
    @pytest.mark.parametrize("form", ["blocking", "async of texts", "async of texts that are waited for"])
    def test_a_hundred_thousand_texts_are_never_read_far_ahead(self, form):
        # Two batches are on their way at most, and one more is being read.
        count, ahead = far_ahead(Gateway(targets=["hash:8"]), Source(100_000), form)
        assert count == 100_000
        assert 256 <= ahead <= (2 + 1) * 256

    @pytest.mark.parametrize("form", ["blocking", "async of texts", "async of texts that are waited for"])
    def test_with_a_server_as_many_batches_are_read_ahead_as_are_on_their_way(self, form):
        with FakeOpenAI(models=None, embed=lambda texts: unit_vectors(texts, 2)) as server:
            count, ahead = far_ahead(through(server, at_once=50, max_concurrency=4), Source(10_000), form)
        assert count == 10_000
        assert 50 <= ahead <= (2 * 4 + 1) * 50

    def test_nothing_is_read_before_the_first_vector_is_wanted(self, server, stream):
        source = Source(10)
        vectors = stream(through(server), source)
        assert source.read == 0
        next(vectors)
        assert source.read > 0
        vectors.close()

    def test_a_blocking_stream_gives_what_is_done_before_it_reads_on(self, server):
        done, gateway = threading.Semaphore(0), through(server, at_once=2)
        gateway.observe(lambda _: done.release())
        given: list[list[float]] = []

        def slow() -> Iterator[str]:
            for number in range(10):
                if number >= 2 and number % 2 == 0:
                    # The batch before has been served by now.
                    assert done.acquire(timeout=PATIENCE)
                if number >= 6 and number % 2 == 0:
                    # All but the last two batches are with the caller.
                    assert len(given) >= number - 4
                yield f"text {number}"

        for vector in gateway.embed_stream(slow()):
            given.append(vector)  # noqa: PERF402 - the source looks at it meanwhile
        assert given == unit_vectors(texts_of(10))

    async def test_an_async_stream_gives_what_is_done_while_it_waits_for_more(self, server):
        more: asyncio.Queue[str | None] = asyncio.Queue()

        async def slow() -> AsyncIterator[str]:
            while (text := await more.get()) is not None:
                yield text

        async with through(server, at_once=2) as gateway:
            vectors = gateway.aembed_stream(slow())
            for batch in range(3):
                for number in (0, 1):
                    more.put_nowait(f"text {2 * batch + number}")
                # The source has nothing more to give now.
                found = [await asyncio.wait_for(anext(vectors), PATIENCE) for _ in range(2)]
                assert found == unit_vectors([f"text {2 * batch}", f"text {2 * batch + 1}"])
            more.put_nowait(None)
            assert [vector async for vector in vectors] == []


class TestFailures:
    @pytest.mark.parametrize("bad", ["", "   ", None, 7, "\ud800"], ids=["empty", "blank", "None", "int", "surrogate"])
    def test_a_bad_text_is_an_error_after_the_vectors_before_it(self, server, stream, bad):
        vectors, found = stream(through(server), [*texts_of(9), bad, "never read"]), []
        with pytest.raises(errors.InvalidRequest, match="text 9 "):
            found.extend(vectors)
        assert found == unit_vectors(texts_of(9))

    def test_an_exception_of_the_source_comes_after_the_vectors_before_it(self, server, stream):
        found, broken = [], OSError("the disk is gone")
        with pytest.raises(OSError) as caught:
            found.extend(stream(through(server), Source(9, broken)))
        assert caught.value is broken
        assert found == unit_vectors(texts_of(9))

    def test_a_servers_failure_comes_after_the_vectors_before_it_and_names_the_place(self, server, stream):
        server.max_input_length = 4
        texts = texts_of(20)
        texts[9] = "this one is too long"
        found: list[list[float]] = []
        with pytest.raises(errors.ContextOverflow, match="texts 8 to 11 of the stream, counted from 0: ") as caught:
            found.extend(stream(through(server), texts))
        assert found == unit_vectors(texts[:8])
        assert caught.value.attempts[-1].outcome == "failed"

    def test_an_error_that_stays_the_same_names_its_own_place_each_time(self, server, stream):
        gateway = through(server, check_space=True, cache=None)
        assert list(stream(gateway, texts_of(1))) == unit_vectors(texts_of(1))
        server.embed = lambda texts: unit_vectors([f"another model: {text}" for text in texts])
        other = through(server, check_space=True)
        messages = []
        for _ in range(3):
            with pytest.raises(errors.Quarantined) as caught:
                list(stream(other, texts_of(3)))
            messages.append(caught.value.message)
        assert {message.count("of the stream") for message in messages} == {1}
        assert "of the stream" not in str(other.status()[0].reason)

    def test_a_servers_failure_is_one_of_langchain_in_its_class(self, server, stream):
        server.always(DOWN)
        with pytest.raises(langchain.ModelAPIError, match="texts 0 to 3 of the stream") as caught:
            list(stream(HFGatewayEmbeddings.from_gateway(through(server)), texts_of(9)))
        assert isinstance(caught.value, errors.ServerError)

    def test_a_bad_text_is_one_of_langchain_in_its_class(self, server, stream):
        with pytest.raises(langchain.ModelInvalidRequestError):
            list(stream(HFGatewayEmbeddings.from_gateway(through(server)), [""]))

    @pytest.mark.parametrize("wrong", ["one text", b"bytes", 7])
    def test_what_is_no_iterable_of_texts_is_an_error(self, server, wrong):
        with pytest.raises(errors.InvalidRequest, match="an iterable of strings"):
            next(through(server).embed_stream(wrong))

    def test_a_role_that_there_is_not_is_an_error(self, server, stream):
        with pytest.raises(errors.InvalidRequest, match="role is"):
            next(stream(through(server), texts_of(1), role="passage"))

    def test_the_next_target_takes_over_in_the_middle_and_keeps_the_job(self, server, stream):
        with FakeOpenAI(models=None) as dying:
            dying.fail(*[Normal()] * 6, path=PATH)
            dying.always(DOWN, path=PATH)
            gateway = through(dying, server, max_concurrency=4)
            assert list(stream(gateway, texts_of(200))) == unit_vectors(texts_of(200))
            assert dying.count(PATH) - 6 <= 4
            assert server.count(PATH) + 6 >= 50


class TestObservers:
    def test_a_stream_within_an_observer_of_a_stream_is_served(self, server):
        # Called on the thread that serves all blocking streams: it could never wait for itself.
        within: list[list[list[float]]] = []
        gateway, other = through(server), through(server)
        gateway.observe(lambda _: within.append(list(other.embed_stream(["x", "y", "z"]))))
        given: list[list[float]] = []
        stream = threading.Thread(target=lambda: given.extend(gateway.embed_stream(["one", "two"])), daemon=True)
        stream.start()
        stream.join(PATIENCE)
        assert given == unit_vectors(["one", "two"])
        assert within == [unit_vectors(["x", "y", "z"])]


class TestClosing:
    def test_closing_early_ends_what_is_under_way_and_closes_the_source(self, server, stream):
        first, unanswered = hang(), UntilGone()
        server.fail(first, path=PATH)
        server.always(unanswered)
        # The first batch is answered once seven others wait for a place.
        source = Source(1000, then={31: first.release})
        vectors = stream(through(server, max_concurrency=4), source)
        assert next(vectors) == unit_vectors(texts_of(1))[0]
        server.wait_for(3, PATH)
        vectors.close()
        assert source.closed
        unanswered.wait_for(2)
        assert server.count(PATH) == 3
        assert source.read <= 40

    def test_a_failure_ends_what_is_under_way_and_closes_the_source(self, server, stream):
        unanswered, source, gates = UntilGone(), Source(1000), Gates()
        server.always(gates)
        vectors = stream(through(server, max_concurrency=4), source)

        def answer() -> None:
            gates.wait_for(1)
            gates.let()
            gates.wait_for(3)
            gates.let(gates.place_of("text 8"), unanswered)
            gates.let(gates.place_of("text 4"), DOWN)

        answering = threading.Thread(target=answer)
        answering.start()
        with pytest.raises(errors.ServerError):
            list(vectors)
        answering.join(PATIENCE)
        assert source.closed
        unanswered.wait_for(1)

    async def test_a_cancelled_task_ends_what_is_under_way_and_closes_the_source(self, server):
        unanswered, source = UntilGone(), Source(1000)
        server.always(unanswered)
        async with through(server) as gateway:

            async def all_of_them() -> list[list[float]]:
                return [vector async for vector in gateway.aembed_stream(source.waited_for())]

            task = asyncio.create_task(all_of_them())
            await asyncio.to_thread(server.wait_for, 1, PATH)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert source.closed
            await asyncio.to_thread(unanswered.wait_for, 1)
            assert len(asyncio.all_tasks()) == 1

    async def test_the_source_is_read_and_closed_by_one_task(self, server):
        # A task group or a timeout in a generator belongs to the task that entered it.
        tasks = set()

        async def watched() -> AsyncIterator[str]:
            try:
                for number in itertools.count():
                    tasks.add(asyncio.current_task())
                    yield f"text {number}"
            finally:
                tasks.add(asyncio.current_task())

        async with through(server) as gateway:
            vectors = gateway.aembed_stream(watched())
            for _ in range(20):
                await anext(vectors)
            await vectors.aclose()
        assert len(tasks) == 1

    def test_what_is_no_generator_is_left_open(self, server, tmp_path):
        (tmp_path / "texts").write_text("one\ntwo\nthree\nfour\nfive\n")
        with (tmp_path / "texts").open() as lines, contextlib.closing(through(server).embed_stream(lines)) as vectors:
            next(vectors)
            vectors.close()
            assert not lines.closed

    def test_the_gateway_can_be_used_on_after_it_was_closed(self, server):
        gateway = through(server)
        for _ in range(2):
            assert len(list(gateway.embed_stream(texts_of(9)))) == 9
            gateway.close()


def test_an_async_iterable_is_one_of_texts_as_well(server):
    class Texts(AsyncIterable[str]):
        async def __aiter__(self) -> AsyncIterator[str]:
            yield "foo"
            yield "bar"

    async def all_of_them() -> list[list[float]]:
        async with through(server) as gateway:
            return [vector async for vector in gateway.aembed_stream(Texts())]

    assert asyncio.run(all_of_them()) == unit_vectors(["foo", "bar"])
