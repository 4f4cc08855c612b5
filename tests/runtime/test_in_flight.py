"""Many texts: batches of which several are under way at once, as many as the server takes well, and in order."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from hf_gateway import Gateway, Target, errors
from hf_gateway.runtime.concurrency_limit import ConcurrencyLimiter
from hf_gateway.testing import ManualClock
from hf_gateway.values.embedding import EmbedResult
from tests.servers import unit_vectors
from tests.servers.loopback import Normal, Reply, dead_url
from tests.servers.openai import FakeOpenAI
from tests.servers.router import rate_limited
from tests.servers.tei import FakeTEI
from tests.support.callers import PATIENCE, Callers, Form
from tests.support.embedders import MODEL
from tests.support.gates import Gates, UntilGone
from tests.support.late import COLLECTED

if COLLECTED:
    import numpy as np
    from langchain_core.vectorstores import InMemoryVectorStore
    from llama_index.core.ingestion import IngestionPipeline
    from llama_index.core.schema import TextNode

    from langchain_hf_gateway import HFGatewayEmbeddings
    from llamaindex_hf_gateway import HFGatewayEmbedding


PATH = "/v1/embeddings"
DOWN = Reply(500, {"error": "down"})
BUSY = Reply(503, {"error": "too busy"})


@pytest.fixture
def server() -> Iterator[FakeOpenAI]:
    with FakeOpenAI(models=None) as started:
        yield started


@pytest.fixture(params=["threads", "tasks"])
def form(request: pytest.FixtureRequest) -> Form:
    return request.param


class Frozen(ManualClock):
    """Its pauses take no time at all, so that no answer seems slower than another."""

    def sleep(self, seconds: float) -> None:
        self.waited.append(seconds)


def through(*servers: Any, at_once: int = 2, **settings: Any) -> Gateway:
    """Build a chain whose batches have `at_once` texts. Its clock stands still, so every answer is as quick as the last."""
    targets = [Target("openai", url=getattr(each, "url", each), options={"max_texts": at_once}) for each in servers]
    return Gateway(MODEL, targets, **{"clock": ManualClock(), "max_retries": 0, **settings})


def texts_of(batches: int, at_once: int = 2) -> list[str]:
    return [f"text {number}" for number in range(batches * at_once)]


def rows(begun: "Future[EmbedResult]") -> list[list[float]]:
    return begun.result(PATIENCE).vectors.tolist()


def first_texts(gates: Gates) -> list[str]:
    return [request.json["input"][0] for request in gates.arrived]


class TestFlight:
    async def test_it_starts_with_one_and_grows_by_one_an_answer_to_the_most(self):
        flight, widths = ConcurrencyLimiter(4), []
        for _ in range(6):
            widths.append(flight.width)
            await flight.acquire()
            flight.release(0.1)
        assert widths == [1, 2, 3, 4, 4, 4]

    async def test_a_refusal_halves_it_and_then_it_grows_by_one_a_round(self):
        flight = await grown(16, to=8)
        flight.note_rate_limit()
        widths = [flight.width]
        for _ in range(15):
            await flight.acquire()
            flight.release(0.1)
            widths.append(flight.width)
        # 4 answers at 4, about 5 at 5, about 6 at 6.
        assert widths == [4, 4, 4, 4, 4, 5, 5, 5, 5, 5, 6, 6, 6, 6, 6, 6]

    async def test_refusals_of_what_was_under_way_together_count_once(self):
        flight = await grown(16, to=8)
        for _ in range(8):
            await flight.acquire()
        for _ in range(8):
            flight.note_rate_limit()
            flight.release()
        assert flight.width == 4
        await flight.acquire()
        flight.note_rate_limit()
        assert flight.width == 2

    async def test_it_is_never_less_than_one(self):
        flight = ConcurrencyLimiter(8)
        for _ in range(5):
            flight.note_rate_limit()
        await flight.acquire()
        assert flight.width == 1

    async def test_it_does_not_grow_while_answers_are_slow(self):
        flight = await grown(16, to=4)
        widths = []
        for _ in range(8):
            await flight.acquire()
            flight.release(0.5)
            widths.append(flight.width)
        assert max(widths) == widths[-1] <= 5

    async def test_longer_texts_that_take_longer_set_the_pace_in_time(self):
        flight = await grown(16, to=4)
        for _ in range(60):
            await flight.acquire()
            flight.release(0.5)
        assert flight.width == 16

    async def test_ends_that_are_no_quick_answer_do_not_let_it_grow(self):
        flight = ConcurrencyLimiter(8)
        for _ in range(5):
            await flight.acquire()
            flight.release()
        assert flight.width == 1

    async def test_places_are_given_in_the_order_of_asking(self):
        flight, order = ConcurrencyLimiter(1), []

        async def one(name: int) -> None:
            await flight.acquire()
            order.append(name)
            flight.release()

        await flight.acquire()
        tasks = [asyncio.create_task(one(name)) for name in range(5)]
        await asyncio.sleep(0)
        tasks[2].cancel()
        flight.release()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert order == [0, 1, 3, 4]

    async def test_a_place_that_is_given_to_who_is_cancelled_goes_on_to_the_next(self):
        flight = ConcurrencyLimiter(1)
        await flight.acquire()
        first, second = (asyncio.create_task(flight.acquire()) for _ in range(2))
        await asyncio.sleep(0)
        flight.release()
        first.cancel()
        await asyncio.wait_for(second, PATIENCE)
        assert first.cancelled()
        flight.release()
        await asyncio.wait_for(flight.acquire(), PATIENCE)


async def grown(most: int, to: int) -> ConcurrencyLimiter:
    flight = ConcurrencyLimiter(most)
    while flight.width < to:
        await flight.acquire()
        flight.release(0.1)
    return flight


class TestServer:
    def test_order_is_kept_whatever_order_the_answers_come_in(self, server, form):
        texts, draw, gates = texts_of(30), random.Random(4), Gates()
        server.always(gates)
        with Callers(form, through(server)) as callers:
            begun = callers.begin(*texts)
            for arrived in range(1, 31):
                gates.wait_for(min(arrived, 30))
                gates.let(draw.randrange(len(gates.held)))
            assert rows(begun) == unit_vectors(texts)
        assert sorted(text for request in gates.arrived for text in request.json["input"]) == sorted(texts)

    def test_it_starts_with_one_request_and_has_one_more_under_way_with_each_answer(self, server, form):
        gates = Gates()
        server.always(gates)
        with Callers(form, through(server, max_concurrency=4)) as callers:
            begun, peaks = callers.begin(*texts_of(20)), []
            for answered in range(4):
                # So many were answered, and one more than that is under way.
                gates.wait_for(2 * answered + 1)
                peaks.append(gates.peak)
                gates.let()
            gates.open()
            begun.result(PATIENCE)
        assert peaks == [1, 2, 3, 4]

    def test_there_are_never_more_than_max_concurrency(self, server, form):
        gates = Gates()
        server.always(gates)
        with Callers(form, through(server, max_concurrency=3)) as callers:
            jobs = [callers.begin(*texts_of(10)) for _ in range(4)]
            for answered in range(40):
                gates.wait_for(min(2 * answered + 1, answered + 3, 40))
                gates.let()
            for job in jobs:
                assert rows(job) == unit_vectors(texts_of(10))
        assert gates.peak == 3

    def test_max_concurrency_1_is_strictly_one_after_the_other(self, server, form):
        gates = Gates()
        server.always(gates)
        with Callers(form, through(server, max_concurrency=1)) as callers:
            begun = callers.begin(*texts_of(10))
            for arrived in range(1, 11):
                gates.wait_for(arrived)
                gates.let()
            begun.result(PATIENCE)
        assert gates.peak == 1
        assert first_texts(gates) == texts_of(10)[::2]

    def test_max_concurrency_1_stays_in_the_callers_thread(self, server):
        # For a cache, say, that belongs to one thread.
        threads = set()

        class Kept:
            def get_many(self, keys: list[str]) -> list[None]:
                threads.add(threading.get_ident())
                return [None] * len(keys)

            def set_many(self, items: Any) -> None:
                threads.add(threading.get_ident())

            def close(self) -> None:
                """Nothing is open."""

        with through(server, max_concurrency=1, cache=Kept(), check_space=False) as gateway:
            assert gateway.embed(texts_of(10)).vectors.tolist() == unit_vectors(texts_of(10))
        assert threads == {threading.get_ident()}

    @pytest.mark.parametrize("refusal", [rate_limited(1), BUSY], ids=["429", "503"])
    def test_a_refusal_halves_what_is_under_way(self, server, form, refusal):
        gates = Gates()
        with Callers(form, through(server, max_retries=1)) as callers:
            callers.begin(*texts_of(20)).result(PATIENCE)  # now there may be 16
            server.always(gates)
            begun = callers.begin(*texts_of(60))
            gates.wait_for(16)
            gates.let(0, refusal)
            gates.wait_for(17)  # the one that was refused comes again, in its own place
            for _ in range(8):
                gates.let()
            # Eight are left, and eight there may be: with each that is answered now, one comes.
            for arrived in range(18, 26):
                gates.let()
                gates.wait_for(arrived)
                assert len(gates.held) == 8
            gates.open()
            assert rows(begun) == unit_vectors(texts_of(60))
        assert server.count(PATH) == 20 + 60 + 1

    def test_after_a_refusal_it_grows_again(self, server, form):
        gates = Gates()
        with Callers(form, through(server, clock=Frozen(), max_retries=1)) as callers:
            callers.begin(*texts_of(20)).result(PATIENCE)
            server.fail(BUSY, path=PATH)
            callers.begin(*texts_of(200)).result(PATIENCE)
            server.always(gates)
            begun = callers.begin(*texts_of(30))
            gates.wait_for(16)
            gates.open()
            begun.result(PATIENCE)

    def test_retry_after_is_kept_to(self, server, form):
        clock, times = ManualClock(), []
        server.on_request = lambda _request: times.append(clock.now())
        with Callers(form, through(server, clock=clock, max_retries=1)) as callers:
            callers.begin(*texts_of(5)).result(PATIENCE)
            times.clear()
            server.fail(rate_limited(7), path=PATH)
            began = clock.now()
            assert rows(callers.begin(*texts_of(5))) == unit_vectors(texts_of(5))
        assert len(times) == 6
        assert max(times) - began >= 7
        assert 7 in clock.waited

    def test_many_callers_at_once_each_get_their_own(self, server, form):
        with Callers(form, through(server)) as callers:
            jobs = [[f"{job} {text}" for text in texts_of(12)] for job in range(12)]
            begun = [callers.begin(*job) for job in jobs]
            for job, each in zip(jobs, begun, strict=True):
                assert rows(each) == unit_vectors(job)

    async def test_blocking_code_on_a_running_loop_has_several_under_way_too(self, server):
        # A notebook's cell.
        gates = Gates()
        server.always(gates)

        def answer() -> None:
            gates.wait_for(1)
            gates.let()
            gates.wait_for(3)
            gates.open()

        with through(server) as gateway:
            answered = asyncio.create_task(asyncio.to_thread(answer))
            await asyncio.sleep(0)
            assert gateway.embed(texts_of(10)).vectors.tolist() == unit_vectors(texts_of(10))
            await answered
        assert gates.peak >= 2

    def test_an_observer_may_embed_many_texts_too(self, server):
        gateway, found = through(server), []

        def observer(result: EmbedResult) -> None:
            if not found:
                found.append(None)
                found.append(gateway.embed(texts_of(4)).vectors.tolist())

        gateway.observe(observer)
        with gateway:
            # Its results are complete on the very thread on which others wait for theirs.
            assert list(gateway.embed_stream(texts_of(3))) == unit_vectors(texts_of(3))
        assert found == [None, unit_vectors(texts_of(4))]


class TestChains:
    def test_a_dead_primary_is_asked_once_in_a_job_of_fifty_batches(self, server, form):
        with FakeOpenAI(models=None) as dead, Callers(form, through(dead, server)) as callers:
            dead.always(DOWN)
            assert rows(callers.begin(*texts_of(50))) == unit_vectors(texts_of(50))
            assert (dead.count(PATH), server.count(PATH)) == (1, 50)

    def test_with_a_retry_it_is_asked_twice(self, server, form):
        with FakeOpenAI(models=None) as dead, Callers(form, through(dead, server, max_retries=1)) as callers:
            dead.always(DOWN)
            callers.begin(*texts_of(50)).result(PATIENCE)
            assert (dead.count(PATH), server.count(PATH)) == (2, 50)

    def test_a_primary_that_dies_gets_no_more_than_what_may_be_under_way_and_a_retry_each(self, server, form):
        with FakeOpenAI(models=None) as dying, Callers(form, through(dying, server, max_retries=1)) as callers:
            callers.begin(*texts_of(20)).result(PATIENCE)  # now there may be 16
            dying.always(DOWN)
            assert rows(callers.begin(*texts_of(50))) == unit_vectors(texts_of(50))
            assert dying.count(PATH) - 20 <= 16 + 16
            assert server.count(PATH) == 50

    def test_what_fails_while_many_are_under_way_is_tried_again_by_each(self, form):
        # All of them fail at once, which says no more than one failure does; there is nobody else.
        with FakeOpenAI(models=None) as only, Callers(form, through(only, max_retries=1)) as callers:
            callers.begin(*texts_of(20)).result(PATIENCE)  # now there may be 16
            gates = Gates()
            only.always(gates)
            begun = callers.begin(*texts_of(16))
            gates.wait_for(16)
            for _ in range(16):
                gates.let(0, BUSY)
            gates.wait_for(17)
            gates.open()
            assert rows(begun) == unit_vectors(texts_of(16))

    def test_a_url_that_nobody_listens_at_costs_each_batch_nothing_but_the_first(self, server, form):
        with Callers(form, through(dead_url(), server)) as callers:
            result = callers.begin(*texts_of(50)).result(PATIENCE)
        assert [(attempt.outcome, attempt.calls) for attempt in result.attempts] == [("failed", 1), ("served", 50)]

    def test_targets_that_are_skipped_do_not_keep_it_from_growing(self, server):
        gates, keyless, target = Gates(), Target("hf", provider="scaleway"), Target("openai", url=server.url)
        with Callers("tasks", Gateway(MODEL, [keyless, target], clock=ManualClock())) as callers:
            # Each is the first batch of its job, so that nobody is known yet who serves.
            for _ in range(4):
                result = callers.begin(*texts_of(1)).result(PATIENCE)
            assert [attempt.outcome for attempt in result.attempts] == ["skipped", "served"]
            server.always(gates)
            jobs = [callers.begin(*texts_of(1)) for _ in range(5)]
            gates.wait_for(5)
            gates.open()
            for job in jobs:
                assert rows(job) == unit_vectors(texts_of(1))

    def test_attempts_are_merged_in_the_order_of_the_batches(self, server, form):
        with FakeOpenAI(models=None) as dying, Callers(form, through(dying, server)) as callers:
            gates = Gates()
            dying.always(gates)
            begun = callers.begin(*texts_of(6))
            gates.wait_for(1)
            gates.let()
            gates.wait_for(3)
            dying.always(DOWN)
            # The second batch is served by the first target, after the third was lost there.
            gates.let(gates.place_of("text 4"), DOWN)
            server.wait_for(1, PATH)
            gates.let()
            result = begun.result(PATIENCE)
        outcomes = [(attempt.target, attempt.outcome) for attempt in result.attempts]
        first, second = f"openai:{dying.url}", f"openai:{server.url}"
        assert outcomes[:3] == [(first, "served"), (first, "failed"), (second, "served")]
        assert result.attempts[0].calls == 2
        assert result.served_by == (first, second)
        assert result.vectors.tolist() == unit_vectors(texts_of(6))

    @pytest.mark.parametrize("cut_again", [False, True])
    @pytest.mark.parametrize("alike", [False, True])
    def test_lists_that_are_made_on_the_way_are_those_of_the_vectors(self, server, form, cut_again, alike):
        server.max_inputs = 1 if cut_again else None
        texts = texts_of(5)
        texts[7] = texts[2] if alike else texts[7]
        with Callers(form, through(server)) as callers:
            vectors = callers.begin(*texts, lists=True).result(PATIENCE).vectors
        assert vectors.tolist() == list(vectors) == unit_vectors(texts)

    def test_what_failed_before_a_batch_was_cut_is_told(self, server, form):
        server.max_inputs = 3
        with Callers(form, through(dead_url(), server, at_once=8)) as callers:
            result = callers.begin(*texts_of(4)).result(PATIENCE)
        assert result.vectors.tolist() == unit_vectors(texts_of(4))
        assert [attempt.outcome for attempt in result.attempts] == ["failed", "served"]
        assert result.attempts[1].calls == 3

    def test_an_error_in_the_middle_tells_of_all_batches_before_it(self, server, form):
        server.max_input_length = 4
        texts = texts_of(6)
        texts[7] = "this one is too long"
        with Callers(form, through(server)) as callers:
            failure = callers.begin(*texts).exception(PATIENCE)
        assert isinstance(failure, errors.ContextOverflow)
        assert [(attempt.outcome, attempt.calls) for attempt in failure.attempts] == [
            ("served", 3),
            ("failed", 1),
            ("served", 1),
            ("failed", 1),
        ]

    def test_parts_that_were_cut_once_more_are_told_of_in_an_error(self, server, form):
        server.max_input_length, server.max_inputs = 4, 1
        texts = [*texts_of(1, 5), "this one is too long"]
        with Callers(form, through(server)) as callers:
            failure = callers.begin(*texts).exception(PATIENCE)
        assert isinstance(failure, errors.ContextOverflow)
        assert [(attempt.outcome, attempt.calls) for attempt in failure.attempts] == [("served", 5), ("failed", 1)]


class TestDuplicates:
    @pytest.mark.parametrize("kept", [False, True], ids=["without a cache", "with a cache"])
    def test_each_text_is_sent_once(self, server, form, kept, tmp_path):
        texts = [f"text {number % 7}" for number in range(50)]
        cache = str(tmp_path / "vectors.db") if kept else None
        with Callers(form, through(server, cache=cache)) as callers:
            result = callers.begin(*texts).result(PATIENCE)
        sent = [text for request in server.requests for text in request.json["input"]]
        assert sorted(sent) == [f"text {number}" for number in range(7)]
        assert result.vectors.tolist() == unit_vectors(texts)
        # A start mark, an end mark and two words each, as the server counted them.
        assert result.usage.input_tokens == 7 * 4

    def test_one_text_many_times_is_one_text(self, server, form):
        with Callers(form, through(server)) as callers:
            assert rows(callers.begin(*["same"] * 9)) == unit_vectors(["same"] * 9)
        assert [request.json["input"] for request in server.requests] == [["same"]]


CHILD = """
import os, signal, sys
signal.alarm(50)
from hf_gateway import Gateway, Target
gateway = Gateway("m", [Target("openai", url=sys.argv[1], options={"max_texts": 2})], check_space=False)
texts = [f"text {number}" for number in range(60)]
"""
INTERRUPTED = """
try:
    CALL
