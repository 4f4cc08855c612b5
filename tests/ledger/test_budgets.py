"""Budgets: reserved before a request, settled after it, never more than the limit, whoever asks and however many at once."""

import asyncio
import contextvars
import dataclasses
import datetime as dt
import enum
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from blockbuster import blockbuster_ctx

from hf_gateway import Gateway, Target, errors, telemetry
from hf_gateway.errors import BudgetExceeded, BudgetUnavailable
from hf_gateway.ledger import budget_watch
from hf_gateway.ledger.budget import LEASE_S, Budget
from hf_gateway.ledger.budget_watch import BudgetWatcher
from hf_gateway.ledger.prices import Price, PriceEntry
from hf_gateway.observing import observer
from tests.servers.loopback import Loopback, Reply
from tests.servers.openai import FakeOpenAI
from tests.servers.router import FakeRouter
from tests.support.databases import a_ledger
from tests.support.late import COLLECTED
from tests.support.ledgers import ctrl_c

if COLLECTED:
    import prometheus_client
    import sqlalchemy as sa

    from hf_gateway.ledger import budgets, models, store
    from hf_gateway.ledger.budgets import budget_statuses


MODEL = "org/model"
TEXT = "abcd"  # with what stands around a message 20 tokens at most, which is what `Exact` says it was
A_CALL = Decimal("0.00000370371")
PER_MILLION = Decimal("0.123457")
CHAT = "/v1/chat/completions"
NOON = dt.datetime(2026, 1, 31, 12, tzinfo=dt.UTC).timestamp()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with a_ledger(request.param, tmp_path) as made:
        yield made


@pytest.fixture
def one_url(tmp_path: Path) -> Iterator[str]:
    """For what is the same in every database."""
    with a_ledger("sqlite", tmp_path) as made:
        yield made


class Office:
    """A ledger with budgets in it, and watchers of this process."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.engine = store.open_engine(url)
        self.watchers: list[BudgetWatcher] = []

    def set(self, tenant: str, limit: Decimal | str, period: Any = "day", on_unknown: Any = "refuse") -> None:
        budgets.set_budget(self.engine, Budget(tenant, period, Decimal(limit), on_unknown))

    def price(self, target: str, price: Decimal | str = PER_MILLION, model: str = "*") -> None:
        for task in ("feature-extraction", "text-generation"):
            models.set_entry(self.engine, PriceEntry(model, task, target, Price(Decimal(price), Decimal(price))))

    def watch(self, **options: Any) -> BudgetWatcher:
        watcher = BudgetWatcher(self.url, **options)
        self.watchers.append(watcher)
        assert watcher.sync()
        return watcher

    def spent(self, tenant: str, period: str = "day", now: float | None = None) -> tuple[Decimal, Decimal]:
        """What is spent, and what is reserved."""
        for watcher in self.watchers:
            assert watcher.sync()
        found = budget_statuses(self.engine, time.time() if now is None else now)
        (standing,) = [each for each in found if (each.budget.tenant, each.budget.period) == (tenant, period)]
        return standing.spent, standing.reserved

    def close(self) -> None:
        for watcher in self.watchers:
            watcher.close()
        self.engine.dispose()


@pytest.fixture
def office(url: str) -> Iterator[Office]:
    made = Office(url)
    yield made
    made.close()


@pytest.fixture
def one_office(one_url: str) -> Iterator[Office]:
    made = Office(one_url)
    yield made
    made.close()


class Exact(FakeOpenAI):
    """A server whose answers take as many tokens as a request for 10 may take at most, so that every digit is known before."""

    def __init__(self) -> None:
        super().__init__(models=None)

    def handle(self, request: Any) -> Any:
        if request.path != CHAT:
            return super().handle(request)
        message = {"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}
        return Reply(200, {"choices": [message], "usage": {"prompt_tokens": 20, "completion_tokens": 10}})


@pytest.fixture
def server() -> Iterator[Exact]:
    with Exact() as made:
        yield made


def gateway(server: Loopback, **settings: Any) -> Gateway:
    return Gateway(MODEL, [f"openai:{server.url}"], task="chat", **{"max_tokens": 10, **settings})


def embedder(server: Loopback, **settings: Any) -> Gateway:
    return Gateway(MODEL, [f"openai:{server.url}"], **{"coalesce": 0, **settings})


def until_refused(call: Callable[[], object]) -> tuple[int, BudgetExceeded]:
    done = 0
    while True:
        try:
            call()
        except BudgetExceeded as error:
            return done, error
        done += 1


# Many at once


def test_64_threads_use_a_budget_up_and_never_exceed_it(office: Office, server: Exact) -> None:
    office.price(f"openai:{server.url}")
    office.set("acme", A_CALL * 200)
    office.set("acme", A_CALL * 1000, "month")
    office.watch()
    counts: list[int] = []

    def work() -> None:
        with observer.tagged(tenant="acme"):
            counts.append(until_refused(lambda: shared.chat(TEXT))[0])

    with gateway(server) as shared:
        threads = [threading.Thread(target=work) for _ in range(64)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sum(counts) == server.count(CHAT) == 200
    assert office.spent("acme") == (A_CALL * 200, 0)
    assert office.spent("acme", "month") == (A_CALL * 200, 0)


def test_64_threads_whose_answers_are_shorter_than_they_may_be_use_it_up_too(
    one_office: Office, primary: FakeOpenAI
) -> None:
    one_office.price(f"openai:{primary.url}")
    limit = A_CALL * 150
    one_office.set("acme", limit)
    one_office.watch()
    chat = Gateway(MODEL, [f"openai:{primary.url}"], task="chat", max_tokens=50)

    def work() -> None:
        with observer.tagged(tenant="acme"):
            until_refused(lambda: chat.chat(TEXT))

    threads = [threading.Thread(target=work) for _ in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Some were refused while others might yet have spent it; alone, one gets all that is left.
    with observer.tagged(tenant="acme"):
        _, refusal = until_refused(lambda: chat.chat(TEXT))
    spent, _ = one_office.spent("acme")
    assert refusal.needed is not None
    assert limit - refusal.needed < spent <= limit


async def test_64_tasks_use_it_up_and_their_event_loop_never_waits(office: Office, server: Exact) -> None:
    office.price(f"openai:{server.url}")
    office.set("acme", A_CALL * 200)
    office.watch()
    shared = gateway(server)

    async def work() -> int:
        done = 0
        with observer.tagged(tenant="acme"):
            while True:
                try:
                    await shared.achat(TEXT)
                except BudgetExceeded:
                    return done
                done += 1

    with blockbuster_ctx():
        counts = await asyncio.gather(*(work() for _ in range(64)))
    await shared.aclose()
    assert sum(counts) == server.count(CHAT) == 200
    assert (await asyncio.to_thread(office.spent, "acme")) == (A_CALL * 200, 0)


CHILD = """
import json, sys, threading
from hf_gateway import Gateway, observe
from hf_gateway.errors import BudgetExceeded
from hf_gateway.ledger import budget_watch

