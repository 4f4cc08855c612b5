"""`hf-gateway models` and `hf-gateway budgets`: what is printed, for people and for machines, and the exit codes."""

import json
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from hf_gateway.cli import main
from hf_gateway.ledger import budgets, models, store
from hf_gateway.ledger.prices import Price
from tests.databases import a_ledger
from tests.servers.loopback import dead_url
from tests.servers.router import FakeRouter

LLAMA = "meta-llama/Llama-3.1-8B-Instruct"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with a_ledger(request.param, tmp_path) as made:
        yield made


@pytest.fixture
def run(url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.setenv("HF_GATEWAY_LEDGER", url)

    def run(*arguments: str) -> tuple[int, str, str]:
        try:
            code = main(arguments)
        except SystemExit as left:
            code = int(left.code or 0)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def as_json(run: Run, *arguments: str) -> Any:
    code, out, err = run(*arguments, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)


def test_list_shows_what_is_there_without_a_network(run: Run) -> None:
    found = as_json(run, "models", "list")
    assert found["fetched_at"] is None
    assert [each["model"] for each in found["models"]] == sorted(each["model"] for each in found["models"])
    (minilm,) = as_json(run, "models", "list", "MiniLM")["models"]
    assert minilm == {
        "model": "sentence-transformers/all-MiniLM-L6-v2",
        "task": "feature-extraction",
        "provider": None,
        "usd": {"input": "0.05", "output": None, "cached_input": None, "per_image": None, "per_second": None},
        "context_length": None,
        "tools": None,
        "structured_output": None,
        "source": "configured",
        "pinned": False,
        "fetched_at": minilm["fetched_at"],
    }
    code, out, _ = run("models", "list")
    assert code == 0
    assert "$0.005 an image" in out
    assert "5 lines, USD per million tokens where nothing else is said; the router's: never fetched" in out


def test_refresh_takes_the_routers_prices_over(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeRouter() as router:
        monkeypatch.setenv("HUGGINGFACE_BASE_URL", router.url)
        assert as_json(run, "models", "refresh") == {"listed": 4, "priced": 3, "gone": 0, "replaced": [], "kept": 0}
        run("models", "refresh")
        assert router.count("/v1/models") == 2
    found = as_json(run, "models", "list", "llama-3.1", "--provider", "nebius")
    assert found["fetched_at"] is not None
    (line,) = found["models"]
    assert (line["usd"]["input"], line["usd"]["output"], line["context_length"]) == ("0.05", "0.15", 131_072)
    assert (line["tools"], line["structured_output"], line["source"]) == (True, True, "router")
    code, out, _ = run("models", "list", "--task", "chat")
    assert code == 0
    assert "tools, schema" in out
    assert "the router's: fetched" in out


def test_a_router_that_is_away_fails_and_says_that_all_stays_as_it_was(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUGGINGFACE_BASE_URL", dead_url())
    code, out, err = run("models", "refresh")
    assert (code, out) == (1, "")
    assert "the router's prices stay as they were: no connection" in err
    assert len(as_json(run, "models", "list")["models"]) == 5


def test_add_and_remove(run: Run, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    added = as_json(
        run, "models", "add", LLAMA, "--provider", "nebius", "--input", "$0.0123", "--output", "0.5", "--cached-input", "0.001",
        "--context", "8192", "--no-tools",
    )  # fmt: skip
    assert added["replaced"] is False
    engine = store.open_engine(url)
    (kept,) = [entry for entry in models.entries(engine) if entry.model == LLAMA]
    engine.dispose()
    assert kept.price == Price(Decimal("0.0123"), Decimal("0.5"), Decimal("0.001"))
    assert (kept.context, kept.tools, kept.structured_output, kept.pinned) == (8192, False, None, True)
    with FakeRouter() as router:
        monkeypatch.setenv("HUGGINGFACE_BASE_URL", router.url)
        assert as_json(run, "models", "refresh")["kept"] == 1
    code, out, _ = run("models", "add", LLAMA, "--provider", "nebius", "--input", "1", "--output", "1")
    assert code == 0
    assert "replaced; the router will not change it" in out
    code, out, _ = run("models", "remove", LLAMA)
    assert code == 0
    assert "removed; the router's come back with the next refresh" in out
    code, out, _ = run("models", "remove", LLAMA)
    assert code == 1
    assert f"there is no such line of {LLAMA}" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("models", "add", "a/model"), "no price is given for a/model; write 0 where nothing is paid"),
        (("models", "add", "a/model", "--input", "cheap"), "'cheap' is not an amount in USD, such as 0.15"),
        (("models", "add", "a/model", "--input", "-1"), "is not an amount in USD"),
        (("models", "list", "--ledger", "mysql://x/y"), "--ledger names 'mysql'"),
        (("models",), "required"),
        (("budgets", "set", "acme"), "say what may be spent: --per-day USD, --per-month USD, or both"),
        (("budgets", "set", "acme", "--per-day", "1000000"), "is not a limit in USD"),
        (("budgets", "remove"), "required"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_used_wrongly(run: Run, arguments: tuple[str, ...], said: str) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert said in " ".join(err.split())


@pytest.mark.parametrize("command", ["models", "budgets"])
def test_a_database_that_is_away_fails_in_one_line_without_its_password(run: Run, command: str) -> None:
    code, out, err = run(command, "list", "--ledger", "postgresql://me:secret@127.0.0.1:1/none")
    assert (code, out) == (1, "")
    assert "the ledger's database postgresql+psycopg://me:***@127.0.0.1:1/none cannot be used" in err
    assert "secret" not in err
    assert "Traceback" not in err


def test_budgets_are_set_listed_and_removed(run: Run, url: str) -> None:
    code, out, _ = run("budgets", "list")
    assert code == 0
    assert "there are no budgets; set one" in out
    made = as_json(run, "budgets", "set", "acme", "--per-day", "10", "--per-month", "100.5")
    assert [(each["period"], each["usd"]["limit"], each["on_unknown"]) for each in made["budgets"]] == [
        ("day", "10.00", "refuse"),
        ("month", "100.50", "refuse"),
    ]
    # What is not given stays as it was.
    made = as_json(run, "budgets", "set", "acme", "--per-day", "11", "--on-unknown", "allow")
    assert [(each["period"], each["usd"]["limit"], each["on_unknown"]) for each in made["budgets"]] == [
        ("day", "11.00", "allow"),
        ("month", "100.50", "allow"),
    ]
    as_json(run, "budgets", "set", "*", "--per-month", "1000")
    code, out, _ = run("budgets", "list")
    assert code == 0
    assert "everybody (*)" in out
    assert "$1000.00" in out
    assert as_json(run, "budgets", "remove", "acme", "--period", "day") == {"removed": 1}
    engine = store.open_engine(url)
    left = [(budget.tenant, budget.period) for budget in budgets.all_budgets(engine)]
    engine.dispose()
    assert left == [("*", "month"), ("acme", "month")]
    assert run("budgets", "remove", "nobody")[0] == 1
