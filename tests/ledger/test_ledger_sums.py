"""The sums of the ledger are what the servers counted, over 10,000 mixed calls with faults: requests, attempts, tokens, cost."""

import asyncio
import logging
import random
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path
from typing import Any

import pytest

from hf_gateway import Gateway
from hf_gateway.errors import GatewayError
from hf_gateway.ledger.prices import Price, PriceEntry
from hf_gateway.observing.observer import tagged
from hf_gateway.testing import ManualClock
from tests.servers.loopback import (
    Fault,
    Recorded,
    Reply,
    Stream,
    cut,
    cut_stream,
    disconnect,
    end_stream,
    error_in_stream,
    garbage,
)
from tests.servers.openai import FakeOpenAI
from tests.support.late import COLLECTED
from tests.support.ledgers import kept, lost, postgres, sqlite, url

if COLLECTED:
    import sqlalchemy as sa

    from hf_gateway.ledger import models, store
    from hf_gateway.ledger.tables import observations
    from hf_gateway.ledger.usage import UsageFilter, usage_report


__all__ = ["postgres", "sqlite", "url"]  # fixtures

CALLS = 10_000
TENANTS = ("acme", "globex", "initech", "nobody")
MODEL = "test/model"
PRICES = {
    # Prices of which every digit matters: USD per million tokens, in and out.
    "primary": Price(Decimal("0.123457"), Decimal("1.654321")),
    "backup": Price(Decimal("7.000001"), Decimal("0.999999")),
}
TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Look up a name",
        "parameters": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
    },
}


@dataclass
class Counts:
    """What one server counted: by tenant, of answers that went out whole; requests: all that came, by path."""

    answers: Counter[str] = field(default_factory=Counter)
    input: Counter[str] = field(default_factory=Counter)
    output: Counter[str] = field(default_factory=Counter)
    cost: dict[str, Decimal] = field(default_factory=lambda: dict.fromkeys(TENANTS, Decimal(0)))


class Counting(FakeOpenAI):
    """A server that answers some requests with faults, and keeps books of what it answered to whom, and what it takes for it.

    A text's first word is its tenant, since no header says so.
    """

    def __init__(self, price: Price, seed: int, **options: Any) -> None:
        self.price = price
        self.counts = Counts()
        self._random = random.Random(seed)
        self._counting = threading.Lock()
        self._here = threading.local()
        super().__init__(models=None, **options)

    def _next_fault(self, path: str) -> Fault | None:
        with self._counting:
            fault = self._drawn("chat" in path) if self._random.random() < 0.03 else None
        self._here.whole = fault is None
        return fault

    def _drawn(self, chat: bool) -> Fault:
        faults: list[Callable[[], Fault]] = [
            lambda: Reply(500, "broken"),
            lambda: Reply(503, "busy"),
            lambda: Reply(429, "slow down", {"retry-after": "0"}),
            lambda: Reply(401, "no"),
            disconnect,
            cut,
            garbage,
        ]
        if chat:
            faults += [lambda: cut_stream(1), lambda: cut_stream(4), lambda: end_stream(3), lambda: error_in_stream(3)]
        return self._random.choice(faults)()

    def handle(self, request: Recorded) -> Reply | Stream:
        answer = super().handle(request)
        if self._here.whole and answer.status == 200:
            self._count(request.json, answer)
        return answer

    def _count(self, body: dict[str, Any], answer: Reply | Stream) -> None:
        if "input" in body:
            assert isinstance(answer, Reply)
            tenants = {text.split()[0] for text in body["input"]}
            usage = answer.body["usage"]  # type: ignore[call-overload, index]
            taken, given = usage["prompt_tokens"], 0
        else:
            tenants = {body["messages"][-1]["content"].split()[0]}
            taken, given = self.brain(body).tokens(body)
        (tenant,) = tenants  # calls of different tenants never share a request
        assert self.price.input is not None
        assert self.price.output is not None
        cost = (self.price.input * taken + self.price.output * given) / 1_000_000
        with self._counting:
            self.counts.answers[tenant] += 1
            self.counts.input[tenant] += taken
            self.counts.output[tenant] += given
            self.counts.cost[tenant] += cost.quantize(Decimal("1e-12"), ROUND_HALF_EVEN)


class Ticking(ManualClock):
    """A clock on which pauses pass at once, and every call takes a while, so that breakers close again."""

    def now(self) -> float:
        self._now += 0.0002
        return self._now


