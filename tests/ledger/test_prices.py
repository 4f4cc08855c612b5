"""What a call costs: the price list, from five lines and the router's catalogue, and what it makes of a count of tokens."""

import dataclasses
import datetime as dt
import decimal
import os
import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml

from hf_gateway import errors
from hf_gateway.hub import router_catalogue
from hf_gateway.ledger.cost import cost_of, total
from hf_gateway.ledger.prices import Price, PriceEntry, Prices
from hf_gateway.observing.record import AttemptRecord
from hf_gateway.values.http import HttpResponse
from hf_gateway.values.target import Target
from hf_gateway.values.usage import Usage
from hf_gateway.wire.hf_router import CatalogueEntry, decode_models
from tests.servers.loopback import Reply, dead_url
from tests.servers.router import CATALOGUE, FakeRouter
from tests.support.databases import a_ledger
from tests.support.late import COLLECTED

if COLLECTED:
    import sqlalchemy as sa

    from hf_gateway.ledger import models, store


LLAMA, SMALL_LLAMA = "meta-llama/Llama-3.1-8B-Instruct", "meta-llama/Llama-3.2-3B-Instruct"
MINILM = "sentence-transformers/all-MiniLM-L6-v2"
NOW = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)
LISTED = [CatalogueEntry.of(model) for model in CATALOGUE]
RECORDING = "chatlas/tests/_vcr/test_provider_huggingface/test_huggingface_model_list.yaml"


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> "Iterator[sa.Engine]":
    with a_ledger(request.param, tmp_path) as url:
        opened = store.open_engine(url)
        yield opened
        opened.dispose()


@pytest.fixture
def recorded(recordings: Path) -> list[CatalogueEntry]:
    (exchange,) = yaml.safe_load((recordings / RECORDING).read_text())["interactions"]
    return decode_models(HttpResponse(200, {}, exchange["response"]["body"]["string"].encode()), target="the router")


def line(engine: "sa.Engine", model: str, provider: str | None = None) -> PriceEntry | None:
    found = [entry for entry in models.entries(engine) if (entry.model, entry.provider) == (model, provider)]
    assert len(found) < 2
    return found[0] if found else None


# The list

SEEDS = {
    SMALL_LLAMA: ("text-generation", {"input": "0.1", "output": "0.1"}),
    "mistralai/Mistral-7B-Instruct-v0.2": ("text-generation", {"input": "0.2", "output": "0.2"}),
    MINILM: ("feature-extraction", {"input": "0.05"}),
    "stabilityai/stable-diffusion-xl-base-1.0": ("text-to-image", {"image": "0.005"}),
    "runwayml/stable-diffusion-v1-5": ("text-to-image", {"image": "0.001"}),
}


@pytest.mark.parametrize("model", SEEDS)
def test_it_begins_with_five_models_whose_prices_are_marked_as_a_guides(engine: "sa.Engine", model: str) -> None:
    task, prices = SEEDS[model]
    assert {entry.model for entry in models.entries(engine)} == set(SEEDS)
    found = line(engine, model)
    assert found is not None
    assert (found.task, found.provider, found.source, found.pinned) == (task, None, "guide", False)
    assert found.price == Price(**{name: Decimal(price) for name, price in prices.items()})


def test_the_routers_recorded_catalogue_is_taken_over(engine: "sa.Engine", recorded: list[CatalogueEntry]) -> None:
    assert len(recorded) == 127
    done = models.replace_router_entries(engine, recorded, NOW)
    found = [entry for entry in models.entries(engine) if entry.source == "router"]
    assert len({entry.model for entry in found}) == 127
    assert (done.listed, done.priced, done.gone, done.kept) == (272, 202, 0, 0) == (len(found), 202, 0, 0)
    assert sum(entry.price.is_known for entry in found) == 202
    assert {entry.fetched_at for entry in found} == {NOW}
    assert models.fetched_at(engine) == NOW
    novita = line(engine, SMALL_LLAMA, "novita")
    assert novita == PriceEntry(
        SMALL_LLAMA, "text-generation", "novita", Price(Decimal("0.024"), Decimal("0.04")), 32_768, True, False, "router",
        False, NOW,
    )  # fmt: skip
    # Nobody said the price, which is not 0; and 0 where the provider asks for nothing.
    unpriced = line(engine, LLAMA, "featherless-ai")
    free = line(engine, "allenai/Olmo-3-7B-Instruct", "publicai")
    assert unpriced is not None
    assert free is not None
    assert unpriced.price == Price() != free.price == Price(Decimal(0), Decimal(0))