ledger, server, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
watcher = budget_watch.enable(ledger)
assert watcher.sync()
gateway = Gateway("org/model", ["openai:" + server], task="chat", max_tokens=10)
done, failures = [], []

def work():
    with observe.tagged(tenant="acme"):
        while True:
            try:
                gateway.chat("abcd")
            except BudgetExceeded:
                break
            except Exception as error:
                failures.append(repr(error))
                break
            done.append(1)

print("ready", flush=True)
sys.stdin.readline()
all = [threading.Thread(target=work) for _ in range(threads)]
[each.start() for each in all]
[each.join() for each in all]
print(json.dumps([len(done), failures]), flush=True)
"""


def child(script: str, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_several_processes_with_16_threads_each_use_it_up_and_never_exceed_it(office: Office, server: Exact) -> None:
    office.price(f"openai:{server.url}")
    office.set("acme", A_CALL * 300)
    children = [child(CHILD, office.url, server.url, "16") for _ in range(4)]
    for each in children:
        assert each.stdout is not None
        assert each.stdout.readline() == "ready\n"
    for each in children:
        assert each.stdin is not None
        each.stdin.write("go\n")
        each.stdin.flush()
    told = [json.loads(each.communicate(timeout=120)[0]) for each in children]
    assert [failures for _, failures in told] == [[]] * 4
    assert [each.returncode for each in children] == [0] * 4
    assert sum(count for count, _ in told) == server.count(CHAT) == 300
    # What they had leased they gave back when they ended.
    assert office.spent("acme") == (A_CALL * 300, 0)


# Before and after


def test_over_budget_is_said_before_any_request(one_office: Office, server: Exact) -> None:
    label = f"openai:{server.url}"
    one_office.price(label, "100")
    one_office.set("acme", "0.01")
    one_office.watch(now=lambda: NOON)
    with gateway(server) as gate, observer.tagged(tenant="acme"):
        for _ in range(3):
            gate.chat(TEXT)
        sent = server.count()
        with pytest.raises(BudgetExceeded) as refused:
            gate.chat(TEXT)
    assert server.count() == sent == 3
    error = refused.value
    assert (error.tenant, error.period) == ("acme", "day")
    assert (error.limit, error.spent, error.reserved, error.needed) == tuple(
        map(Decimal, ("0.01", "0.009", "0", "0.003"))
    )
    assert error.resets == dt.datetime(2026, 2, 1, tzinfo=dt.UTC)
    assert str(error) == (
        "the budget of tenant 'acme' for the day is $0.01: $0.009 of it is spent, $0.00 is reserved by running requests, and "
        "this one may cost $0.003; nothing was sent. The next day begins at 2026-02-01 00:00 UTC"
    )
    assert isinstance(error, errors.Unavailable)
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.limit, str(again)) == (BudgetExceeded, error.limit, str(error))


def test_what_is_under_way_is_reserved(one_office: Office) -> None:
    arrived, go_on = threading.Event(), threading.Event()

    class Slow(Exact):
        def handle(self, request: Any) -> Any:
            arrived.set()
            go_on.wait(30)
            return super().handle(request)

    with Slow() as server:
        one_office.price(f"openai:{server.url}", "100")
        one_office.set("acme", "0.005")
        one_office.watch()
        with gateway(server) as gate, observer.tagged(tenant="acme"):
            context = contextvars.copy_context()
            first = threading.Thread(target=context.run, args=(gate.chat, TEXT))
            first.start()
            assert arrived.wait(30)
            with pytest.raises(BudgetExceeded, match=r"\$0\.00 of it is spent, \$0\.003 is reserved"):
                gate.chat(TEXT)
            assert one_office.spent("acme") == (0, Decimal("0.003"))
            go_on.set()
            first.join()
    assert one_office.spent("acme")[0] == Decimal("0.003")


def test_a_request_that_was_refused_by_the_server_costs_nothing(one_office: Office, server: Exact) -> None:
    one_office.price(f"openai:{server.url}", "100")
    one_office.set("acme", "0.005")
    one_office.watch()
    server.always(Reply(400, {"error": {"message": "no"}}))
    with gateway(server) as gate, observer.tagged(tenant="acme"):
        for _ in range(5):
            with pytest.raises(errors.InvalidRequest):
                gate.chat(TEXT)
    assert one_office.spent("acme")[0] == 0


def test_what_nobody_counted_is_charged_as_it_was_reserved(one_office: Office, server: Exact) -> None:
    one_office.price(f"openai:{server.url}", "100")
    one_office.set("acme", "1")
    one_office.watch()
    server.always(Reply(200, "<html>"))  # which may have been computed, and billed
    with gateway(server) as gate, observer.tagged(tenant="acme"), pytest.raises(errors.BadResponse):
        gate.chat(TEXT)
    assert one_office.spent("acme")[0] == Decimal("0.003")


def test_a_fallback_is_charged_once(one_office: Office) -> None:
    with Exact() as first, Exact() as second:
        targets = [f"openai:{first.url}", f"openai:{second.url}"]
        one_office.price(targets[0], "100")
        one_office.price(targets[1], "200")
        one_office.set("acme", "1")
        one_office.watch()
        first.always(Reply(500, {"error": {"message": "no"}}))
        gate = Gateway(MODEL, targets, task="chat", max_tokens=10, streaming=False)
        with gate, observer.tagged(tenant="acme"):
            assert gate.chat(TEXT).served_by == targets[1]
    assert one_office.spent("acme")[0] == Decimal("0.006")


def test_calls_that_share_a_request_are_charged_for_it_once(one_office: Office, server: Exact) -> None:
    one_office.price(f"openai:{server.url}", "100")
    one_office.set("acme", "100")
    one_office.watch()

    def work(place: int) -> None:
        with observer.tagged(tenant="acme"):
            gate.embed([f"text number {place}"])

    with embedder(server, coalesce=0.05) as gate:
        threads = [threading.Thread(target=work, args=(place,)) for place in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    tokens = 16 * 5  # three words, and two marks
    assert server.count() < 16
    assert one_office.spent("acme")[0] == Decimal("0.0001") * tokens


def test_what_comes_from_the_cache_is_not_charged(one_office: Office, server: Exact, tmp_path: Path) -> None:
    one_office.price(f"openai:{server.url}", "100")
    one_office.set("acme", "100")
    one_office.watch()
    with embedder(server, cache=str(tmp_path / "cache")) as gate, observer.tagged(tenant="acme"):
        gate.embed(["word"])
        gate.embed(["word"])
    assert one_office.spent("acme")[0] == Decimal("0.0003")


def test_the_texts_that_check_a_target_are_reserved_and_charged_too(one_office: Office, server: Exact) -> None:
    one_office.price(f"openai:{server.url}", "1000")
    limit = Decimal("9.6")  # enough for one request and the texts that may check its target, and not for two
    one_office.set("acme", limit)
    one_office.watch()
    with embedder(server, check_space=True) as gate, observer.tagged(tenant="acme"):
        gate.embed(["word"])
        spent, _ = one_office.spent("acme")
        assert Decimal("0.003") < spent < limit
        refusal = until_refused(lambda: gate.embed(["word"]))[1]
    spent, _ = one_office.spent("acme")
    assert refusal.needed is not None
    assert limit - refusal.needed < spent <= limit


# Whose, and until when


def test_a_budget_is_its_tenants_alone_and_that_of_everybody_is_shared(one_office: Office, server: Exact) -> None:
    one_office.price(f"openai:{server.url}", "100")
    one_office.set("acme", "0.003")
    one_office.set("*", "0.009", "month")
    one_office.watch()
    with gateway(server) as gate:
        with observer.tagged(tenant="acme"):
            gate.chat(TEXT)
            with pytest.raises(BudgetExceeded, match="the budget of tenant 'acme' for the day"):
                gate.chat(TEXT)
        with observer.tagged(tenant="other"):
            gate.chat(TEXT)
        gate.chat(TEXT)  # of nobody's
        for tenant in ("other", None):
            with (
                observer.tagged(tenant=tenant),
                pytest.raises(BudgetExceeded, match="the budget of all calls for the month"),
            ):
                gate.chat(TEXT)
    assert one_office.spent("*", "month")[0] == Decimal("0.009")
    assert one_office.spent("acme")[0] == Decimal("0.003")


def test_a_budget_of_a_key_narrows_that_of_its_tenant(one_office: Office, server: Exact) -> None:
    one_office.price(f"openai:{server.url}", "100")
    one_office.set("acme", "0.006")
    one_office.set("key:abcdefghijkm", "0.003")
    one_office.watch()
    with gateway(server) as gate:
        with observer.tagged(tenant="acme", key="abcdefghijkm"):
            gate.chat(TEXT)
            with pytest.raises(BudgetExceeded, match="the budget of the key 'abcdefghijkm' for the day"):
                gate.chat(TEXT)
        with observer.tagged(tenant="acme", key="another"):
            gate.chat(TEXT)
            with pytest.raises(BudgetExceeded, match="the budget of tenant 'acme' for the day"):
                gate.chat(TEXT)
    assert one_office.spent("acme")[0] == Decimal("0.006")
    assert one_office.spent("key:abcdefghijkm")[0] == Decimal("0.003")


@pytest.mark.parametrize(
    ("period", "wait"), [("day", 12 * 3600), ("month", 12 * 3600)], ids=["a day begins", "a month begins"]
)
def test_a_budget_begins_anew_when(one_office: Office, server: Exact, period: Any, wait: float) -> None:
    now = [NOON]
    one_office.price(f"openai:{server.url}", "100")
    one_office.set("acme", "0.003", period)
    one_office.watch(now=lambda: now[0])
    with gateway(server) as gate, observer.tagged(tenant="acme"):
        gate.chat(TEXT)
        now[0] += wait - 1
        with pytest.raises(BudgetExceeded):
            gate.chat(TEXT)
        now[0] += 1
        gate.chat(TEXT)
        with pytest.raises(BudgetExceeded):
            gate.chat(TEXT)
    assert one_office.spent("acme", period, NOON) == (Decimal("0.003"), 0)
    assert one_office.spent("acme", period, now[0]) == (Decimal("0.003"), 0)


def test_a_request_is_charged_to_the_period_in_which_it_began(one_office: Office) -> None:
    now = [NOON]

    class OverMidnight(Exact):
        def handle(self, request: Any) -> Any:
            now[0] = NOON + 13 * 3600
            return super().handle(request)

    with OverMidnight() as server:
        one_office.price(f"openai:{server.url}", "100")
        one_office.set("acme", "0.003")
        one_office.watch(now=lambda: now[0])
        with gateway(server) as gate, observer.tagged(tenant="acme"):
            gate.chat(TEXT)
            gate.chat(TEXT)
    assert one_office.spent("acme", now=NOON) == (Decimal("0.003"), 0)
    assert one_office.spent("acme", now=now[0])[0] == Decimal("0.003")


# Processes that die, sleep, or copy themselves


DIES = """
import sys
from hf_gateway import Gateway, observe
from hf_gateway.ledger import budget_watch

