"""Calls of one text that come at the same time share one request; whatever befalls one of them harms no other."""

import asyncio
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from typing import Any

import pytest

from hf_gateway import Gateway, Target, errors
from hf_gateway.engines.hashing import HashingEngine
from hf_gateway.http.transport import HttpTransport
from hf_gateway.observing.observer import tagged
from hf_gateway.runtime.coalescing import Coalescer
from hf_gateway.tasks.embedding import service
from hf_gateway.values.embedding import EmbedResult
from tests.servers import tokens, unit_vectors
from tests.servers.loopback import Hang, Reply, hang
from tests.servers.openai import FakeOpenAI
from tests.servers.tei import FakeTEI
from tests.support.callers import FORMS, PATIENCE, Callers, Form, Loop
from tests.support.embedders import MODEL

PATH = "/v1/embeddings"
DOWN = Reply(500, {"error": "down"})
NOBODY_ELSE = 0.002
"""Seconds to wait for company: about as long as a request on loopback takes."""


@pytest.fixture(autouse=True)
def _a_loaded_machine_may_stand_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have who waits for company as long as is allowed, a second, wait until it is there."""
    allowed = service.EmbeddingService._gathering_s.fget
    assert allowed is not None
    monkeypatch.setattr(
        service.EmbeddingService,
        "_gathering_s",
        property(lambda self: PATIENCE if (seconds := allowed(self)) == 1 else seconds),
    )


@pytest.fixture
def server() -> Iterator[FakeOpenAI]:
    with FakeOpenAI(models=None) as started:
        yield started


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> Form:
    return request.param


def through(server: FakeOpenAI, company: int = 256, **settings: Any) -> Gateway:
    """Build a chain whose groups leave when they have `company` texts, or when nothing is under way any more."""
    target = Target("openai", url=server.url, options={"max_texts": company})
    return Gateway(MODEL, [target], **{"max_retries": 0, "coalesce": 1, **settings})


def sent(server: FakeOpenAI) -> list[list[str]]:
    return [request.json["input"] for request in server.requests]


def held(server: FakeOpenAI, callers: Callers, text: str = "alone") -> tuple[Hang, "Future[EmbedResult]"]:
    """Begin a call whose request the server holds."""
    gate, before = hang(), server.count(PATH)
    server.fail(gate, path=PATH)
    first = callers.begin(text)
    server.wait_for(before + 1, PATH)
    return gate, first


class HeldModel:
    """The model "hash", whose passes wait for `go_on`."""

    def __init__(self) -> None:
        self._embed = HashingEngine.embed
        self.sizes: list[int] = []
        """Texts of every pass."""
        self.arrived = threading.Semaphore(0)
        """Released by every pass that begins."""
        self.go_on = threading.Event()

    def embed(self, engine: HashingEngine, texts: list[str]) -> Any:
        """Begin a pass, and end it when it may go on."""
        self.sizes.append(len(texts))
        self.arrived.release()
        self.go_on.wait(PATIENCE)
        return self._embed(engine, texts)

    def vectors(self, *texts: str) -> list[list[float]]:
        """Return what the model gives for each text alone."""
        return [self._embed(HashingEngine(1024), [text])[0] for text in texts]


@pytest.fixture
def held_model(monkeypatch: pytest.MonkeyPatch) -> Iterator[HeldModel]:
    held = HeldModel()
    monkeypatch.setattr(HashingEngine, "embed", lambda engine, texts: held.embed(engine, texts))
    yield held
    held.go_on.set()


def rows(futures: list["Future[EmbedResult]"]) -> list[list[float]]:
    return [row for future in futures for row in future.result(PATIENCE).vectors]


class TestGroups:
    def test_who_comes_alone_goes_at_once_and_takes_nobody_along(self):
        coalescer = Coalescer(lambda: 8)
        for _ in range(3):
            group, place, leads = coalescer.join("key", "text")
            assert (group.ready.done(), place, leads) == (True, 0, True)
            coalescer.resolve(group, "served")

    def test_whoever_gathers_is_ready_once_nothing_is_under_way_and_what_left_is_under_way(self):
        coalescer = Coalescer(lambda: 8)
        alone, _, _ = coalescer.join("key", "alone")
        second, _, leads = coalescer.join("key", "second")
        assert (second.ready.done(), leads) == (False, True)
        coalescer.resolve(alone, "served")
        assert second.ready.done()
        third, _, leads = coalescer.join("key", "third")
        assert (third.ready.done(), leads) == (False, True)
        coalescer.close(third)
        fourth, _, leads = coalescer.join("key", "fourth")
        assert (fourth.ready.done(), leads) == (False, True)
        coalescer.resolve(second, "served")
        assert not fourth.ready.done()
        coalescer.resolve(third, "served")
        assert fourth.ready.done()

    async def test_tasks_that_begin_in_one_turn_of_the_loop_share_one_request(self, server):
        texts = [f"text {number}" for number in range(6)]
        async with through(server) as gateway:
            await gateway._aprepare()
            results = await asyncio.gather(*(gateway.aembed([text]) for text in texts))
        assert [result.vectors[0] for result in results] == unit_vectors(texts)
        assert sent(server) == [texts]

    async def test_a_leader_that_is_cancelled_within_its_turn_leaves_the_others_served(self, server):
        async with through(server) as gateway:
            await gateway._aprepare()
            leader, *others = (asyncio.create_task(gateway.aembed([text])) for text in ("leader", "a", "b"))
            await asyncio.sleep(0)
            leader.cancel()
            assert [result.vectors[0] for result in await asyncio.gather(*others)] == unit_vectors(["a", "b"])
            assert (await asyncio.gather(leader, return_exceptions=True))[0].__class__ is asyncio.CancelledError

    def test_who_comes_while_one_is_under_way_shares_one_request(self, server, form):
        texts = [f"text {number}" for number in range(6)]
        with Callers(form, through(server, company=6)) as callers:
            gate, first = held(server, callers)
            others = [callers.begin(text) for text in texts]
            server.wait_for(2, PATH)
            gate.release()
            assert rows([first, *others]) == unit_vectors(["alone", *texts])
        assert sorted(map(sorted, sent(server))) == [["alone"], texts]

    def test_a_group_leaves_when_nothing_is_under_way_any_more(self, server):
        texts = ["one", "two", "three"]
        with Callers("tasks", through(server)) as callers:
            gate, first = held(server, callers)
            others = [callers.begin(text) for text in texts]
            callers.loop.settle()
            gate.release()
            assert rows([first, *others]) == unit_vectors(["alone", *texts])
        assert sent(server) == [["alone"], texts]

    def test_the_same_text_goes_once_in_a_group(self, server, form):
        with Callers(form, through(server, company=2)) as callers:
            gate, _ = held(server, callers)
            same = [callers.begin("same") for _ in range(3)]
            callers.loop.settle()
            other = callers.begin("other")
            server.wait_for(2, PATH)
            gate.release()
            assert rows([*same, other]) == unit_vectors(["same"] * 3 + ["other"])
        # A thread that came late may have gone in a group of its own.
        assert sorted(sent(server)[1]) == ["other", "same"]
        assert all(len(texts) == len(set(texts)) for texts in sent(server))

    def test_roles_are_never_mixed(self, server, form):
        with Callers(form, through(server, query_prompt="query: ", document_prompt="")) as callers:
            gate, document = held(server, callers)
            # Nothing of its own role is under way, so it goes at once.
            assert rows([callers.begin("alone", role="query")]) == unit_vectors(["query: alone"])
            gate.release()
            assert rows([document]) == unit_vectors(["alone"])

    def test_groups_of_both_roles_gather_side_by_side(self, server):
        gates = [hang(), hang()]
        server.fail(*gates, path=PATH)
        with Callers("tasks", through(server, query_prompt="query: ", document_prompt="")) as callers:
            for role in ("query", "document"):
                callers.begin("alone", role=role)
            server.wait_for(2, PATH)
            begun = [callers.begin(text, role=role) for text in "ab" for role in ("query", "document")]
            callers.loop.settle()
            for gate in gates:
                gate.release()
            assert rows(begun) == unit_vectors(["query: a", "a", "query: b", "b"])
        assert sorted(sent(server)[2:]) == [["a", "b"], ["query: a", "query: b"]]

    @pytest.mark.parametrize("somebody", [{"tenant": "acme"}, {"user": "ann"}])
    def test_calls_for_different_people_are_never_mixed(self, server, somebody):
        gates = [hang(), hang()]
        server.fail(*gates, path=PATH)
        with Callers("tasks", through(server)) as callers:

            def begin(texts: list[str]) -> list["Future[EmbedResult]"]:
                nobodys = callers.begin(texts[0])
                with tagged(**somebody):
                    return [nobodys, callers.begin(texts[1])]

            begun = begin(["alone", "alone"])
            server.wait_for(2, PATH)
            begun += begin(["a", "b"])
            callers.loop.settle()
            for gate in gates:
                gate.release()
            assert rows(begun) == unit_vectors(["alone", "alone", "a", "b"])
        assert sorted(sent(server)[2:]) == [["a"], ["b"]]

    def test_gateways_are_never_mixed(self, server, form):
        with Callers(form, through(server)) as callers, Callers(form, through(server)) as others:
            gate, first = held(server, callers)
            assert rows([others.begin("of another gateway")]) == unit_vectors(["of another gateway"])
            gate.release()
            first.result(PATIENCE)
        assert sent(server) == [["alone"], ["of another gateway"]]

    def test_a_group_waits_no_longer_than_it_may(self, server, form):
        with Callers(form, through(server, coalesce=NOBODY_ELSE)) as callers:
            gate, first = held(server, callers)
            assert rows([callers.begin("later")]) == unit_vectors(["later"])
            assert not first.done()
            gate.release()

    def test_coalesce_0_switches_it_off(self, server, form):
        with Callers(form, through(server, coalesce=0)) as callers:
            gate, first = held(server, callers)
            others = [callers.begin(text) for text in "abcde"]
            gate.release()
            assert rows([first, *others]) == unit_vectors(["alone", *"abcde"])
        assert sorted(sent(server)) == [["a"], ["alone"], ["b"], ["c"], ["d"], ["e"]]

    def test_a_group_has_no_more_texts_than_the_server_takes(self, form):
        with FakeTEI(model_id=MODEL, max_client_batch_size=3) as server:
            callers = Callers(form, Gateway(MODEL, [f"tei:{server.url}"], coalesce=1))
            with callers:
                callers.begin("so that the limit is known").result(PATIENCE)
                gate = hang()
                server.fail(gate, path="/embed")
                callers.begin("alone")
                server.wait_for(2, "/embed")
                others = [callers.begin(f"text {number}") for number in range(6)]
                server.wait_for(4, "/embed")
                gate.release()
                assert rows(others) == unit_vectors([f"text {number}" for number in range(6)])
                # Two groups, and not one that had to be cut.
                assert [each.result().shared for each in others].count(False) == 2
            sizes = [len(request.json["inputs"]) for request in server.requests if request.path == "/embed"]
        assert sizes == [1, 1, 3, 3]

    def test_a_group_that_is_more_than_the_server_takes_after_all_is_cut(self, server):
        server.max_inputs = 2
        with Callers("tasks", through(server, company=5)) as callers:
            gate, _ = held(server, callers)
            others = [callers.begin(text) for text in "abcde"]
            server.wait_for(2, PATH)
            gate.release()
            assert rows(others) == unit_vectors("abcde")
            assert sum(other.result().usage.input_tokens for other in others) == sum(
                len(tokens(text)) for text in "abcde"
            )

    def test_a_model_in_this_process_computes_a_group_at_once(self, held_model, form):
        with Callers(form, Gateway(targets=["hash"], coalesce=1)) as callers:
            others = [callers.begin("alone")]
            assert held_model.arrived.acquire(timeout=PATIENCE)
            # A group for a model in this process is never full, so only tasks are known to have come.
            others += [callers.begin(text) for text in "abcd"]
            callers.loop.settle()
            held_model.go_on.set()
            assert rows(others) == held_model.vectors("alone", *"abcd")
        if form == "tasks":
            assert held_model.sizes == [1, 4]

    def test_texts_wait_for_a_model_in_this_process_as_long_as_it_computes(self, monkeypatch, held_model):
        monkeypatch.setattr(service, "LOCAL_GATHERING_S", PATIENCE)  # a loaded machine may stand still for a second
        with Callers("tasks", Gateway(targets=["hash"], coalesce=0.001)) as callers:
            others = [callers.begin("alone")]
            assert held_model.arrived.acquire(timeout=PATIENCE)
            for text in "abc":
                others.append(callers.begin(text))
                callers.loop.begin(asyncio.sleep(0.01)).result(PATIENCE)  # ten times as long as they wait for a server
            held_model.go_on.set()
            assert rows(others) == held_model.vectors("alone", *"abc")
        assert held_model.sizes == [1, 3]

    def test_no_text_waits_for_a_model_in_this_process_beyond_its_own_time(self, monkeypatch, held_model, form):
        monkeypatch.setattr(service, "LOCAL_GATHERING_S", 2 * PATIENCE)
        with Callers(form, Gateway(targets=["hash"], timeout=0.2, coalesce=0.001)) as callers:
            alone = callers.begin("alone")
            assert held_model.arrived.acquire(timeout=PATIENCE)
            later = callers.begin("later")
            assert held_model.arrived.acquire(timeout=PATIENCE)
            held_model.go_on.set()
            assert rows([alone, later]) == held_model.vectors("alone", "later")


class TestResults:
    def test_tokens_are_counted_once(self, server, form):
        with Callers(form, through(server, company=4)) as callers:
            gate, first = held(server, callers)
            others = [callers.begin(f"text {number}") for number in range(4)]
            server.wait_for(2, PATH)
            gate.release()
            results = [each.result(PATIENCE) for each in (first, *others)]
        assert sum(result.usage.input_tokens for result in results) == 3 + 4 * 4
        assert [result.shared for result in results].count(False) == 2
        assert {result.usage.input_tokens for result in results if result.shared} == {0}
        assert {result.attempts[0].outcome for result in results} == {"served"}
        assert {result.served_by for result in results} == {(f"openai:{server.url}",)}

    def test_every_callers_text_is_kept_in_the_cache(self, server, form, tmp_path):
        kept = str(tmp_path / "vectors.db")
        with Callers(form, through(server, company=3, cache=kept)) as callers:
            gate, _ = held(server, callers)
            others = [callers.begin(text) for text in "abc"]
            server.wait_for(2, PATH)
            gate.release()
            rows(others)
        before = server.count()
        with through(server, cache=kept) as again:
            for text in ("alone", *"abc"):
                result = again.embed([text])
                assert (result.served_by, result.vectors.tolist()) == (("cache",), unit_vectors([text]))
        assert server.count() == before

    def test_observers_see_one_result_a_caller(self, server, form):
        gateway, seen = through(server, company=3), []
        gateway.observe(seen.append)
        with Callers(form, gateway) as callers:
            gate, first = held(server, callers)
            others = [callers.begin(text) for text in "abc"]
            server.wait_for(2, PATH)
            gate.release()
            results = [each.result(PATIENCE) for each in (first, *others)]
        assert sorted(map(id, seen)) == sorted(map(id, results))

    def test_nothing_of_a_model_of_another_space_gets_out(self, server, form):
        def measured(right: bool) -> list[Any]:
            with Callers(form, through(server, company=3, check_space=True)) as callers:
                calls = [callers.begin(text) for text in "abc"]
                return [call.result(PATIENCE).vectors[0] if right else call.exception(PATIENCE) for call in calls]

        assert measured(True) == unit_vectors("abc")
        server.embed = lambda texts: unit_vectors([f"another model: {text}" for text in texts])
        failures = measured(False)
        assert {type(failure) for failure in failures} == {errors.Quarantined}


class TestFailures:
    def test_a_failure_reaches_every_member_as_an_error_of_its_own(self, server, form):
        with Callers(form, through(server, company=4)) as callers:
            gate, first = held(server, callers)
            server.fail(DOWN, path=PATH)
            others = [callers.begin(text) for text in "abcd"]
            failures = [other.exception(PATIENCE) for other in others]
            gate.release()
            assert rows([first]) == unit_vectors(["alone"])
        assert {type(failure) for failure in failures} == {errors.ServerError}
        assert len(set(map(id, failures))) == 4
        assert {(failure.attempts[0].outcome, failure.attempts[0].calls) for failure in failures} == {("failed", 1)}
        assert server.count(PATH) == 2

    def test_a_text_that_is_too_long_fails_alone(self, server, form):
        server.max_input_length = 4
        texts = ["one", "two", "much too long a text", "four"]
        with Callers(form, through(server, company=4)) as callers:
            gate, _ = held(server, callers)
            one, two, long, four = (callers.begin(text) for text in texts)
            failure = long.exception(PATIENCE)
            assert rows([one, two, four]) == unit_vectors(["one", "two", "four"])
            assert not any(each.result().shared for each in (one, two, four))
            gate.release()
        assert type(failure) is errors.ContextOverflow
        # Alone, together, and each by itself.
        assert sorted(map(len, sent(server))) == [1, 1, 1, 1, 1, 4]

    def test_a_text_that_is_too_long_is_sent_once_however_many_want_it(self, server):
        server.max_input_length = 4
        with Callers("tasks", through(server)) as callers:
            gate, _ = held(server, callers)
            same = [callers.begin("much too long a text") for _ in range(3)]
            callers.loop.settle()
            gate.release()
            assert [type(each.exception(PATIENCE)) for each in same] == [errors.ContextOverflow] * 3
        assert sent(server)[1:] == [["much too long a text"]]

    @pytest.mark.parametrize("when", ["gathering", "under way"])
    def test_a_leader_that_is_cancelled_leaves_the_others_served(self, server, when):
        with Callers("tasks", through(server, company=4)) as callers:
            gates = [hang(), hang()]
            server.fail(*gates, path=PATH)
            first = callers.begin("alone")
            server.wait_for(1, PATH)
            leader, *others = (callers.begin(text) for text in ("leader", *"abc"[: 2 if when == "gathering" else 3]))
            if when == "under way":
                server.wait_for(2, PATH)
            else:
                callers.loop.settle()
            leader.cancel()
            callers.loop.settle()
            for gate in gates:
                gate.release()
            assert rows([first, *others]) == unit_vectors(["alone", *"abc"[: len(others)]])
            with pytest.raises(CancelledError):
                leader.result()

    def test_whoever_waits_goes_when_the_one_under_way_is_cancelled(self, server):
        with Callers("tasks", through(server)) as callers:
            _, first = held(server, callers)
            others = [callers.begin(text) for text in "ab"]
            callers.loop.settle()
            first.cancel()
            assert rows(others) == unit_vectors("ab")

    def test_a_leader_that_is_interrupted_leaves_the_others_served(self, server):
        class Interrupted(HttpTransport):
            """Stands for Ctrl-C in the thread whose request has several texts."""

            def send(self, send: Any, **how: Any) -> Any:
                if b'"b"' in send.request.body and interrupts:
                    raise interrupts.pop()
                return super().send(send, **how)

        interrupts: list[BaseException] = [KeyboardInterrupt()]
        with Callers("threads", through(server, company=4, transport=Interrupted())) as callers:
            gate, first = held(server, callers)
            others = [callers.begin(text) for text in "abcd"]
            wait(others, PATIENCE, return_when=FIRST_COMPLETED)
            gate.release()
            interrupted = [other for other in others if other.exception(PATIENCE) is not None]
            assert rows([first]) == unit_vectors(["alone"])
            assert [type(other.exception()) for other in interrupted] == [KeyboardInterrupt]
            served = [(text, other) for text, other in zip("abcd", others, strict=True) if other not in interrupted]
            assert rows([other for _, other in served]) == unit_vectors([text for text, _ in served])
            # And nothing counts as under way for ever.
            assert rows([callers.begin("later")]) == unit_vectors(["later"])

    def test_a_member_that_is_cancelled_harms_nobody(self, server):
        with Callers("tasks", through(server, company=3)) as callers:
            gates = [hang(), hang()]
            server.fail(*gates, path=PATH)
            first = callers.begin("alone")
            server.wait_for(1, PATH)
            leader, cancelled, other = (callers.begin(text) for text in "abc")
            server.wait_for(2, PATH)
            cancelled.cancel()
            callers.loop.settle()
            for gate in gates:
                gate.release()
            assert rows([first, leader, other]) == unit_vectors(["alone", "a", "c"])
        assert sent(server) == [["alone"], ["a", "b", "c"]]

    @pytest.mark.parametrize("fault", [ValueError("a bug"), MemoryError()], ids=["ValueError", "MemoryError"])
    def test_an_exception_of_nobodys_kind_leaves_nobody_waiting(self, server, fault):
        class Broken(HttpTransport):
            def send(self, send: Any, **how: Any) -> Any:
                if b'"alone"' not in send.request.body:
                    raise fault
                return super().send(send, **how)

        with Callers("threads", through(server, company=3, transport=Broken())) as callers:
            gate, _ = held(server, callers)
            others = [callers.begin(text) for text in "abc"]
            wait(others, PATIENCE, return_when=FIRST_COMPLETED)
            gate.release()
            assert [type(other.exception(PATIENCE)) for other in others] == [type(fault)] * 3


class TestLoops:
    @pytest.mark.parametrize("how", ["blocking", "on another loop"])
    def test_a_loop_that_stands_still_is_not_waited_for(self, server, how):
        # As the loop of a notebook does while a cell runs, or any loop between two calls of run_until_complete.
        gateway, gate = through(server), hang()
        server.fail(gate, path=PATH)
        standing = Loop()
        first = standing.begin(gateway.aembed(["alone"]))
        server.wait_for(1, PATH)
        leader = standing.begin(gateway.aembed(["leader"]))
        standing.settle()
        standing.stop()
        ask = gateway.embed if how == "blocking" else lambda texts: asyncio.run(gateway.aembed(texts))
        try:
            found: list[EmbedResult] = []
            another = threading.Thread(target=lambda: found.append(ask(["another"])), daemon=True)
            another.start()
            another.join(PATIENCE)
            assert [result.vectors.tolist() for result in found] == [unit_vectors(["another"])]
            assert not first.done()
            assert not leader.done()
        finally:
            gate.release()
            standing.close()
        assert sent(server)[:2] == [["alone"], ["another"]]

    async def test_who_blocks_a_loop_does_not_wait_for_its_tasks(self, server):
        # A notebook's cell, or blocking code in a coroutine: the leader could not go on before this call ends.
        gate = hang()
        server.fail(gate, path=PATH)
        async with through(server, timeout=5) as gateway:
            await gateway._aprepare()
            first = asyncio.create_task(gateway.aembed(["alone"]))
            await asyncio.to_thread(server.wait_for, 1, PATH)
            leader = asyncio.create_task(gateway.aembed(["leader"]))
            await asyncio.sleep(0)
            assert gateway.embed(["blocking"]).vectors.tolist() == unit_vectors(["blocking"])
            assert list(gateway.embed_stream(["streamed"])) == unit_vectors(["streamed"])
            gate.release()
            assert [(await task).vectors[0] for task in (first, leader)] == unit_vectors(["alone", "leader"])
        assert sorted(sent(server)) == [["alone"], ["blocking"], ["leader"], ["streamed"]]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_after_a_fork_nobody_waits_for_who_stayed_behind():
    inside, go_on = threading.Event(), threading.Event()

    def most() -> int:
        if threading.current_thread() is not threading.main_thread():
            inside.set()
            go_on.wait(PATIENCE)
        return 8

    coalescer = Coalescer(most)
    coalescer.join("key", "under way")
    builder, _, _ = coalescer.join("key", "gathering")
    assert not builder.ready.done()
    holding = threading.Thread(target=coalescer.join, args=("key", "holds the lock"))
    holding.start()
    assert inside.wait(PATIENCE)
    child = os.fork()
    if not child:
        signal.alarm(20)  # whoever waits for the parent's lock waits for ever
        group, _, leads = coalescer.join("key", "in the child")
        os._exit(0 if leads and group.ready.done() and group is not builder else 1)
    go_on.set()
    holding.join(PATIENCE)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
