"""What is counted and paid by other units than tokens: documents, images, seconds."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from hf_gateway import errors
from hf_gateway.ledger.cost import cost_of, total
from hf_gateway.ledger.prices import Price, PriceEntry, Prices
from hf_gateway.observing.record import AttemptRecord
from hf_gateway.values.target import Target
from hf_gateway.values.usage import Usage
from tests.support.late import COLLECTED
from tests.support.ledgers import sqlite

if COLLECTED:
    import sqlalchemy as sa
    from alembic import command
    from alembic.config import Config

    from hf_gateway.cli import main
    from hf_gateway.ledger import models, store
    from hf_gateway.ledger.tables import observations

__all__ = ["sqlite"]  # a fixture

CENT = Decimal("0.01")
SERVER = Target("openai", model="m", url="https://api.example.com/v1")


def tried(usage: Usage, target: Target = SERVER, **facts: Any) -> AttemptRecord:
    return AttemptRecord(target, "served", usage=usage, **facts)


@pytest.mark.parametrize(
    ("price", "task", "usage", "cost"),
    [
        (Price(document=CENT), "rerank", Usage(documents=3), "0.03"),
        (Price(document=CENT), "rerank", Usage(), None),
        (Price(document=CENT), "text-ranking", Usage(documents=0), "0"),
        (Price(Decimal(1_000_000), document=CENT), "rerank", Usage(2, documents=3), "2.03"),
        (Price(Decimal(1_000_000), document=CENT), "rerank", Usage(documents=3), None),
        (Price(Decimal(1_000_000)), "rerank", Usage(2, documents=3), "2"),
        (Price(image=CENT), "image", Usage(images=4), "0.04"),
        (Price(image=CENT), "image", Usage(), None),
        (Price(second=CENT), "image", Usage(seconds=2.5), "0.025"),
        (Price(second=CENT), "rerank", Usage(documents=3), "0.07"),
        (Price(document=CENT), "embedding", Usage(5), None),
    ],
    ids=[
        "by the document", "not counted", "none", "beside its tokens", "whose tokens are not counted", "by the token",
        "by the image", "images not counted", "by the server's seconds", "by the seconds of the call", "of another task",
    ],
)  # fmt: skip
def test_a_call_costs_its_units(price: Price, task: str, usage: Usage, cost: str | None) -> None:
    amount = None if cost is None else Decimal(cost)
    assert price.amount(task, usage, 7.0) == amount
    prices = Prices([PriceEntry("m", task, SERVER.label, price, pinned=True)])
    assert cost_of(tried(usage, seconds=7.0), task, prices) == (amount, "unknown" if amount is None else "configured")


def test_a_guides_price_is_marked_and_comes_last() -> None:
    target = Target("hf", model="m", provider="p")
    guide = PriceEntry("m", "image", None, Price(image=CENT), source="guide")
    better = [
        PriceEntry("m", "image", "p", Price(image=CENT * 2), source="router"),
        PriceEntry("m", "image", None, Price(image=CENT * 3), pinned=True),
        PriceEntry("m", "image", None, Price(image=CENT * 4), source="file", pinned=True),
    ]
    used = tried(Usage(images=1), target, provider="p")
    assert cost_of(used, "image", Prices([guide])) == (CENT, "guide")
    for count, source in ((1, "router_price"), (2, "configured"), (3, "configured")):
        assert cost_of(used, "image", Prices([guide, *better[:count]])) == (CENT * (count + 1), source)
    assert total([(CENT, "guide"), (CENT, "configured")]) == (CENT * 2, "guide")


def test_a_price_that_no_call_of_the_task_can_have_is_refused(sqlite: str) -> None:
    with store.open_ledger(sqlite) as engine:
        with pytest.raises(errors.ConfigError, match="no call of text-generation has this price of a/m"):
            models.set_entry(engine, PriceEntry("a/m", "chat", price=Price(document=CENT)))
        models.set_entry(engine, PriceEntry("a/m", "rerank", price=Price(document=CENT)))
        (entry,) = [each for each in models.entries(engine) if each.model == "a/m"]
    assert (entry.task, entry.price) == ("text-ranking", Price(document=CENT))


def test_a_price_for_1000_documents_is_a_thousandth_for_one(sqlite: str, capsys: pytest.CaptureFixture[str]) -> None:
    for flag, usd, shown in (("--per-1000-documents", "0.05", "$0.00005"), ("--per-document", "0.002", "$0.002")):
        assert main(["models", "add", "a/m", "--task", "rerank", flag, usd, "--ledger", sqlite]) == 0
        assert f"{shown} per document" in capsys.readouterr().out


def test_a_ledger_of_the_first_version_keeps_its_rows_and_gets_the_columns(tmp_path: Path) -> None:
    engine = store.open_engine(f"sqlite:///{tmp_path}/old.sqlite")
    config = Config()
    config.set_main_option("script_location", "hf_gateway.ledger:migrations")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.execute(
            sa.text(
                "INSERT INTO llm_observations (id, request, kind, time, task, shared, streamed, fallback, latency_ms, status) "
                "VALUES ('01a2286bc5b9705cabdcdc6b3696c1ea', '01a2286bc5b9705cabdcdc6b3696c1ea', 'request', "
                "'2026-01-01 00:00:00', 'chat', 0, 0, 0, 1.0, 'ok')"
            )
        )
    assert store.upgrade(engine) is True
    with engine.begin() as connection:
        (row,) = connection.execute(sa.select(observations)).mappings()
        assert (row["task"], row["documents"], row["images"], row["seconds"]) == ("chat", None, None, None)
        config.attributes["connection"] = connection
        command.downgrade(config, "0001")
        assert connection.execute(sa.text("SELECT count(*) FROM llm_observations")).scalar() == 1
    assert store.upgrade(engine) is True
    assert {entry.source for entry in models.entries(engine)} == {"guide"}
    engine.dispose()