watcher = budget_watch.enable(sys.argv[1])
assert watcher.sync()
with observe.tagged(tenant="acme"):
    Gateway("org/model", ["openai:" + sys.argv[2]], task="chat", max_tokens=10).chat("abcd")
"""


def test_what_a_killed_process_had_reserved_counts_as_spent(office: Office) -> None:
    arrived, dead = threading.Event(), threading.Event()

    class Slow(Exact):
        def handle(self, request: Any) -> Any:
            if not arrived.is_set():
                arrived.set()
                dead.wait(60)
            return super().handle(request)

    now = [time.time()]
    with Slow() as server:
        office.price(f"openai:{server.url}", "100")
        office.set("acme", "0.003", "month")
        process = child(DIES, office.url, server.url)
        assert arrived.wait(60)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        dead.set()
        office.watch(now=lambda: now[0])
        with gateway(server) as gate, observer.tagged(tenant="acme"):
            with pytest.raises(BudgetExceeded, match=r"\$0\.003 is reserved"):
                gate.chat(TEXT)
            now[0] = time.time() + LEASE_S + 5
            with pytest.raises(BudgetExceeded, match=r"\$0\.003 of it is spent"):
                gate.chat(TEXT)
    assert office.spent("acme", "month", now[0]) == (Decimal("0.003"), 0)


def test_a_process_that_slept_does_not_spend_what_others_were_given_meanwhile(
    one_office: Office, server: Exact
) -> None:
    now, monotonic = [NOON], [0.0]
    one_office.price(f"openai:{server.url}", "100")
    one_office.set("acme", "0.030")
    sleeper = one_office.watch(now=lambda: now[0], monotonic=lambda: monotonic[0])
    with gateway(server) as gate, observer.tagged(tenant="acme"):
        gate.chat(TEXT)
        gate.chat(TEXT)
        # What is spent is written, and something is leased for the next one.
        assert one_office.spent("acme", now=NOON) == (Decimal("0.006"), Decimal("0.003"))
        trade, awake = sleeper._trade, threading.Event()
        sleeper._trade = lambda key, **amounts: (awake.wait(60), trade(key, **amounts))[1]  # type: ignore[method-assign]
        observer.unregister(sleeper)
        later = NOON + LEASE_S + 5
        other = BudgetWatcher(one_office.url, now=lambda: later)
        try:
            assert other.sync()
            done, _ = until_refused(lambda: gate.chat(TEXT))
        finally:
            other.close()
        assert done == 7
        now[0], monotonic[0] = later, LEASE_S + 5
        awake.set()
        observer.register(sleeper)
        gate.chat(TEXT)  # what was counted as spent, in case it had died
        with pytest.raises(BudgetExceeded):
            gate.chat(TEXT)
    assert one_office.spent("acme", now=later) == (Decimal("0.030"), 0)


def test_a_copy_of_a_process_has_no_part_in_what_it_had_leased(one_office: Office, server: Exact) -> None:
    one_office.price(f"openai:{server.url}", "100")
    one_office.set("acme", "0.030")
    one_office.watch()
    with gateway(server) as gate, observer.tagged(tenant="acme"):
        gate.chat(TEXT)
        read, write = os.pipe()
        if (process := os.fork()) == 0:
            code = 1
            try:
                mine = gateway(server)
                os.write(write, b"%d" % until_refused(lambda: mine.chat(TEXT))[0])
                for watcher in one_office.watchers:
                    watcher.close()
                code = 0
            finally:
                os._exit(code)
        assert os.waitpid(process, 0)[1] == 0
        in_the_copy = int(os.read(read, 100))
        done, _ = until_refused(lambda: gate.chat(TEXT))
    os.close(read)
    os.close(write)
    assert 1 + in_the_copy + done == 10 == server.count()
    assert one_office.spent("acme") == (Decimal("0.030"), 0)


# Servers that say anything, and callers that ask for anything


def says(server: Loopback, **usage: Any) -> None:
    message = {"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}
    server.always(Reply(200, {"choices": [message], "usage": usage}))


@pytest.mark.parametrize("count", [2**62, 2**64 - 1, 10**25], ids=["in 64 bits", "beyond", "beyond all numbers"])
def test_a_count_that_cannot_be_is_charged_as_it_was_reserved_and_stops_nobody(
    office: Office, server: Exact, count: int
) -> None:
    office.price(f"openai:{server.url}", "100")
    office.set("*", "1")
    office.watch()
    with gateway(server) as gate:
        says(server, prompt_tokens=20, completion_tokens=count)
        gate.chat(TEXT)
        assert office.spent("*")[0] == Decimal("0.003")
        says(server, prompt_tokens=20, completion_tokens=10)
        with observer.tagged(tenant="another"):
            gate.chat(TEXT)
    assert office.spent("*")[0] == Decimal("0.006")


def test_what_is_spent_beyond_what_a_database_holds_is_written_as_the_most_that_it_holds(office: Office) -> None:
    office.set("acme", "1")
    key, _, _ = Budget("acme", "day", Decimal(1)).at(NOON)
    for _ in range(2):
        came = budgets.exchange_lease(
            office.engine, uuid.uuid4(), key, spent=2**64, leased=0, keep=0, claim=lambda left: left, now=NOON
        )
        assert came.granted == 0
    assert office.spent("acme", now=NOON) == (9_000_000, 0)


def test_cached_input_beyond_the_input_pays_nothing_back(one_office: Office, server: Exact) -> None:
    price = Price(Decimal(100), Decimal(100), Decimal(10))
    models.set_entry(one_office.engine, PriceEntry("*", "text-generation", f"openai:{server.url}", price))
    one_office.set("acme", "1")
    one_office.watch()
    cached = {"cached_tokens": 100_000}
    says(server, prompt_tokens=10, completion_tokens=10, prompt_tokens_details=cached)
    with gateway(server) as gate, observer.tagged(tenant="acme"):
        gate.chat(TEXT)
    assert one_office.spent("acme")[0] == Decimal("0.0011")


def test_what_the_provider_takes_by_its_own_word_is_charged(one_office: Office, server: Exact) -> None:
    one_office.price(f"openai:{server.url}", "100")
    one_office.set("acme", "1")
    one_office.watch()
    says(server, prompt_tokens=20, completion_tokens=10, cost=0.0000125)
    with gateway(server) as gate, observer.tagged(tenant="acme"):
        gate.chat(TEXT)
    assert one_office.spent("acme")[0] == Decimal("0.0000125")


@pytest.mark.parametrize("limit", [-1, -(10**6), 0, True, None, float("nan")], ids=str)
def test_a_limit_that_limits_nothing_reserves_as_much_as_none(one_office: Office, server: Exact, limit: Any) -> None:
    one_office.price(f"openai:{server.url}", "100")
    one_office.set("acme", "0.1")
    one_office.watch()
    with (
        gateway(server, max_tokens=None) as gate,
        observer.tagged(tenant="acme"),
        pytest.raises(BudgetExceeded) as refused,
    ):
        gate.chat(TEXT, extra_body={"max_tokens": limit})
    assert refused.value.needed == Decimal("0.0001") * (20 + 4096)
    assert server.count() == 0


@pytest.mark.parametrize(
    ("asked", "tokens"),
    [
        ({"max_tokens": 100.0}, 100),
        ({"max_tokens": 100, "max_completion_tokens": -1}, 100),
        ({"max_tokens": 100, "n": 3}, 300),
        ({"max_tokens": 100, "n": -3}, 100),
        ({"max_tokens": 10**60}, 10**12),
    ],
    ids=str,
)
def test_what_is_asked_for_is_reserved(one_office: Office, server: Exact, asked: dict[str, Any], tokens: int) -> None:
    one_office.price(f"openai:{server.url}", "100")
    one_office.set("acme", "0.001")
    one_office.watch()
    with (
        gateway(server, max_tokens=None) as gate,
        observer.tagged(tenant="acme"),
        pytest.raises(BudgetExceeded) as refused,
    ):
        gate.chat(TEXT, extra_body=asked)
    assert refused.value.needed == Decimal("0.0001") * (20 + tokens)
    assert server.count() == 0


class Customer(enum.StrEnum):
    ACME = "42"


class OldCustomer(str, enum.Enum):  # noqa: UP042 - as older programs have them
    ACME = "42"


@pytest.mark.parametrize("tenant", ["42", 42, Customer.ACME, OldCustomer.ACME], ids=repr)
def test_a_tenant_by_any_type_is_the_one_of_that_name(one_office: Office, server: Exact, tenant: object) -> None:
    one_office.price(f"openai:{server.url}", "100")
    one_office.set("42", "0.003")
    one_office.watch()
    with gateway(server) as gate, observer.tagged(tenant=tenant) as tags:
        assert type(tags.tenant) is str
        gate.chat(TEXT)
        with pytest.raises(BudgetExceeded, match="the budget of tenant '42'"):
            gate.chat(TEXT)


# Interrupted, or refused, beside others that watch


class Told:
    """What a watcher hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str]] = []

    def begin(self, observation: observer.Observation) -> None:
        self.heard.append(("begin", ""))

    def end(self, observation: observer.Observation) -> None:
        self.heard.append(("end", observation.outcome))