except KeyboardInterrupt:
    print("interrupted", flush=True)
sys.stdin.readline()
print(len(gateway.embed(texts).vectors), gateway.status()[0].ready)
"""
FORKED = """
before = gateway.embed(texts).vectors.tolist()
child = os.fork()
if not child:
    signal.alarm(30)
    os._exit(0 if gateway.embed(texts).vectors.tolist() == before else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), gateway.embed(texts).vectors.tolist() == before)
"""


def child_of(code: str, server: FakeOpenAI) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", CHILD + code, server.url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "HF_GATEWAY_CHECK_SPACE": "0"},
        # A shell that runs the tests in the background has its children ignore the signal.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@pytest.mark.parametrize("call", ["gateway.embed(texts)", "list(gateway.embed_stream(texts))"])
def test_ctrl_c_returns_at_once_and_ends_what_is_under_way(server, call):
    unanswered = UntilGone()
    # By the order of arrival: two that come at once would both be counted before either could change what comes next.
    server.fail(*[Normal()] * 4, path=PATH)
    server.always(unanswered, path=PATH)
    with child_of(INTERRUPTED.replace("CALL", call), server) as process:
        server.wait_for(5, PATH, timeout=60)
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "interrupted\n"
        unanswered.wait_for(server.count(PATH) - 4)
        server.recover()
        out, err = process.communicate("\n", timeout=60)
    assert (out, err, process.returncode) == ("60 True\n", "", 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_after_a_fork_both_processes_go_on(server):
    with child_of(FORKED, server) as process:
        out, err = process.communicate(timeout=60)
    assert (out, err, process.returncode) == ("0 True\n", "", 0)


class TestIngestion:
    def chunks(self) -> list[str]:
        return [f"chunk {number}" for number in range(320)]

    def ingest(self, tei: FakeTEI, work: Any) -> Gates:
        """Run it in a thread, and let its requests on once several are under way."""
        gates = Gates()
        tei.always(gates, "/embed")
        with Callers("threads", Gateway(targets=["hash"])) as callers:
            done = callers.run(work)
            gates.wait_for(1)
            gates.let()
            gates.wait_for(3)
            gates.open()
            done.result(PATIENCE)
        return gates

    def test_a_pipeline_of_llamaindex_has_several_under_way(self):
        with FakeTEI(model_id=MODEL) as tei:
            gateway = Gateway(MODEL, [f"tei:{tei.url}"], clock=ManualClock())
            nodes: list[Any] = []
            pipeline = IngestionPipeline(transformations=[HFGatewayEmbedding.from_gateway(gateway)])
            given = [TextNode(text=text) for text in self.chunks()]
            gates = self.ingest(tei, lambda: nodes.extend(pipeline.run(nodes=given)))
        assert [len(request.json["inputs"]) for request in gates.arrived] == [32] * 10
        assert gates.peak >= 2
        assert np.allclose([node.embedding for node in nodes], unit_vectors(self.chunks()), atol=1e-6)

    def test_a_vector_store_of_langchain_has_several_under_way(self):
        with FakeTEI(model_id=MODEL) as tei:
            embeddings = HFGatewayEmbeddings.from_gateway(Gateway(MODEL, [f"tei:{tei.url}"], clock=ManualClock()))
            store = InMemoryVectorStore(embeddings)
            gates = self.ingest(tei, lambda: store.add_texts(self.chunks()))
            tei.recover()
            assert store.similarity_search("chunk 77", k=1)[0].page_content == "chunk 77"
        assert gates.peak >= 2
        assert len(store.store) == 320