def test_a_price_is_the_number_that_was_meant_not_the_float_beside_it(
    engine: "sa.Engine", recorded: list[CatalogueEntry]
) -> None:
    models.replace_router_entries(engine, recorded, NOW)
    together = line(engine, SMALL_LLAMA, "together")  # {"input": 0.060000000000000005, ...}
    assert together is not None
    assert together.price == Price(Decimal("0.06"), Decimal("0.06"))


def test_the_router_replaces_the_configured_price_of_a_model_that_it_lists_and_no_other(
    engine: "sa.Engine", recorded: list[CatalogueEntry]
) -> None:
    assert models.replace_router_entries(engine, recorded, NOW).replaced == (SMALL_LLAMA,)
    assert line(engine, SMALL_LLAMA) is None
    left = {entry.model for entry in models.entries(engine) if entry.source == "guide"}
    assert left == set(SEEDS) - {SMALL_LLAMA}


def test_a_listing_without_a_price_replaces_no_configured_one(engine: "sa.Engine") -> None:
    listed = CatalogueEntry.of({"id": SMALL_LLAMA, "providers": [{"provider": "cerebras", "status": "live"}]})
    assert models.replace_router_entries(engine, [listed], NOW).replaced == ()
    assert line(engine, SMALL_LLAMA) is not None


def test_what_the_router_no_longer_lists_is_gone_and_the_rest_is_there_once(
    engine: "sa.Engine", recorded: list[CatalogueEntry]
) -> None:
    models.replace_router_entries(engine, recorded, NOW)
    later = NOW + dt.timedelta(days=1)
    done = models.replace_router_entries(engine, [entry for entry in recorded if entry.id != SMALL_LLAMA], later)
    assert done.gone == 3
    found = [entry for entry in models.entries(engine) if entry.source == "router"]
    assert len(found) == 269
    assert {entry.fetched_at for entry in found} == {later}
    assert all(entry.model != SMALL_LLAMA for entry in found)


def test_a_price_set_by_hand_stays_as_it_is_set(engine: "sa.Engine") -> None:
    mine = PriceEntry(LLAMA, provider="novita", price=Price(Decimal("0.0123456789"), Decimal(7)))
    assert models.set_entry(engine, mine) is False
    assert models.replace_router_entries(engine, LISTED, NOW).kept == 1
    found = line(engine, LLAMA, "novita")
    assert found is not None
    assert (found.price, found.source, found.pinned) == (mine.price, "configured", True)
    assert models.set_entry(engine, dataclasses.replace(mine, price=Price(Decimal(1)))) is True
    assert [entry.price for entry in models.remove(engine, LLAMA, provider="novita")] == [Price(Decimal(1))]
    models.replace_router_entries(engine, LISTED, NOW)
    again = line(engine, LLAMA, "novita")
    assert again is not None
    assert again.source == "router"


@pytest.mark.parametrize(
    ("price", "said"),
    [
        (Price(), "no price is given"),
        (Price(Decimal(-1)), "is not a price"),
        (Price(Decimal("NaN")), "is not a price"),
        (Price(Decimal("1e-13")), "more than 12 decimals"),
    ],
    ids=["none", "less than 0", "not a valid number", "too many digits"],
)
def test_what_is_no_price_is_refused(engine: "sa.Engine", price: Price, said: str) -> None:
    with pytest.raises(errors.ConfigError, match=said):
        models.set_entry(engine, PriceEntry("a/model", price=price))