@pytest.fixture
def told() -> Iterator[Told]:
    made = Told()
    yield made
    observer.unregister(made)


def test_ctrl_c_while_a_call_begins_gives_back_what_was_reserved(one_office: Office, server: Exact) -> None:
    one_office.price(f"openai:{server.url}", "100")
    one_office.set("acme", "0.003")
    one_office.watch()
    with gateway(server) as gate, observer.tagged(tenant="acme"):
        with ctrl_c(), pytest.raises(KeyboardInterrupt):
            gate.chat(TEXT)
        gate.chat(TEXT)
    assert one_office.spent("acme")[0] == Decimal("0.003")


INTERRUPTED = """
import json, signal, sys, threading
from hf_gateway import Gateway
from hf_gateway.ledger import budgets
from hf_gateway.ledger.budget_watch import BudgetWatcher
from hf_gateway.observing import observer

ledger, server, model, text = sys.argv[1:]
begun, interrupted, exchange, heard = threading.Event(), threading.Event(), budgets.exchange_lease, []

class Told:
    def begin(self, observation):
        heard.append("begin")
        begun.set()
    def end(self, observation):
        heard.append(observation.outcome)

def slow(*arguments, **amounts):
    budgets.exchange_lease = exchange
    assert begun.wait(30)
    # Again and again: one that comes just before the main thread begins to wait would be seen only when it has waited.
    while not interrupted.wait(0.05):
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    return exchange(*arguments, **amounts)

def interrupt_once(*_):
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # another one may be on its way already
    raise KeyboardInterrupt

signal.signal(signal.SIGINT, interrupt_once)
observer.register(Told())
watcher = BudgetWatcher(ledger)
assert watcher.sync()
budgets.exchange_lease = slow
with Gateway(model, [f"openai:{server}"], task="chat", max_tokens=10) as gateway, observer.tagged(tenant="acme"):
    try:
        gateway.chat(text)
    except KeyboardInterrupt:
        heard.append("interrupted")
    finally:
        interrupted.set()
    gateway.chat(text)
watcher.close()
print(json.dumps(heard))
"""


