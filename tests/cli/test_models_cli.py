"""`hf-gateway models` and `hf-gateway budgets`: what is printed, for people and for machines, and the exit codes."""

import datetime as dt
import json
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from hf_gateway.cli import main
from hf_gateway.ledger.prices import Price, Prices
from hf_gateway.values.target import Target
from tests.servers.loopback import Reply, dead_url
from tests.servers.router import FakeRouter
from tests.support.databases import a_ledger
from tests.support.late import COLLECTED

if COLLECTED:
    from hf_gateway.ledger import budgets, models, store


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
        "usd": {
            "input": "0.05",
            "output": None,
            "cached_input": None,
            "per_image": None,
            "per_second": None,
            "per_document": None,
        },
        "context_length": None,
        "tools": None,
        "structured_output": None,
        "source": "guide",
        "pinned": False,
        "fetched_at": minilm["fetched_at"],
    }
    code, out, _ = run("models", "list")
    assert code == 0
    assert "$0.005 per image" in out
    assert "5 lines, USD per million tokens unless a unit is given; the router's: never fetched" in out


def test_refresh_takes_the_routers_prices_over(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeRouter() as router:
        monkeypatch.setenv("HUGGINGFACE_BASE_URL", router.url)
        counts = {"listed": 4, "priced": 3, "gone": 0, "kept": 0, "left_out": 0}
        assert as_json(run, "models", "refresh") == counts | {"replaced": []}
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
    assert "removed; the router's return with the next refresh" in out
    code, out, _ = run("models", "remove", LLAMA)
    assert code == 1
    assert f"there is no such line of {LLAMA}" in out


@pytest.mark.parametrize("offers", [[], [{"provider": "nebius", "status": "staging"}]], ids=["empty", "no offers"])
def test_an_answer_without_an_offer_deletes_no_price(
    offers: list[Any], run: Run, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeRouter() as router:
        monkeypatch.setenv("HUGGINGFACE_BASE_URL", router.url)
        as_json(run, "models", "refresh")
        before = as_json(run, "models", "list")
        router.always(Reply(200, {"object": "list", "data": [{"id": LLAMA, "providers": offers}] if offers else []}))
        code, out, err = run("models", "refresh")
        assert (code, out) == (1, "")
        nothing = "the list of models has no offers" if offers else "the catalogue has no models in it"
        assert f"the router's prices stay as they were: {nothing}" in err
        assert as_json(run, "models", "list") == before
        # And no other process takes it for the prices of today.
        router.recover()
        engine = store.open_engine(url)
        later = dt.datetime.now(dt.UTC) + dt.timedelta(days=2)
        book = models.PriceBook(engine, router.url, now=lambda: later)
        asked = router.count("/v1/models")
        book.expect_router().result(10)
        # An empty list was never taken over, so what was read before it holds for today.
        assert router.count("/v1/models") == asked + bool(offers)
        assert len(models.entries(engine)) == len(before["models"])
        engine.dispose()


@pytest.mark.parametrize(
    ("odd", "left_out"),
    [
        # A length that is none is not known, and a name that is no text is not in the catalogue at all.
        ({"id": "a/b", "providers": [{"provider": "p", "context_length": 10**30}]}, 0),
        ({"id": "a/b", "providers": [{"provider": "p", "context_length": -1}]}, 0),
        ({"id": "a/\ud800", "providers": [{"provider": "p"}, {"provider": "q"}]}, 0),
        ({"id": "a/\0b", "providers": [{"provider": "p"}]}, 1),
        ({"id": "a/b", "providers": [{"provider": "p\udfff"}]}, 1),
        ({"id": "a/b", "providers": [{"provider": "p", "pricing": {"input": 1e30, "output": 1}}]}, 1),
        # What is less than nothing was never a price to who reads the list.
        ({"id": "a/b", "providers": [{"provider": "p", "pricing": {"input": -1, "output": -1}}]}, 0),
        ({"id": "a/b", "providers": [{"provider": "p", "pricing": {"input": 10**400, "output": 10**400}}]}, 0),
    ],
    ids=[
        "context",
        "negative context",
        "half a character",
        "NUL",
        "provider",
        "price",
        "negative price",
        "endless price",
    ],
)
def test_one_odd_entry_is_left_out_and_the_rest_is_taken_over(
    odd: dict[str, Any], left_out: int, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeRouter() as router:
        router.catalogue["odd"] = odd
        monkeypatch.setenv("HUGGINGFACE_BASE_URL", router.url)
        done = as_json(run, "models", "refresh")
        assert (done["priced"], done["left_out"]) == (3, left_out)
        code, out, _ = run("models", "refresh")
    assert code == 0
    assert (f"{left_out} left out" in out) is bool(left_out)
    assert as_json(run, "models", "list", "a/b")["models"] == [] or not left_out


@pytest.mark.parametrize(
    ("model", "provider", "kept", "target", "task"),
    [
        ("m", "openai:https://api.example.com/v1/", "openai:https://api.example.com/v1", None, "chat"),
        ("m", "openai:https://API.Example.com/v1", "openai:https://api.example.com/v1", None, "chat"),
        ("*", "openai:https://api.example.com/v1/", "openai:https://api.example.com/v1", None, "chat"),
        ("gpt:4", "openai:https://api.example.com/v1", "openai:https://api.example.com/v1", None, "chat"),
        ("org/m", "hf:novita", "novita", None, "conversational"),
        ("org/m", "Novita", "novita", "hf:novita", "chat"),
        ("org/m", "hf", None, "hf:novita", "text-generation"),
        ("llama3:8b-cloud", "ollama", "ollama:llama3:8b-cloud", None, "chat"),
        (
            "org/m",
            "endpoint:https://X.endpoints.huggingface.cloud/",
            "endpoint:https://x.endpoints.huggingface.cloud",
            None,
            "chat",
        ),
    ],
)
def test_a_price_counts_for_the_target_that_is_written_the_same(
    model: str, provider: str, kept: str | None, target: str | None, task: str, run: Run, url: str
) -> None:
    added = as_json(
        run, "models", "add", model, "--provider", provider, "--task", task, "--input", "1", "--output", "2"
    )
    assert added["model"]["provider"] == kept
    called = Target.of(target or provider).inheriting("any" if model == "*" else model)
    engine = store.open_engine(url)
    found = Prices(models.entries(engine)).of(called, "chat")
    engine.dispose()
    assert found is not None
    assert (found.price, found.source) == (Price(Decimal(1), Decimal(2)), "configured")
    assert len(as_json(run, "models", "list", "--provider", kept or "hf", "--task", task)["models"]) >= 1
    removed = as_json(run, "models", "remove", model, "--provider", provider, "--task", task)["removed"]
    assert [each["provider"] for each in removed] == [kept]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("models", "add", "a/model"), "no price is given for a/model; write 0 if it is free"),
        (("models", "add", "a/model", "--input", "cheap"), "'cheap' is not an amount in USD, such as 0.15"),
        (("models", "add", "a/model", "--input", "-1"), "is not an amount in USD"),
        (("models", "list", "--ledger", "mysql://x/y"), "--ledger names 'mysql'"),
        (("models", "add", "*", "--input", "1"), "'*' means every model of one server: name it with --provider"),
        (("models", "add", "*", "--input", "1", "--provider", "hf:novita"), "'*' means every model of one server"),
        (("models", "add", "*", "--input", "1", "--provider", "ollama"), "'*' means every model of one server"),
        (("models", "add", "a/m:novita", "--input", "1"), "'a/m:novita' is not a model of the Hub"),
        (
            ("models", "add", "a/m", "--input", "1", "--task", "nonsense"),
            "unknown task 'nonsense'; there are: chat, ",
        ),
        (("models", "add", "a/m", "--input", "1", "--provider", "hf:cheapest"), "'cheapest' is not a provider"),
        (("models", "add", "a/m", "--input", "1", "--provider", "hf:a:b"), "'a:b' is not the name of an Inference"),
        (("models", "add", "a/m", "--input", "1", "--provider", ""), "'' is not the name of an Inference Provider"),
        (
            ("models", "add", "a/m", "--input", "1", "--provider", "https://x/v1"),
            "does not begin with a kind of target",
        ),
        (("models", "add", "a/m", "--input", "1", "--provider", "opnai:https://x/v1"), "did you mean 'openai'?"),
        (("models", "add", "a/m", "--input", "1", "--provider", "openai"), "'openai' needs its URL"),
        (("models", "add", "a/m", "--input", "1", "--provider", "openai:x/v1"), "needs a whole URL"),
        (("models", "add", "a/m", "--input", "1", "--provider", "hf:https://x/v1"), "is an Inference Provider"),
        (("models", "add", "a/m", "--input", "1", "--context", "9" * 23), "is not a valid number of tokens"),
        (("models", "add", "a/m", "--input", "1", "--context", "-1"), "is not a valid number of tokens"),
        (("models", "add", "\udcff", "--input", "1"), r"model '\udcff' contains bytes that are not text"),
        (("models", "remove", "\udcff"), r"model '\udcff' contains bytes that are not text"),
        (("models", "list", "--provider", "\udcff"), r"--provider '\udcff' contains bytes that are not text"),
        (
            ("models", "add", "a/m", "--input", "1e-13"),
            "more decimals than are stored; the smallest amount is 0.000000000001 USD",
        ),
        (("models", "list", "--ledger", ""), "--ledger is empty; omit it"),
        (("models", "list", "--task", "rernk"), "unknown task 'rernk'; did you mean 'rerank'?"),
        (
            ("models", "add", "a/m", "--task", "image", "--per-1000-documents", "1"),
            "it may have a price for input, output, image, second",
        ),
        (
            ("models", "list", "--ledger", "postgresql://root@127.0.0.1:abc/test"),
            "--ledger has an invalid port",
        ),
        (("budgets", "set", "\udcff", "--per-day", "1"), r"tenant '\udcff' contains bytes that are not text"),
        (("budgets", "remove", "\udcff"), r"tenant '\udcff' contains bytes that are not text"),
        (
            ("budgets", "set", "acme", "--per-day", "1e-13"),
            "more decimals than are stored; the smallest amount is 0.000000000001 USD",
        ),
        (("budgets", "set", "acme", "--per-day", "1.0000000000001"), "more decimals than are stored"),
        (("models",), "required"),
        (("budgets", "set", "acme"), "give a budget: --per-day USD, --per-month USD, or both"),
        (("budgets", "set", "acme", "--per-day", "1000000"), "is not a limit in USD"),
        (("budgets", "remove"), "required"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
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
    # The finest there is, and digits after it that say nothing.
    made = as_json(run, "budgets", "set", "acme", "--per-day", "0.0000000000010", "--per-month", "1e0")
    assert [each["usd"]["limit"] for each in made["budgets"]] == ["0.000000000001", "1.00"]
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
    assert "all calls (*)" in out
    assert "$1000.00" in out
    assert as_json(run, "budgets", "remove", "acme", "--period", "day") == {"removed": 1}
    engine = store.open_engine(url)
    left = [(budget.tenant, budget.period) for budget in budgets.all_budgets(engine)]
    engine.dispose()
    assert left == [("*", "month"), ("acme", "month")]
    assert run("budgets", "remove", "nobody")[0] == 1
