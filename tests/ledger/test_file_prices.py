"""`[prices]` of hf-gateway.toml: what is read, which price it goes before, and what is refused with file and line."""

import logging
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from hf_gateway.cli import main
from hf_gateway.errors import ConfigError
from hf_gateway.ledger.file_prices import read_file_prices
from hf_gateway.ledger.prices import FoundPrice, Price, PriceEntry
from hf_gateway.values.target import Target
from tests.support.databases import a_ledger
from tests.support.late import COLLECTED

if COLLECTED:
    from hf_gateway.ledger import models, store

FILE = """
[prices]
"org/inline" = { task = "image", per_image = 0.003 }

[prices."org/reranker"]
task = "rerank"
per_1000_documents = 0.02

[[prices."org/chat"]]
provider = "novita"
input = 0.1
output = "0.25"
cached_input = 0.05
[[prices."org/chat"]]
provider = "openai:https://api.example.com/v1/"
per_second = 0.0001
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "hf-gateway.toml"
    path.write_text(FILE, encoding="utf-8")
    monkeypatch.setenv("HF_GATEWAY_CONFIG", str(path))
    return path


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    with a_ledger("sqlite", tmp_path) as made:
        yield made


def test_every_form_is_read_with_all_digits(file: Path) -> None:
    found = {(entry.model, entry.task, entry.provider): entry.price for entry in read_file_prices()}
    assert found == {
        ("org/inline", "text-to-image", None): Price(image=Decimal("0.003")),
        ("org/reranker", "text-ranking", None): Price(document=Decimal("0.00002")),
        ("org/chat", "text-generation", "novita"): Price(Decimal("0.1"), Decimal("0.25"), Decimal("0.05")),
        ("org/chat", "text-generation", "openai:https://api.example.com/v1"): Price(second=Decimal("0.0001")),
    }
    assert read_file_prices(file) == read_file_prices()


def test_a_price_of_the_file_goes_before_all_others(file: Path, url: str) -> None:
    called = Target("hf", model="org/chat", provider="novita")
    with store.open_ledger(url) as engine:
        models.set_entry(engine, PriceEntry("org/chat", provider="novita", price=Price(Decimal(9), Decimal(9))))
        book = models.PriceBook(engine, "http://127.0.0.1:1")
        ours = Price(Decimal("0.1"), Decimal("0.25"), Decimal("0.05"))
        assert book.prices().of(called, "chat") == FoundPrice(ours, "configured")


def test_an_invalid_file_costs_no_other_price_and_is_logged_once(
    file: Path, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    file.write_text('[prices."org/chat"]\nprice = 1', encoding="utf-8")
    seconds = [0.0]
    with store.open_ledger(url) as engine, caplog.at_level(logging.WARNING):
        models.set_entry(engine, PriceEntry("org/chat", price=Price(Decimal(9), Decimal(9))))
        book = models.PriceBook(engine, "http://127.0.0.1:1", clock=lambda: seconds[0])
        for _ in range(2):
            assert book.prices().of(Target("hf", model="org/chat", provider="novita"), "chat") is not None
            seconds[0] += models.REREAD_S
    (record,) = [each for each in caplog.records if "prices of the config file" in each.message]
    assert f"{file}:2: org/chat: unknown setting 'price'" in record.message


def test_models_shows_the_file_as_the_source(file: Path, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "list", "org/reranker", "--task", "rerank", "--ledger", url]) == 0
    (line,) = [each for each in capsys.readouterr().out.splitlines() if "org/reranker" in each]
    assert line.split() == ["org/reranker", "text-ranking", "any", "$0.00002", "per", "document", "-", "file"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("prices = 3", ":1: prices is a section"),
        ('[prices]\n"a/m" = 3', ":2: a/m: a price is a table"),
        ('[prices."a/m"]\n', ":1: a/m: no price is given for a/m; write 0 if it is free"),
        ('[prices."a/m"]\n\ninput = "cheap"', ":3: a/m: input is an amount in USD"),
        ('[prices."a/m"]\ninput = nan', ":2: a/m: input is an amount in USD"),
        ('[prices."a/m"]\ninput = true', ":2: a/m: input: true is not a number"),
        ('[prices."a/m"]\ninput = -1', ":1: a/m: -1 is not a price in USD"),
        ('[prices."a/m"]\nper_imag = 1', ":2: a/m: unknown setting 'per_imag'; did you mean 'per_image'?"),
        ('[prices."a/m"]\ntask = 3\ninput = 1', ":2: a/m: task is a text"),
        ('[prices."a/m"]\ntask = "rank"\ninput = 1', ":2: a/m: unknown task 'rank'"),
        ('[prices."a/m"]\nper_document = 1', ":1: a/m: no call of text-generation has this price of a/m"),
        ('[prices."a/m"]\nprovider = "opnai:https://x/v1"\ninput = 1', "did you mean 'openai'?"),
        ('[prices."a/m"]\ninput = 1e-13', "more than 12 decimals"),
        ("[price]\nx = 1", ":1: unknown section 'price'; did you mean 'prices'?"),
    ],
    ids=lambda value: value.splitlines()[-1] if "\n" in value or "=" in value else "",
)
def test_what_is_no_price_is_refused_with_file_and_line(
    text: str, said: str, file: Path, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as refused:
        read_file_prices()
    assert said in refused.value.message
    assert str(file) in refused.value.message
    assert main(["models", "list", "--ledger", url]) == 2