def test_ctrl_c_while_a_call_waits_to_be_admitted_ends_it_for_everybody(one_office: Office, server: Exact) -> None:
    one_office.price(f"openai:{server.url}", "100")
    one_office.set("acme", "0.003")
    # In a process of its own, since a signal that comes a moment later than meant would end this one.
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, one_office.url, server.url, MODEL, TEXT],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["begin", "cancelled", "interrupted", "begin", "ok"]
    assert server.count() == 1
    assert one_office.spent("acme")[0] == Decimal("0.003")


async def test_a_task_that_is_cancelled_while_it_waits_to_be_admitted_ends_for_everybody(
    one_office: Office, server: Exact, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_office.price(f"openai:{server.url}", "100")
    one_office.set("acme", "0.003")
    await asyncio.to_thread(one_office.watch)
    observer.register(told)
    asked, cancelled, exchange = threading.Event(), threading.Event(), budgets.exchange_lease

    def slow(*arguments: Any, **amounts: Any) -> Any:
        monkeypatch.undo()
        asked.set()
        assert cancelled.wait(30)
        return exchange(*arguments, **amounts)

    monkeypatch.setattr(budgets, "exchange_lease", slow)
    gate = gateway(server)
    with observer.tagged(tenant="acme"):
        waiting = asyncio.create_task(gate.achat(TEXT))
        assert await asyncio.to_thread(asked.wait, 30)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        cancelled.set()
        assert told.heard == [("begin", ""), ("end", "cancelled")]
        await gate.achat(TEXT)
    await gate.aclose()
    assert server.count() == 1
    assert (await asyncio.to_thread(one_office.spent, "acme"))[0] == Decimal("0.003")


@pytest.mark.parametrize("order", ["before", "after"])
def test_a_refusal_is_told_to_those_who_watch_before_and_after_the_budgets(
    one_office: Office, server: Exact, told: Told, order: str
) -> None:
    one_office.price(f"openai:{server.url}", "100")
    one_office.set("acme", "0")
    registry = prometheus_client.CollectorRegistry()
    if order == "before":
        observer.register(told)
        telemetry.enable_prometheus(registry)
    one_office.watch()
    if order == "after":
        telemetry.enable_prometheus(registry)
        observer.register(told)
    try:
        with gateway(server) as gate, observer.tagged(tenant="acme"), pytest.raises(BudgetExceeded):
            gate.chat(TEXT)
        assert told.heard == [("begin", ""), ("end", "failed")]
        assert registry.get_sample_value("cmp_hf_inference_errors_total", {"code": "BudgetExceeded"}) == 1
        assert registry.get_sample_value("hf_gateway_calls_under_way", {"task": "chat"}) == 0
    finally:
        telemetry.disable()


# What is not known


@pytest.mark.parametrize("first", ["priced", "unpriced"])
def test_an_unpriced_target_that_is_allowed_does_not_open_a_priced_one(one_office: Office, first: str) -> None:
    with Exact() as priced, FakeRouter() as router:
        one_office.price(f"openai:{priced.url}", "100")
        one_office.set("acme", "0.007", on_unknown="allow")
        one_office.watch()
        unpriced = Target("hf", url=router.url, credential="hf_test", model="google/gemma-2-2b-it")
        targets: list[Target | str] = [f"openai:{priced.url}", unpriced]
        gate = Gateway(MODEL, targets if first == "priced" else targets[::-1], task="chat", max_tokens=10)
        with gate, observer.tagged(tenant="acme"):
            if first == "priced":
                done, refusal = until_refused(lambda: gate.chat(TEXT))
                assert (done, priced.count(CHAT)) == (2, 2)
                assert refusal.needed == Decimal("0.003")
                assert one_office.spent("acme")[0] == Decimal("0.006")
            else:
                for _ in range(5):
                    gate.chat(TEXT)
                # Nobody knows what those cost, which the budget allows.
                assert (one_office.spent("acme")[0], priced.count(CHAT)) == (0, 0)
            one_office.set("acme", "0", on_unknown="allow")
            assert one_office.watchers[0].sync()
            asked = router.count(CHAT)
            with pytest.raises(BudgetExceeded):
                gate.chat(TEXT)
            assert router.count(CHAT) == asked


def novita(router: FakeRouter) -> Target:
    model = "meta-llama/Llama-3.1-8B-Instruct"
    return Target("hf", model=model, provider="novita", url=router.url, credential="hf_test")


def test_a_price_that_nobody_knows_is_refused_with_the_ways_out(one_office: Office) -> None:
    with FakeRouter() as router:
        one_office.set("acme", "1")
        one_office.watch()
        target = Target("hf", url=router.url, credential="hf_test", model="org/unlisted")
        with observer.tagged(tenant="acme"), pytest.raises(BudgetExceeded, match="is unknown") as refused:
            Gateway(targets=[target], task="chat").chat("hi")
        for way in ("hf-gateway models refresh", "hf:<provider>", "hf-gateway models add", "--on-unknown allow"):
            assert way in str(refused.value)
        assert refused.value.needed is None
        assert router.count("/v1/chat/completions") == 0


def test_a_price_that_nobody_knows_may_be_allowed(one_office: Office) -> None:
    with FakeRouter() as router:
        one_office.set("acme", "1", on_unknown="allow")
        one_office.watch()
        target = Target("hf", url=router.url, credential="hf_test", model="google/gemma-2-2b-it")
        with observer.tagged(tenant="acme"):
            Gateway(targets=[target], task="chat").chat("hi")
    assert one_office.spent("acme")[0] == 0


def test_the_first_call_waits_for_the_routers_prices(one_office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeRouter() as router:
        monkeypatch.setenv("HUGGINGFACE_BASE_URL", router.url)
        one_office.set("acme", "1")
        one_office.watch()
        with observer.tagged(tenant="acme"):
            used = Gateway(targets=[novita(router)], task="chat", max_tokens=9).chat("hi").usage
        assert router.count("/v1/models") == 1
    assert used.input_tokens is not None
    assert used.output_tokens is not None
    cost = (Decimal("0.02") * used.input_tokens + Decimal("0.04") * used.output_tokens) / 1_000_000
    assert one_office.spent("acme")[0] == cost > 0


def test_where_the_router_chooses_the_dearest_provider_is_reserved_for(one_office: Office) -> None:
    with FakeRouter() as router:
        models.refresh(one_office.engine, router.url)
        # nebius takes 0.15 for a million tokens of output, novita 0.04.
        one_office.set("acme", "0.0000149")
        one_office.watch()
        chosen = dataclasses.replace(novita(router), provider=None)
        with observer.tagged(tenant="acme"):
            with pytest.raises(BudgetExceeded) as refused:
                Gateway(targets=[chosen], task="chat", max_tokens=100).chat("hi")
            assert refused.value.needed == (100 * Decimal("0.15") + (2 + 16) * Decimal("0.05")) / 1_000_000
            Gateway(targets=[novita(router)], task="chat", max_tokens=100).chat("hi")


def test_what_costs_nothing_goes_on_where_a_budget_is_used_up(one_office: Office) -> None:
    one_office.set("acme", "0")
    one_office.watch()
    with observer.tagged(tenant="acme"):
        Gateway(targets=["hash"]).embed([TEXT])


# A database that is away


def test_a_budget_whose_database_went_away_lets_nothing_more_through(
    one_office: Office, server: Exact, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_office.price(f"openai:{server.url}", "100")
    one_office.set("acme", "1000")
    one_office.watch()
    with gateway(server) as gate, observer.tagged(tenant="acme"):
        gate.chat(TEXT)

        def away(*_: object, **__: object) -> None:
            raise sa.exc.OperationalError("SELECT 1", {}, Exception("the server has gone"))

        monkeypatch.setattr(budgets, "exchange_lease", away)
        # What was leased can still be used; no more than that.
        gone = pytest.raises(BudgetUnavailable, match="cannot be reached: the server has gone; nothing was sent")
        with gone:
            gate.chat("word " * 20_000)
        monkeypatch.undo()
        gate.chat(TEXT)


@pytest.mark.parametrize("strict", [True, False], ids=["require", "without it"])
def test_a_database_that_is_away_when_a_process_starts(
    server: Exact, strict: bool, caplog: pytest.LogCaptureFixture
) -> None:
    watcher = BudgetWatcher("postgresql+psycopg://nobody@127.0.0.1:1/none", strict=strict)
    watcher.start()
    try:
        with gateway(server) as gate:
            if strict:
                with pytest.raises(BudgetUnavailable, match="cannot be reached"):
                    gate.chat(TEXT)
                assert server.count() == 0
            else:
                gate.chat(TEXT)
                assert "budgets are not enforced until they can be read (HF_GATEWAY_BUDGETS=require" in caplog.text
    finally:
        watcher.close()


# Off


def test_without_a_budget_nothing_is_watched_and_one_that_is_set_is_heard_of(one_office: Office, server: Exact) -> None:
    watcher = one_office.watch()
    assert watcher not in observer.watchers
    one_office.price(f"openai:{server.url}", "100")
    one_office.set("acme", "0")
    assert watcher.sync()
    assert watcher in observer.watchers
    with gateway(server) as gate, observer.tagged(tenant="acme"):
        with pytest.raises(BudgetExceeded):
            gate.chat(TEXT)
        budgets.remove_budget(one_office.engine, "acme")
        assert watcher.sync()
        assert watcher not in observer.watchers
        gate.chat(TEXT)


def test_enable_and_disable(one_office: Office, server: Exact) -> None:
    one_office.price(f"openai:{server.url}", "100")
    one_office.set("acme", "0.003")
    watcher = budget_watch.enable(one_office.url)
    try:
        assert watcher in observer.watchers
        assert budget_watch.enable(one_office.url) is watcher
        assert watcher.sync()
        with gateway(server) as gate, observer.tagged(tenant="acme"):
            gate.chat(TEXT)
            with pytest.raises(BudgetExceeded):
                gate.chat(TEXT)
            budget_watch.disable()
            gate.chat(TEXT)
    finally:
        budget_watch.disable()
    assert watcher not in observer.watchers
    assert one_office.spent("acme")[0] == Decimal("0.003")


@pytest.mark.parametrize(
    "budget",
    [
        Budget("acme", "week", Decimal(1)),
        Budget("", "day", Decimal(1)),
        Budget("a", "day", Decimal(-1)),
        Budget("a", "day", Decimal(1), "maybe"),
    ],  # type: ignore[arg-type]
    ids=["unknown period", "no tenant", "less than 0", "no such answer"],
)
def test_what_is_no_budget_is_refused(one_office: Office, budget: Budget) -> None:
    with pytest.raises(errors.ConfigError):
        budgets.set_budget(one_office.engine, budget)