def test_two_that_refresh_at_once_leave_one_list(engine: "sa.Engine") -> None:
    failures: list[BaseException] = []

    def refresh() -> None:
        other = store.open_engine(engine.url.render_as_string(hide_password=False))
        try:
            for _ in range(5):
                models.replace_router_entries(other, LISTED, NOW)
        except BaseException as error:
            failures.append(error)
        other.dispose()

    threads = [threading.Thread(target=refresh) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(models.entries(engine)) == 4 + 5


# Kept fresh


def a_book(engine: "sa.Engine", router: str, now: list[dt.datetime], seconds: list[float]) -> "models.PriceBook":
    return models.PriceBook(engine, router, clock=lambda: seconds[0], now=lambda: now[0])


def test_the_router_is_asked_once_a_day_and_only_when_a_model_of_it_is_called(engine: "sa.Engine") -> None:
    target = Target("hf", model=LLAMA, provider="novita")
    with FakeRouter() as router:
        now, seconds = [dt.datetime.now(dt.UTC)], [0.0]
        book = a_book(engine, router.url, now, seconds)
        assert book.prices().of(target, "chat") is None
        assert router.count("/v1/models") == 0
        for _ in range(3):
            book.expect_router().result(10)
        found = book.prices().of(target, "chat")
        assert found is not None
        assert (found.price, found.source) == (Price(Decimal("0.02"), Decimal("0.04")), "router_price")
        assert router.count("/v1/models") == 1
        another = a_book(engine, router.url, now, seconds)  # as in another process, tomorrow
        another.expect_router().result(10)
        assert router.count("/v1/models") == 1
        (kept,) = Path(os.environ["HF_GATEWAY_HOME"]).glob("router-*.json")
        yesterday = time.time() - 25 * 3600
        os.utime(kept, (yesterday, yesterday))
        now[0] += dt.timedelta(hours=25)
        seconds[0] += 25 * 3600
        a_third = a_book(engine, router.url, now, seconds)
        router_catalogue._catalogue_of.cache_clear()
        a_third.expect_router().result(10)
        assert router.count("/v1/models") == 2
        assert models.fetched_at(engine) == now[0]


def test_a_router_that_is_away_leaves_the_prices_as_they_were(
    engine: "sa.Engine", caplog: pytest.LogCaptureFixture
) -> None:
    book = a_book(engine, dead_url(), [NOW], [0.0])
    book.expect_router().result(10)
    assert "calculated with the previous ones" in caplog.text
    assert {entry.model for entry in models.entries(engine)} == set(SEEDS)
    with pytest.raises(errors.ConnectFailed):
        models.refresh(engine, dead_url())
    with FakeRouter() as router:
        router.always(Reply(500, {"error": "no"}))
        with pytest.raises(errors.ServerError):
            models.refresh(engine, router.url)
    assert {entry.model for entry in models.entries(engine)} == set(SEEDS)


def test_a_change_by_somebody_else_is_seen_half_a_minute_later(engine: "sa.Engine") -> None:
    seconds = [0.0]
    book = a_book(engine, dead_url(), [NOW], seconds)
    target = Target("hf", model="a/model", provider="novita")
    assert book.prices().of(target, "chat") is None
    models.set_entry(engine, PriceEntry("a/model", price=Price(Decimal(1), Decimal(1))))
    assert book.prices().of(target, "chat") is None
    seconds[0] += models.REREAD_S
    assert book.prices().of(target, "chat") is not None
    assert book.latest is book.prices()


# What an attempt costs

IN, OUT = Decimal("0.05"), Decimal("0.15")
LINES = (
    PriceEntry("org/chat", provider="nebius", price=Price(IN, OUT), source="router"),
    PriceEntry("org/chat", provider="novita", price=Price(Decimal("0.02"), Decimal("0.04")), source="router"),
    PriceEntry("org/chat", provider="cerebras", source="router"),
    PriceEntry("org/alike", provider="nebius", price=Price(IN, OUT), source="router"),
    PriceEntry("org/alike", provider="novita", price=Price(IN, OUT), source="router"),
    PriceEntry("org/half", provider="nebius", price=Price(IN), source="router"),
    PriceEntry("org/free", provider="publicai", price=Price(Decimal(0), Decimal(0)), source="router"),
    PriceEntry("org/ours", price=Price(IN, IN)),
    PriceEntry("org/mine", provider="nebius", price=Price(IN, OUT), source="router"),
    PriceEntry("org/mine", price=Price(Decimal(3), Decimal(3)), pinned=True),
    PriceEntry("org/cached", price=Price(Decimal(1), Decimal(2), cached=Decimal("0.1")), pinned=True),
    PriceEntry(MINILM, "feature-extraction", price=Price(Decimal("0.05"))),
    PriceEntry("gpt", provider="openai:https://api.example.com/v1", price=Price(Decimal(1), Decimal(2)), pinned=True),
    PriceEntry(
        "*",
        provider="endpoint:https://x.endpoints.huggingface.cloud",
        price=Price(second=Decimal("0.0001")),
        pinned=True,
    ),
)
USED = Usage(1000, 100)


def tried(target: Target, usage: Usage = USED, **facts: Any) -> AttemptRecord:
    return AttemptRecord(target, facts.pop("outcome", "served"), usage=usage, **facts)


def hf(model: str, provider: str | None = None) -> Target:
    return Target("hf", model=model, provider=provider)


ATTEMPTS: dict[str, tuple[AttemptRecord, str | None, str]] = {
    "the provider's own word goes before any price": (
        tried(hf("org/chat", "nebius"), Usage(1000, 100, cost_usd=Decimal("0.25"))),
        "0.25",
        "provider_reported",
    ),
    "the price of the provider that was asked for": (tried(hf("org/chat", "nebius")), "0.000065", "router_price"),
    "the price of the provider that says it served": (
        tried(hf("org/chat"), provider="novita"),
        "0.000024",
        "router_price",
    ),
    "who served goes before who was asked for": (
        tried(hf("org/chat", "nebius"), provider="novita"),
        "0.000024",
        "router_price",
    ),
    "a suffix of the model is none of its name": (
        tried(hf("org/chat:fastest"), provider="novita"),
        "0.000024",
        "router_price",
    ),
    "nobody says who served, and prices differ": (tried(hf("org/chat", "cheapest")), None, "unknown"),
    "nobody says who served, and all take the same": (tried(hf("org/alike", "auto")), "0.000065", "router_price"),
    "a provider whose price nobody says": (tried(hf("org/chat", "cerebras")), None, "unknown"),
    "a provider that the router does not list": (tried(hf("org/chat", "groq")), None, "unknown"),
    "a model that nobody lists": (tried(hf("org/unheard-of", "nebius")), None, "unknown"),
    "a price for input alone": (tried(hf("org/half", "nebius")), None, "unknown"),
    "a price for input alone, and no output": (
        tried(hf("org/half", "nebius"), Usage(1000, 0)),
        "0.00005",
        "router_price",
    ),
    "a provider that takes nothing": (tried(hf("org/free", "publicai"), Usage()), "0", "router_price"),
    "a price that came with hf-gateway": (tried(hf("org/ours"), provider="nebius"), "0.000055", "configured"),
    "a price set by hand goes before the router's": (tried(hf("org/mine", "nebius")), "0.0033", "configured"),
    "tokens that nobody counted": (tried(hf("org/chat", "nebius"), Usage()), None, "unknown"),
    "output that nobody counted": (tried(hf("org/chat", "nebius"), Usage(1000)), None, "unknown"),
    "reasoning is part of the output": (
        tried(hf("org/chat", "nebius"), Usage(1000, 100, None, 60)),
        "0.000065",
        "router_price",
    ),
    "cached input at its own price": (tried(hf("org/cached"), Usage(1000, 100, 600)), "0.00066", "configured"),
    "no more of the input was cached than there was": (
        tried(hf("org/cached"), Usage(1000, 100, 100_000)),
        "0.0003",
        "configured",
    ),
    "more tokens than anybody used": (tried(hf("org/chat", "nebius"), Usage(1000, 2**64 - 1)), None, "unknown"),
    "tokens for more than anybody paid": (tried(hf("org/chat", "nebius"), Usage(1000, 10**12)), None, "unknown"),
    "less than no tokens": (tried(hf("org/chat", "nebius"), Usage(-1000, 100)), None, "unknown"),
    "a provider's own word that is none": (
        tried(hf("org/chat", "nebius"), Usage(1000, 100, cost_usd=Decimal("-1"))),
        "0.000065",
        "router_price",
    ),
    "a provider's own word that is no number": (
        tried(hf("org/chat", "nebius"), Usage(1000, 100, cost_usd=Decimal("NaN"))),
        "0.000065",
        "router_price",
    ),
    "cached input without a price of its own": (
        tried(hf("org/chat", "nebius"), Usage(1000, 100, 600)),
        "0.000065",
        "router_price",
    ),
    "in this process": (tried(Target("local", model="org/chat"), Usage()), "0", "configured"),
    "hash": (tried(Target("hash"), Usage()), "0", "configured"),
    "tei": (tried(Target("tei", url="http://tei:8080")), "0", "configured"),
    "ollama": (tried(Target("ollama", model="llama3.1")), "0", "configured"),
    "ollama's cloud": (tried(Target("ollama", model="gpt-oss:120b-cloud")), None, "unknown"),
    "a server of one's own, by address": (
        tried(Target("openai", url="http://10.0.0.7:8000", model="org/chat")),
        "0",
        "configured",
    ),
    "a server of one's own, by name": (
        tried(Target("openai", url="http://vllm:8000", model="org/chat")),
        "0",
        "configured",
    ),
    "a server with a public name": (
        tried(Target("openai", url="https://llm.example.com/v1", model="org/chat")),
        None,
        "unknown",
    ),
    "a server with a public name and a price": (
        tried(Target("openai", url="https://api.example.com/v1", model="gpt")),
        "0.0012",
        "configured",
    ),
    "a dedicated endpoint": (
        tried(Target("endpoint", url="https://y.endpoints.huggingface.cloud", model="m")),
        None,
        "unknown",
    ),
    "a dedicated endpoint with a price per second": (
        tried(Target("endpoint", url="https://x.endpoints.huggingface.cloud", model="m"), seconds=2.5),
        "0.00025",
        "configured",
    ),
    "another package's kind": (tried(Target("elsewhere", model="org/chat")), None, "unknown"),
    "refused by the server": (
        tried(hf("org/chat", "nebius"), Usage(), outcome="failed", error=errors.RateLimited("no", status=429)),
        "0",
        "configured",
    ),
    "never connected": (
        tried(hf("org/chat", "nebius"), Usage(), outcome="failed", error=errors.ConnectFailed("no")),
        "0",
        "configured",
    ),
    "skipped": (
        tried(hf("org/chat", "nebius"), Usage(), outcome="skipped", error=errors.KeyMissing("no")),
        "0",
        "configured",
    ),
    "cut into smaller batches": (
        tried(hf("org/chat", "nebius"), Usage(), outcome="split", error=errors.BatchTooLarge("no", status=413)),
        "0",
        "configured",
    ),
    "a stream that broke": (
        tried(hf("org/chat", "nebius"), Usage(), outcome="failed", error=errors.StreamBroken("no")),
        None,
        "unknown",
    ),
    "a stream that broke on one's own server": (
        tried(
            Target("openai", url="http://vllm", model="m"), Usage(), outcome="failed", error=errors.StreamBroken("no")
        ),
        "0",
        "configured",
    ),
    "taken, and no answer in time": (
        tried(hf("org/chat", "nebius"), Usage(), outcome="failed", error=errors.AttemptTimedOut("no")),
        None,
        "unknown",
    ),
    "given up by the caller": (tried(hf("org/chat", "nebius"), Usage(), outcome="cancelled"), None, "unknown"),
}


@pytest.mark.parametrize("what", ATTEMPTS)
def test_an_attempt_costs(what: str) -> None:
    attempt, usd, source = ATTEMPTS[what]
    assert cost_of(attempt, "chat", Prices(LINES)) == (None if usd is None else Decimal(usd), source)


def test_what_providers_say_adds_up_where_all_say_it() -> None:
    one, other = Usage(1, 2, cost_usd=Decimal("0.1")), Usage(3, 4, cost_usd=Decimal("0.02"))
    assert one + other == Usage(4, 6, cost_usd=Decimal("0.12"))
    assert one + Usage(3, 4) == Usage(4, 6)


def test_an_embedding_costs_its_input() -> None:
    assert cost_of(tried(hf(MINILM), Usage(1000)), "embedding", Prices(LINES)) == (Decimal("0.00005"), "configured")
    # hf-inference counts no tokens.
    assert cost_of(tried(hf(MINILM), Usage()), "embedding", Prices(LINES)) == (None, "unknown")
    # For another task it is another price.
    assert cost_of(tried(hf(MINILM), Usage(1000, 1)), "chat", Prices(LINES)) == (None, "unknown")


def test_before_a_call_each_part_of_the_price_is_that_of_the_dearest_provider() -> None:
    cheap = PriceEntry("m", provider="a", price=Price(Decimal(1), Decimal(4)), source="router")
    dear = PriceEntry("m", provider="b", price=Price(Decimal(2), Decimal(3)), source="router")
    prices = Prices([cheap, dear])
    assert (
        prices.dearest(hf("m"), "chat") == prices.dearest(hf("m", "cheapest"), "chat") == Price(Decimal(2), Decimal(4))
    )
    assert prices.dearest(hf("m", "a"), "chat") == cheap.price
    assert prices.dearest(hf("m", "c"), "chat") is None
    # Where one of those that may be chosen says no price, nobody knows what it may cost.
    unpriced = PriceEntry("m", provider="c", source="router")
    assert Prices([cheap, dear, unpriced]).dearest(hf("m"), "chat") is None
    assert prices.dearest(hf("m"), "chat", model="another") is None


def test_images_cost_by_the_image() -> None:
    assert Price(image=Decimal("0.005")).amount("text-to-image", Usage(images=3)) == Decimal("0.015")
    assert Price(Decimal(1)).amount("text-to-image", Usage(images=3)) is None


def test_digits_are_exact_over_ten_thousand_attempts() -> None:
    prices = Prices(
        [PriceEntry("m", provider="p", price=Price(Decimal("0.123457"), Decimal("9.876543")), source="router")]
    )
    summed, exact = Decimal(0), Fraction(0)
    for count in range(10_000):
        cost, _ = cost_of(tried(hf("m", "p"), Usage(count * 7 + 1, count * 3)), "chat", prices)
        assert cost is not None
        summed += cost
        exact += (Fraction("0.123457") * (count * 7 + 1) + Fraction("9.876543") * count * 3) / 1_000_000
    assert Fraction(summed) == exact


def test_the_programs_own_precision_changes_no_cost() -> None:
    attempt = tried(hf("org/chat", "nebius"), Usage(123_456_789, 987_654))
    with decimal.localcontext() as context:
        context.prec = 3
        cost = cost_of(attempt, "chat", Prices(LINES))
        twice, _ = total([cost, cost])
    assert cost == (Decimal("6.32098755"), "router_price")
    assert twice == Decimal("12.6419751")


def test_a_request_costs_the_sum_of_its_attempts_and_is_unknown_where_one_is() -> None:
    free, paid = (Decimal(0), "configured"), (Decimal("0.1"), "router_price")
    assert total([]) == (Decimal(0), "configured")
    assert total([free, free]) == (Decimal(0), "configured")
    assert total([free, paid, paid]) == (Decimal("0.2"), "router_price")
    assert total([paid, (Decimal(1), "configured")]) == (Decimal("1.1"), "configured")
    assert total([paid, (None, "unknown")]) == (None, "unknown")
