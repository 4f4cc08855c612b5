"""Limits and budgets that all workers keep together, by the count of the server."""

import itertools
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from hf_gateway.errors import BudgetExceeded, ConfigError
from hf_gateway.ledger.budget import Budget
from hf_gateway.ledger.prices import Price, PriceEntry
from tests.corpus.kills import ids_of
from tests.servers import tokens
from tests.servers.loopback import Exchange, Normal, Recorded, Reply
from tests.servers.openai import FakeOpenAI
from tests.support.databases import a_ledger
from tests.support.late import COLLECTED
from tests.support.redis_servers import RedisServer, redis_server

if COLLECTED:
    from hf_gateway import activation, ledger
    from hf_gateway.corpus import embed_dataset
    from hf_gateway.corpus.job_settings import JobSettings
    from hf_gateway.corpus.rate_limit import LocalTurns, RedisTurns, Turns
    from hf_gateway.corpus.worker import gateway_of, limited_transport
    from hf_gateway.ledger import budgets, models, store

TOLERANCE = 1.02


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as made:
        yield made


@pytest.fixture
def ledger_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The ledger of this process and its children, by the environment, until the test ends."""
    with a_ledger("sqlite", tmp_path) as url:
        monkeypatch.setenv("HF_GATEWAY_LEDGER", url)
        monkeypatch.setattr(activation, "_switched", set())
        yield url
        ledger.disable_budgets()
        ledger.disable()


class CountingServer(FakeOpenAI):
    """Notes when each request arrives, and the tokens in it."""

    def __init__(self) -> None:
        super().__init__(models=None)
        self.arrivals: list[tuple[float, int]] = []
        self.on_request = self._note

    def _note(self, request: Recorded) -> None:
        texts = request.json["input"]
        self.arrivals.append((time.monotonic(), sum(len(tokens(text)) for text in texts)))

    def rate(self) -> float:
        """Return the requests a second, from the one of the first that was delayed least on its way."""
        times = sorted(arrived for arrived, _ in self.arrivals)
        return min((len(times) - 1 - place) / (times[-1] - times[place]) for place in range(len(times) // 4))


class Stopping:
    """Stops a Redis, and answers as usual."""

    def __init__(self, redis: RedisServer) -> None:
        self._redis = redis

    def play(self, exchange: Exchange) -> None:
        self._redis.stop()
        exchange.normal().play(exchange)


def at(server: FakeOpenAI) -> dict[str, Any]:
    return {"model": "owner/model", "targets": [f"openai:{server.url}"]}


def test_eight_workers_keep_one_limit_of_requests(tmp_path: Path, redis: RedisServer) -> None:
    rate, requests = 20.0, 160
    with CountingServer() as server:
        report = embed_dataset(
            [f"text {row}" for row in range(requests)],
            tmp_path / "out",
            workers=8,
            shard_rows=1,
            limit_rps=rate,
            redis=redis.url,
            **at(server),
        )
        assert report.rows == requests == len(server.arrivals)
        assert server.rate() <= TOLERANCE * rate


def test_a_redis_that_goes_away_ends_the_job_and_the_resume_goes_on(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"workers": 2, "shard_rows": 1, "limit_rps": 1000.0}
    texts = [f"text {row}" for row in range(20)]
    (tmp_path / "redis").mkdir()
    with redis_server(tmp_path / "redis") as redis, CountingServer() as server:
        server.fail(Normal(), Normal(), Stopping(redis))
        with pytest.raises(ConfigError, match=r"the Redis of --redis answers no more .* run the same command again"):
            embed_dataset(texts, tmp_path / "out", redis=redis.url, **settings, **at(server))
        redis.start()
        assert embed_dataset(texts, tmp_path / "out", redis=redis.url, **settings, **at(server)).rows == 20


@pytest.mark.parametrize("shared", [True, False])
def test_a_limit_of_tokens_is_kept_by_what_the_server_counts(tmp_path: Path, redis: RedisServer, shared: bool) -> None:
    rate = 1500.0
    texts = [" ".join(["word"] * (3 + row % 40)) for row in range(400)]
    with CountingServer() as server:
        job = JobSettings(
            out=str(tmp_path), settings=at(server), limit_tps=rate, redis=redis.url if shared else None, workers=1
        )
        transport = limited_transport(job)
        assert transport is not None
        begun = time.monotonic()
        with gateway_of(job, transport) as gateway:
            for start in range(0, len(texts), 10):
                result = gateway.embed(texts[start : start + 10])
                transport.settle(result.usage.input_tokens)
        *paid, last = server.arrivals  # what the last request used is paid for by the time after it
        assert sum(count for _, count in paid) <= TOLERANCE * rate * (last[0] - begun)


@pytest.mark.parametrize(("workers", "shared"), [(8, True), (3, False)])
def test_several_workers_keep_one_limit_of_tokens_by_what_the_server_counts(
    tmp_path: Path, redis: RedisServer, workers: int, shared: bool
) -> None:
    rate = 1500.0
    texts = [" ".join(["a"] * (3 + row % 40)) for row in range(400)]  # the first estimates are half of the tokens
    with CountingServer() as server:
        embed_dataset(
            texts,
            tmp_path / "out",
            workers=workers,
            shard_rows=5,
            limit_tps=rate,
            redis=redis.url if shared else None,
            **at(server),
        )
        # What each process sends first, a probe of four tokens, is counted no more than the time until its worker has started.
        *paid, (end, _) = sorted((arrived, count) for arrived, count in server.arrivals if count > 10)
        assert len(paid) == 79
        left = list(itertools.accumulate((count for _, count in reversed(paid)), initial=0))[::-1]
        rates = [left[place] / (end - arrived) for place, (arrived, _) in enumerate(paid)]
        # From the request that was delayed least: at the beginning, and when all workers have started.
        assert min(rates[:3]) <= TOLERANCE * rate
        assert min(rates[40:50]) <= TOLERANCE * rate


def test_a_server_that_asks_to_wait_gets_no_request_of_any_worker(tmp_path: Path, redis: RedisServer) -> None:
    with CountingServer() as server:
        job = JobSettings(out=str(tmp_path), settings=at(server), limit_rps=1000.0, redis=redis.url)
        server.fail(Reply(429, {"error": {"message": "slow down"}}, {"retry-after": "2"}))
        with gateway_of(job, limited_transport(job)) as first, gateway_of(job, limited_transport(job)) as second:
            refused = JobSettings(
                out=job.out, settings={**job.settings, "timeout": 1.8}, limit_rps=1000.0, redis=redis.url
            )
            with (
                gateway_of(refused, limited_transport(refused)) as impatient,
                pytest.raises(Exception, match="slow down"),
            ):
                impatient.embed(["a"])
            second.embed(["b"])
            first.embed(["c"])
        times = [arrived for arrived, _ in server.arrivals]
        assert len(times) == 3
        assert times[1] - times[0] >= 1.9


@pytest.mark.parametrize("kind", ["local", "redis"])
def test_a_turn_comes_after_the_turns_before_it(kind: str, redis: RedisServer) -> None:
    turns: Turns = LocalTurns() if kind == "local" else RedisTurns(redis.url)
    waits = [turns.take("http://turns", (20.0, 0.0)) for _ in range(4)]
    assert waits == pytest.approx([0.0, 20.0, 40.0, 60.0], abs=5.0)
    turns.move("http://turns", 100.0)
    assert turns.take("http://turns", (0.0, 0.0)) == pytest.approx(160.0, abs=70.0)
    assert turns.held_seconds("http://turns") == 0.0
    turns.hold("http://turns", 500.0)
    assert turns.held_seconds("http://turns") == pytest.approx(500.0, abs=5.0)
    assert turns.take("http://turns", (0.0, 0.0)) == pytest.approx(500.0, abs=5.0)
    assert turns.take("http://others", (1.0, 1.0)) == 0.0


def test_limits_that_cannot_be_kept_are_refused(tmp_path: Path) -> None:
    for wrong, words in (
        ({"limit_rps": 0.0}, "above 0"),
        ({"redis": "redis://127.0.0.1:1"}, "is for limits"),
        ({"limit_rps": 1.0, "redis": "redis://127.0.0.1:1"}, "does not answer"),
    ):
        with pytest.raises(ConfigError, match=words):
            embed_dataset(["a"], tmp_path / "out", targets=["hash:64"], **wrong)


def test_all_workers_together_keep_a_budget_and_a_resume_goes_on(tmp_path: Path, ledger_url: str) -> None:
    texts = [" ".join([str(row), *["word"] * 199]) for row in range(240)]
    with CountingServer() as server:
        with store.open_ledger(ledger_url) as engine:
            models.set_entry(engine, PriceEntry("*", "embedding", f"openai:{server.url}", Price(input=Decimal(100))))
            budgets.set_budget(engine, Budget("*", "day", Decimal(5)))
        settings: dict[str, Any] = {"workers": 3, "shard_rows": 4, **at(server)}
        with pytest.raises(BudgetExceeded, match="part-"):
            embed_dataset(texts, tmp_path / "out", **settings)
        spent = sum(count for _, count in server.arrivals) * Decimal("0.0001")
        assert 0 < spent <= 5 * Decimal(str(TOLERANCE))
        with store.open_ledger(ledger_url) as engine:
            budgets.set_budget(engine, Budget("*", "day", Decimal(50)))
        report = embed_dataset(texts, tmp_path / "out", **settings)
        assert report.cost_usd == 240 * 202 * Decimal("0.0001")
        assert report.tokens == 240 * 202
        assert len(ids_of(tmp_path / "out")) == 240