@dataclass
class Made:
    """What callers saw."""

    calls: int = 0
    failed: int = 0
    texts: int = 0
    cached_texts: int = 0
    batches: int = 0  # of streams of texts
    lock: threading.Lock = field(default_factory=threading.Lock)

    def batch(self) -> None:
        with self.lock:
            self.batches += 1

    def one(self, texts: int = 0, cached: int = 0, *, failed: bool = False) -> None:
        with self.lock:
            self.calls += 1
            self.texts += texts
            self.failed += failed
            self.cached_texts += cached


class Mix:
    """Ten thousand calls, as different as they come."""

    def __init__(self, targets: list[str], folder: Path) -> None:
        self.made = Made()
        self.random = random.Random(7)
        clock = Ticking()
        # No server is slow here, and a machine that is must not look like one.
        patient = {"timeout": 9000.0, "attempt_timeout": 40.0, "connect_timeout": 100.0}
        common: dict[str, Any] = {"clock": clock, "max_retries": 1, **patient}
        self.embeds = Gateway(MODEL, targets, **common)
        self.streams = Gateway(MODEL, targets, **common)
        self.streams.observe(lambda _: self.made.batch())
        self.cached = Gateway(MODEL, targets, cache=folder / "cache.sqlite", **common)
        hearing = {"first_content_timeout": 8000.0, "stall_timeout": 8000.0}
        self.chats = Gateway(MODEL, targets, task="chat", **hearing, **common)

    def run(self) -> None:
        shares: list[tuple[Callable[[int], None], int]] = [
            (self.single, 3140),
            (self.batch, 900),
            (self.repeated, 1500),
            (self.chat, 900),
            (self.streamed, 700),
            (self.tools, 400),
        ]
        jobs = [(kind, number) for kind, count in shares for number in range(count)]
        self.random.shuffle(jobs)
        with asyncio.Runner() as loop, ThreadPoolExecutor(12) as threads:
            others = threads.submit(loop.run, self.tasks())
            streams = [threads.submit(self.stream_of_texts, number) for number in range(60)]
            for done in [*[threads.submit(kind, number) for kind, number in jobs], *streams, others]:
                done.result(120)
            # Not before everybody is served: this closes the connections of all of them.
            loop.run(self.close())

    async def tasks(self) -> None:
        """Make calls from an event loop: 2,000 single texts, 400 conversations, 240 of them streamed."""
        for start in range(0, 2000, 100):
            await asyncio.gather(*(self.asingle(number) for number in range(start, start + 100)))
            await asyncio.gather(*(self.achat(number) for number in range(start // 5, start // 5 + 8)))
            await asyncio.gather(*(self.astreamed(number) for number in range(start // 5, start // 5 + 12)))

    async def close(self) -> None:
        for gateway in (self.embeds, self.streams, self.cached, self.chats):
            await gateway.aclose()

    def tried(self, texts: int, call: Callable[[], Any]) -> None:
        try:
            result = call()
        except GatewayError:
            self.made.one(texts, failed=True)
        else:
            self.made.one(texts, getattr(result, "cached", 0))

    def single(self, number: int) -> None:
        with tagged(tenant=(who := TENANTS[number % 4])):
            self.tried(1, lambda: self.embeds.embed([f"{who} single text {number}"]))

    async def asingle(self, number: int) -> None:
        with tagged(tenant=(who := TENANTS[number % 4])):
            try:
                await self.embeds.aembed([f"{who} text {'of several words ' * (number % 5)}{number}"])
            except GatewayError:
                self.made.one(1, failed=True)
            else:
                self.made.one(1)

    def batch(self, number: int) -> None:
        with tagged(tenant=(who := TENANTS[number % 4])):
            texts = [f"{who} batch {number} {place % 6}" for place in range(2 + number % 20)]
            self.tried(len(texts), lambda: self.embeds.embed(texts))

    def repeated(self, number: int) -> None:
        """Ask for what was asked for before, so that the cache has most of it; each tenant in words of its own."""
        with tagged(tenant=(who := TENANTS[number % 4])):
            texts = [f"{who} repeated {(number // 4 + place) % 40}" for place in range(3)]
            self.tried(3, lambda: self.cached.embed(texts))

    def stream_of_texts(self, number: int) -> None:
        """Embed a stream of texts; each of its batches is a request of its own."""
        with tagged(tenant=(who := TENANTS[number % 4])):
            given = [f"{who} stream {number} {place}" for place in range(40)]
            list(self.streams.embed_stream(given))

    def chat(self, number: int) -> None:
        with tagged(tenant=(who := TENANTS[number % 4])):
            self.tried(0, lambda: self.chats.chat(f"{who} asks {'again ' * (number % 9)}{number}"))

    async def achat(self, number: int) -> None:
        with tagged(tenant=(who := TENANTS[number % 4])):
            try:
                await self.chats.achat(f"{who} asks from a loop {number}")
            except GatewayError:
                self.made.one(failed=True)
            else:
                self.made.one()

    def streamed(self, number: int) -> None:
        with tagged(tenant=(who := TENANTS[number % 4])):
            self.tried(0, lambda: list(self.chats.stream(f"{who} wants a stream {number}")))

    async def astreamed(self, number: int) -> None:
        with tagged(tenant=(who := TENANTS[number % 4])):
            try:
                async for _ in self.chats.astream(f"{who} wants a stream from a loop {number}"):
                    pass
            except GatewayError:
                self.made.one(failed=True)
            else:
                self.made.one()

    def tools(self, number: int) -> None:
        with tagged(tenant=(who := TENANTS[number % 4])):
            asked = f"{who} says: use look_up for Ada {number}"
            self.tried(0, lambda: self.chats.chat(asked, tools=[TOOL], tool_choice="required"))


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_the_ledgers_sums_are_what_the_servers_counted(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, "hf_gateway")  # every fallback is a warning
    where = request.getfixturevalue(kind)
    with Counting(PRICES["primary"], 1, max_inputs=12) as primary, Counting(PRICES["backup"], 2) as backup:
        servers = (primary, backup)
        with store.open_ledger(where) as engine:
            for server in servers:
                for task in ("feature-extraction", "text-generation"):
                    models.set_entry(engine, PriceEntry("*", task, f"openai:{server.url}", server.price))
        with kept(where) as book:
            mix = Mix([f"openai:{server.url}" for server in servers], tmp_path)
            mix.run()
            assert book.flush(60)
        compare(where, servers, mix.made)


def compare(where: str, servers: tuple[Counting, ...], made: Made) -> None:
    o = observations.c
    engine = store.open_engine(where, read_only=True)
    try:
        with engine.connect() as connection:

            def read(*columns: Any, **conditions: Any) -> list[Any]:
                query = sa.select(*columns).select_from(observations)
                for name, value in conditions.items():
                    query = query.where(o[name] == value)
                return list(connection.execute(query.group_by(*[c for c in columns if isinstance(c, sa.Column)])))

            assert lost(where) == {}
            for server in servers:
                target = f"openai:{server.url}"
                sent = sum(
                    row[1]
                    for row in read(o.status, sa.func.count(), target=target, kind="attempt")
                    if row[0] != "skipped"
                )
                assert sent == server.count()
                served = read(
                    o.tenant,
                    sa.func.count(),
                    sa.func.sum(o.input_tokens),
                    sa.func.sum(sa.func.coalesce(o.output_tokens, 0)),
                    sa.func.sum(o.cost_usd),
                    target=target,
                    kind="attempt",
                    status="ok",
                )
                assert {row[0]: tuple(row[1:]) for row in served} == {
                    who: (
                        server.counts.answers[who],
                        server.counts.input[who],
                        server.counts.output[who],
                        server.counts.cost[who],
                    )
                    for who in TENANTS
                }
            requests = sum(row[1] for row in read(o.kind, sa.func.count(), kind="request"))
            failed = sum(row[1] for row in read(o.kind, sa.func.count(), kind="request", status="failed"))
            texts = read(sa.func.sum(o.texts), kind="request")[0][0]
            assert requests >= CALLS
            assert failed == made.failed
            assert (made.calls, int(texts)) == (requests - made.batches, made.texts + 60 * 40)
            assert read(sa.func.sum(o.cached_texts), kind="request")[0][0] == made.cached_texts
            # A request's own row has the sum of its attempts, and is unknown where a part is.
            attempts = observations.alias()
            parts = (
                sa.select(
                    attempts.c.request,
                    sa.func.sum(attempts.c.cost_usd).label("cost"),
                    (sa.func.count() - sa.func.count(attempts.c.cost_usd)).label("unknown"),
                )
                .where(attempts.c.kind == "attempt")
                .group_by(attempts.c.request)
                .subquery()
            )
            both = sa.select(o.cost_usd, parts.c.cost, parts.c.unknown).join_from(
                observations, parts, parts.c.request == o.id
            )
            for cost, of_attempts, unknown in connection.execute(both):
                assert cost == (None if unknown else of_attempts)
        totals = usage_report(engine, "tenant", UsageFilter())
        total = usage_report(engine, "provider", UsageFilter()).total
    finally:
        engine.dispose()
    assert sum(each.cost for each in totals.groups.values()) == total.cost
    assert total.cost == sum(cost for server in servers for cost in server.counts.cost.values())
    assert total.input_tokens == sum(server.counts.input.total() for server in servers)
    assert total.output_tokens == sum(server.counts.output.total() for server in servers)
    assert total.attempts == sum(server.count() for server in servers)
