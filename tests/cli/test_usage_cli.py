"""`hf-gateway usage`: the figures, in all their forms, and what it says where there are none."""

import csv
import datetime as dt
import io
import json
import re
import sys
import uuid
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from hf_gateway import Gateway, ledger
from hf_gateway.cli import main, usage_chart
from hf_gateway.cli.output import Console
from hf_gateway.errors import ConfigError
from hf_gateway.ledger import place
from hf_gateway.ledger.spill import Spill
from hf_gateway.ledger.times import parse_since
from tests.support.late import COLLECTED
from tests.support.ledgers import kept, locked, postgres, requests_last, rows, sqlite, url

if COLLECTED:
    import sqlalchemy as sa

    from hf_gateway.ledger import store
    from hf_gateway.ledger.latency_buckets import BOUNDS_RATIO
    from hf_gateway.ledger.tables import losses, observations
    from hf_gateway.ledger.usage import Figures, UsageFilter, usage_report


__all__ = ["postgres", "sqlite", "url"]  # fixtures

COSTS = Path(__file__).parents[2] / "docs" / "costs.md"
DAY = dt.datetime(2026, 1, 30, 12, tzinfo=dt.UTC)


def row(request: uuid.UUID | None = None, **given: Any) -> dict[str, Any]:
    """Return a row of the table; a request's own where no request is given."""
    name = uuid.uuid4()
    return {
        "id": name,
        "request": request or name,
        "kind": "attempt" if request else "request",
        "time": DAY,
        "task": "chat",
        "shared": False,
        "streamed": False,
        "fallback": False,
        "latency_ms": 10.0,
        "status": "ok",
        **{column.name: None for column in observations.c if column.nullable},
        **given,
    }


def filled(url: str, found: Sequence[dict[str, Any]]) -> str:
    with store.open_ledger(url) as engine, engine.begin() as connection:
        connection.execute(sa.insert(observations), requests_last(found))
    return url


def example() -> list[dict[str, Any]]:
    """Return the rows of 100 answered requests, one that fell back, one that failed, one shared and one from the cache."""
    found = []
    for number in range(1, 101):
        common: dict[str, Any] = {
            "tenant": "acme",
            "model": "org/small",
            "provider": "alpha",
            "target": "hf:alpha",
            "chain": "chat",
        }
        request = row(**common, latency_ms=float(number))
        used = {"input_tokens": 10, "output_tokens": 2, "cost_usd": Decimal("0.000001"), "cost_source": "configured"}
        found += [request, row(request["id"], **common, **used, latency_ms=float(number))]
    later = DAY + dt.timedelta(days=1)
    other: dict[str, Any] = {"tenant": "globex", "time": later}
    alpha: dict[str, Any] = {"model": "org/small", "provider": "alpha", "target": "hf:alpha"}
    beta: dict[str, Any] = {"model": "org/large", "provider": "beta", "target": "hf:beta"}
    fell_back = row(**other, **beta, fallback=True, latency_ms=500.0)
    found += [
        fell_back,
        row(fell_back["id"], **other, **alpha, status="failed", error_class="Overloaded", cost_usd=Decimal(0)),
        row(fell_back["id"], **other, **beta, input_tokens=7, output_tokens=1, latency_ms=400.0),
    ]
    failed = row(**other, status="failed", error_class="RateLimited", http_status=429)
    found += [
        failed,
        row(failed["id"], **other, **alpha, status="failed", error_class="RateLimited", cost_usd=Decimal(0)),
        row(failed["id"], **other, **beta, status="skipped", error_class="KeyMissing", cost_usd=Decimal(0)),
        row(shared=True, cost_usd=Decimal(0), task="embedding", texts=1, cached_texts=0),
        row(cached_texts=3, texts=3, cost_usd=Decimal(0), task="embedding"),
    ]
    return found


def asked(url: str, by: str, **which: Any) -> "dict[str | None, Figures]":
    engine = store.open_engine(url, read_only=True)
    try:
        return dict(usage_report(engine, by, UsageFilter(**which)).groups)
    finally:
        engine.dispose()


def printed(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    assert main(["usage", *arguments]) == code
    return capsys.readouterr().out


class TestFigures:
    def test_by_model(self, url: str) -> None:
        filled(url, example())
        found = asked(url, "model")
        assert list(found) == ["org/large", "org/small"]
        small, large = found["org/small"], found["org/large"]
        assert (small.requests, small.attempts, small.failed, small.fallbacks) == (102, 102, 2, 1)
        assert (small.input_tokens, small.output_tokens, small.cost) == (1000, 200, Decimal("0.0001"))
        assert (small.cost_unknown, small.tokens_unknown) == (0, 0)
        assert small.errors == {"Overloaded": 1, "RateLimited": 1}
        assert (large.requests, large.attempts, large.cost_unknown, large.unknown_share) == (2, 1, 1, 1.0)
        assert (large.cost, large.input_tokens) == (Decimal(0), 7)

    def test_by_tenant(self, url: str) -> None:
        filled(url, example())
        found = asked(url, "tenant")
        assert list(found) == ["acme", "globex", None]
        assert (found["globex"].requests, found["globex"].failed, found["globex"].fallbacks) == (2, 1, 1)
        assert found["globex"].attempts == 3
        assert found["globex"].errors == {"RateLimited": 1}
        assert (found[None].requests, found[None].shared, found[None].cached, found[None].attempts) == (2, 1, 1, 0)
        assert found["acme"].cost == Decimal("0.0001")

    def test_by_task_with_the_units_of_each(self, url: str, capsys: pytest.CaptureFixture[str]) -> None:
        ranked, drawn = row(task="rerank"), row(task="image")
        found = [
            ranked,
            row(ranked["id"], task="rerank", documents=1500, input_tokens=None, cost_usd=Decimal("0.075")),
            drawn,
            row(drawn["id"], task="image", images=2, seconds=3.25, cost_usd=Decimal("0.01")),
        ]
        filled(url, [*example(), *found])
        tasks = asked(url, "task")
        assert list(tasks) == ["chat", "embedding", "image", "rerank"]
        assert (tasks["rerank"].documents, tasks["rerank"].tokens_unknown) == (1500, 0)
        assert (tasks["image"].images, tasks["image"].seconds, tasks["image"].requests) == (2, 3.25, 1)
        assert list(asked(url, "model", task="rerank")) == [None]
        lines = printed(capsys, "--ledger", url, "--by", "task").splitlines()
        cells = {line.split()[0]: line.split() for line in lines if line.strip()}
        assert cells["task"][8:11] == ["documents", "images", "seconds"]
        assert cells["rerank"][6:10] == ["1,500", "-", "-", "0.075000"]
        assert cells["image"][6:10] == ["-", "2", "3.25", "0.010000"]
        only = json.loads(printed(capsys, "--ledger", url, "--task", "image", "--json"))
        assert (only["task"], only["total"]["images"], only["total"]["documents"]) == ("image", 2, 0)

    def test_by_day_in_utc(self, url: str) -> None:
        midnight = dt.datetime(2026, 1, 31, 1, tzinfo=dt.timezone(dt.timedelta(hours=2)))
        filled(url, [row(time=midnight), row(time=midnight + dt.timedelta(hours=2))])
        found = asked(url, "day")
        assert {name: each.requests for name, each in found.items()} == {"2026-01-30": 1, "2026-01-31": 1}

    @pytest.mark.parametrize("by", ["model", "provider", "target", "day", "tenant", "user", "chain"])
    def test_sums_are_the_same_by_whatever(self, by: str, url: str) -> None:
        filled(url, example())
        found = asked(url, by).values()
        assert sum(each.input_tokens for each in found) == 1007
        assert sum(each.attempts for each in found) == 103
        assert sum((each.cost for each in found), Decimal(0)) == Decimal("0.0001")

    @pytest.mark.parametrize("count", [1, 2, 3, 100, 101])
    def test_quantiles_are_estimated_within_their_bound(self, count: int, url: str) -> None:
        """Next to the latency of the call at that rank; failed calls have no part in it."""
        latencies = [3 * 1.07**n for n in range(count)]
        filled(url, [row(latency_ms=each, tenant="acme") for each in latencies])
        filled(url, [row(latency_ms=1e6, tenant="acme", status="failed")])
        (found,) = asked(url, "tenant").values()
        for estimate, part in zip((found.p50, found.p95, found.p99), (0.5, 0.95, 0.99), strict=True):
            exact = latencies[int((count - 1) * part)]
            assert exact / BOUNDS_RATIO < (estimate or 0.0) < exact * BOUNDS_RATIO

    def test_one_latency_is_its_own_quantile(self, url: str) -> None:
        filled(url, [row(latency_ms=each, tenant=str(each)) for each in (0.0, 0.01, 1.0, 777.0, 1e9) for _ in "ab"])
        found = asked(url, "tenant")
        for name, each in found.items():
            assert [each.p50, each.p99] == pytest.approx([float(str(name))] * 2)

    def test_of_a_part(self, url: str) -> None:
        filled(url, example())
        assert list(asked(url, "tenant", tenant="globex")) == ["globex"]
        assert asked(url, "tenant", chain="chat")["acme"].requests == 100
        assert asked(url, "model", model="org/large")["org/large"].attempts == 1
        assert list(asked(url, "day", since=DAY + dt.timedelta(hours=1))) == ["2026-01-31"]
        # From, and before: the last moment is not in it.
        assert asked(url, "day", since=DAY, until=DAY + dt.timedelta(days=1))["2026-01-30"].requests == 102
        assert asked(url, "day", until=DAY) == {}

    @pytest.mark.parametrize("by", ["model", "tenant", "day"])
    def test_of_one_model_the_lines_and_the_total_are_of_attempts_at_it(self, by: str, url: str) -> None:
        """The other model served: of these three calls nothing was asked of this one but what failed."""
        found = []
        for number in range(3):
            served = row(model="B", target="hf:b", tenant="acme", fallback=True, latency_ms=50.0)
            common = {"tenant": "acme", "request": served["id"]}
            failed = row(
                **common, model="A", target="hf:a", status="failed", error_class="Overloaded", input_tokens=number
            )
            found += [served, failed, row(**common, model="B", target="hf:b")]
        filled(url, [*found, row(model="A", cached_texts=1, texts=1, task="embedding")])
        engine = store.open_engine(url, read_only=True)
        read = usage_report(engine, by, UsageFilter(model="A"))
        engine.dispose()
        assert list(read.groups.values()) == [read.total]
        assert (read.total.requests, read.total.attempts, read.total.failed, read.total.fallbacks) == (3, 3, 3, 3)
        assert (read.total.errors, read.total.p50, read.total.input_tokens) == ({"Overloaded": 3}, None, 3)

    def test_of_one_model_it_is_said_what_calls_are(self, sqlite: str, capsys: pytest.CaptureFixture[str]) -> None:
        out = printed(capsys, "--ledger", filled(sqlite, example()), "--by", "tenant", "--model", "org/small")
        assert "102 calls in 102 attempts; calls are those with attempts at the model" in out


class TestForms:
    def test_a_table(self, sqlite: str, capsys: pytest.CaptureFixture[str]) -> None:
        out = printed(capsys, "--ledger", filled(sqlite, example()))
        lines = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.strip()}
        assert lines["model"] == [
            "calls",
            "failed",
            "fell",
            "back",
            "tokens",
            "in",
            "out",
            "USD",
            "unknown",
            "p50",
            "p95",
            "p99",
        ]
        assert lines["org/small"] == [
            *("102", "2", "1", "1,000", "200", "0.000100", "-"),
            *("50.4ms", "94.7ms", "98.5ms"),
        ]
        assert lines["org/large"][:1] == ["2"]
        assert "100.0%" in lines["org/large"]
        assert lines["total"][:3] == ["104", "1", "1"]
        assert "org/small: Overloaded 1, RateLimited 1" in out
        assert "cost unknown for 1 attempt (" in out

    def test_no_number_is_cut_where_the_terminal_is_narrow(
        self, sqlite: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("COLUMNS", "40")
        assert "…" not in printed(capsys, "--ledger", filled(sqlite, example()))

    def test_json(self, url: str, capsys: pytest.CaptureFixture[str]) -> None:
        filled(url, example())
        found = json.loads(printed(capsys, "--ledger", url, "--by", "tenant", "--since", "2026-01-01", "--json"))
        assert found["there"] is True
        assert (found["by"], found["since"]) == ("tenant", "2026-01-01T00:00:00+00:00")
        assert [group["name"] for group in found["groups"]] == ["acme", "globex", None]
        assert Decimal(found["total"]["cost_usd"]) == Decimal("0.0001")
        assert found["total"]["cost_unknown_share"] == round(1 / 103, 6)
        assert found["groups"][1]["errors"] == {"RateLimited": 1}

    def test_csv(self, url: str, capsys: pytest.CaptureFixture[str]) -> None:
        filled(url, example())
        found = list(csv.DictReader(io.StringIO(printed(capsys, "--ledger", url, "--by", "provider", "--csv"))))
        assert [line["provider"] for line in found] == ["alpha", "beta"]
        assert (found[0]["requests"], Decimal(found[0]["cost_usd"])) == ("102", Decimal("0.0001"))
        assert found[0]["errors"] == "Overloaded 1, RateLimited 1"

    def test_a_chart_in_the_terminal(self, sqlite: str, capsys: pytest.CaptureFixture[str]) -> None:
        out = printed(capsys, "--ledger", filled(sqlite, example()), "--plot")
        small = [line for line in out.splitlines() if "org/small" in line]
        assert small[0].count("█") == usage_chart.BAR_CHARS
        assert "102 (2 failed)" in small[0]
        large = [line for line in out.splitlines() if "org/large" in line]
        assert "100.0% of the attempts unknown" in large[2]

    def test_bars_are_as_long_as_what_they_stand_for(self) -> None:
        lines = usage_chart.bars([("a", 80.0, "x"), ("bb", 41.0, "y"), ("c", 0.0, "z"), ("d", 0.001, "w")])
        assert lines == [
            "  a   " + "█" * 40 + " x",
            "  bb  " + "█" * 20 + "▌ y",
            "  c   · z",
            "  d   ▏ w",
        ]

    def test_the_chart_of_the_documentation_is_drawn(self, sqlite: str, monkeypatch: pytest.MonkeyPatch) -> None:
        (code,) = re.findall(r"^```python\n([^`]*savefig[^`]*)^```", COSTS.read_text(encoding="utf-8"), re.MULTILINE)
        monkeypatch.setenv("HF_GATEWAY_LEDGER", filled(sqlite, example()))
        drawn: dict[str, Any] = {}
        exec(code, drawn)
        assert [group["name"] for group in drawn["groups"]] == ["2026-01-30", "2026-01-31"]
        assert Path("usage.png").read_bytes().startswith(b"\x89PNG")

    @pytest.mark.parametrize(
        ("encoding", "arguments", "said"),
        [
            ("cp1252", ["--plot"], "  caf\xe9  ######################################## 1"),
            ("ascii", ["--plot"], "  caf\\xe9  ######################################## 1"),
            ("ascii", ["--csv"], "caf\\xe9,1,"),
            ("ascii", [], "caf\\xe9"),
            ("cp1252", ["--tenant", "caf\xe9"], ">=7"),
        ],
    )
    def test_an_output_that_takes_few_signs_is_no_failure(
        self, encoding: str, arguments: list[str], said: str, sqlite: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        request = row(tenant="caf\xe9")
        counted, uncounted = (row(request["id"], tenant="caf\xe9", input_tokens=count) for count in (7, None))
        filled(sqlite, [request, counted, uncounted])
        out = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict")
        monkeypatch.setattr(sys, "stdout", out)
        assert main(["usage", "--ledger", sqlite, "--by", "tenant", *arguments]) == 0
        out.seek(0)
        assert said in out.read()

    def test_names_are_shown_as_they_are(self, sqlite: str, capsys: pytest.CaptureFixture[str]) -> None:
        filled(sqlite, [row(tenant="[red]acme[/red]")])
        assert "[red]acme[/red]" in printed(capsys, "--ledger", sqlite, "--by", "tenant")
        out = io.StringIO()
        engine = store.open_engine(sqlite, read_only=True)
        usage_chart.draw(usage_report(engine, "tenant", UsageFilter()), Console(out))
        engine.dispose()
        assert "[red]acme[/red]" in out.getvalue()


class TestWhereThereIsNothing:
    def test_no_ledger(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["usage"]) == 1
        said = capsys.readouterr().err
        assert "nothing was recorded yet" in said
        assert "HF_GATEWAY_LEDGER=1" in said
        file = place.file_of(place.default())
        assert file is not None
        assert not file.exists()

    def test_no_tables(self, postgres: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["usage", "--ledger", postgres, "--json"]) == 1
        found = capsys.readouterr()
        assert json.loads(found.out)["there"] is False
        assert "nothing was recorded yet" in found.err

    def test_an_empty_ledger(self, url: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert "are created or migrated" in printed(capsys, "--ledger", url, "--migrate")
        assert "are up to date already" in printed(capsys, "--ledger", url, "--migrate")
        assert "no calls were recorded in this time" in printed(capsys, "--ledger", url)
        assert "no calls were recorded in this time" in printed(capsys, "--ledger", url, "--plot")
        assert json.loads(printed(capsys, "--ledger", url, "--json"))["groups"] == []
        assert printed(capsys, "--ledger", url, "--csv").count("\n") == 1

    def test_a_database_that_is_not_there(self, capsys: pytest.CaptureFixture[str]) -> None:
        secret = "hunter2"
        assert main(["usage", "--ledger", f"postgresql://ann:{secret}@127.0.0.1:1/database"]) == 1
        said = capsys.readouterr().err
        assert "postgresql+psycopg://ann:***@127.0.0.1:1/database cannot be read" in said
        assert "refused" in said
        assert secret not in said

    @pytest.mark.parametrize(
        "password", ["hunter2?x", "hun?ter2?name=hunter2", "hunter2/x", "hunter2:?/x", "?hunter2", "h%3Funter2"]
    )
    def test_a_password_is_not_shown_whatever_stands_in_it(
        self, password: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert (
            main(["usage", "--ledger", f"postgresql://ann:{password}@127.0.0.1:1/test?application_name=me@home"]) == 1
        )
        said = capsys.readouterr().err
        assert "postgresql+psycopg://ann:***@127.0.0.1:1/test cannot be read" in said
        assert "unter2" not in said
        assert "home" not in said

    @pytest.mark.parametrize("password", ["hunter2@x", "a@hunter2?b", "a@b/hunter2", "a?b@hunter2"])
    def test_an_at_sign_in_a_password_has_to_be_quoted(self, password: str, capsys: pytest.CaptureFixture[str]) -> None:
        url = f"postgresql://ann:{password}@127.0.0.1:1/test"
        assert main(["usage", "--ledger", url]) == 2
        said = capsys.readouterr().err
        assert "write it as %40" in said
        assert "hunter2" not in said
        assert place.shown_url(url) == "postgresql://ann:***@127.0.0.1:1/test"

    def test_a_file_that_is_no_database(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = tmp_path / "letter.txt"
        path.write_text("Dear Sir or Madam, " * 100)
        assert main(["usage", "--ledger", f"sqlite:///{path}"]) == 1
        assert "file is not a database" in capsys.readouterr().err
        assert path.read_text().startswith("Dear Sir")

    def test_a_ledger_of_a_newer_version(self, sqlite: str, capsys: pytest.CaptureFixture[str]) -> None:
        with store.open_ledger(sqlite) as engine, engine.begin() as connection:
            connection.exec_driver_sql(f"UPDATE {store.VERSION_TABLE} SET version_num = '9999'")
        assert main(["usage", "--ledger", sqlite]) == 1
        assert "created by a newer hf-gateway" in capsys.readouterr().err
        assert main(["usage", "--ledger", sqlite, "--migrate"]) == 2

    def test_a_ledger_of_an_older_version(self, sqlite: str, capsys: pytest.CaptureFixture[str]) -> None:
        with store.open_ledger(sqlite) as engine, engine.begin() as connection:
            connection.exec_driver_sql(f"UPDATE {store.VERSION_TABLE} SET version_num = '0000'")
        assert main(["usage", "--ledger", sqlite]) == 1
        assert "hf-gateway usage --migrate" in capsys.readouterr().err


class TestWhereTheFileIs:
    @pytest.mark.parametrize(
        ("written", "file"),
        [
            ("my%20ledger.sqlite", "my ledger.sqlite"),
            ("my ledger.sqlite", "my ledger.sqlite"),
            ("100%25.sqlite", "100%.sqlite"),
            ("100%.sqlite", "100%.sqlite"),
            ("wh%3Fy.sqlite", "wh?y.sqlite"),
            ("ann:me@home.sqlite", "ann:me@home.sqlite"),
            ("plain.sqlite?timeout=5", "plain.sqlite"),
        ],
    )
    def test_what_a_url_names_is_written_and_read(
        self, written: str, file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        named = f"sqlite:///{tmp_path}/{written}"
        with kept(named):
            Gateway(targets=["hash:8"]).embed(["a text"])
        assert (tmp_path / file).is_file()
        found = json.loads(printed(capsys, "--ledger", named, "--json"))
        assert found["total"]["requests"] == 1
        assert found["ledger"].endswith(file.replace("%", "%25").replace("?", "%3F"))

    @pytest.mark.parametrize("name", ["we?ird", "a%20b", "a b", "100%", "#1", "ann:me@home", "a%3Fb"])
    def test_a_home_of_any_name_keeps_its_ledger(
        self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        home = tmp_path / name
        monkeypatch.setenv("HF_GATEWAY_HOME", str(home))
        monkeypatch.setenv("HF_GATEWAY_LEDGER", "1")
        assert main(["usage", "--migrate"]) == 0
        assert [path.name for path in tmp_path.iterdir()] == [name]
        assert (home / "ledger.sqlite").is_file()
        capsys.readouterr()
        assert json.loads(printed(capsys, "--json"))["there"] is True
        url = place.from_environment()
        assert url is not None
        assert place.file_of(url) == home / "ledger.sqlite"
        assert place.check_url(url) == url


class TestWhatIsMissing:
    def test_losses_are_told(self, url: str, capsys: pytest.CaptureFixture[str]) -> None:
        filled(url, example())
        with store.open_ledger(url) as engine, engine.begin() as connection:
            lost = {"id": uuid.uuid4(), "time": DAY, "rows": 1234, "reason": "the dog ate them"}
            connection.execute(sa.insert(losses).values(lost))
        assert main(["usage", "--ledger", url]) == 0
        assert "not in these figures: 1,234 requests lost (the dog ate them)" in capsys.readouterr().err
        assert json.loads(printed(capsys, "--ledger", url, "--json"))["lost"] == {"the dog ate them": 1234}
        assert json.loads(printed(capsys, "--ledger", url, "--json", "--since", "2026-02-01"))["lost"] == {}

    def test_what_waits_in_files_is_taken_in_first(
        self, sqlite: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("hf_gateway.ledger.database.LOCK_TIMEOUT_S", 0.1)
        with store.open_ledger(sqlite):
            pass
        with locked(sqlite), kept(sqlite):
            Gateway(targets=["hash:8"]).embed(["a text"])
        waiting = Spill(ledger.waiting_room(place.check_url(sqlite)))
        assert len(waiting.waiting()) == 1
        found = json.loads(printed(capsys, "--ledger", sqlite, "--json"))
        assert found["total"]["requests"] == 1
        assert found["waiting_bytes"] == 0
        assert waiting.waiting() == []
        assert len(rows(sqlite)) == 2

    def test_what_waits_and_cannot_be_taken_in_is_told(
        self, sqlite: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("hf_gateway.ledger.database.LOCK_TIMEOUT_S", 0.1)
        with store.open_ledger(sqlite):
            pass
        with locked(sqlite):
            with kept(sqlite):
                Gateway(targets=["hash:8"]).embed(["a text"])
            assert main(["usage", "--ledger", sqlite]) == 0
            assert "bytes of rows in" in capsys.readouterr().err


class TestUsedWrongly:
    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["--since", "yesterday"], "--since 'yesterday' is not a time"),
            (["--until", "2026-13-01"], "--until '2026-13-01' is not a time"),
            (["--since", "today", "--until", "2020-01-01"], "is not before"),
            (["--ledger", "mysql://host/database"], "'mysql'"),
            (["--ledger", "nonsense"], "is '1', or a URL"),
            (["--plot", "--json"], "--plot is for people"),
            (["--ledger", ""], "--ledger is empty; omit it"),
            (["--ledger", " "], "--ledger is empty; omit it"),
            (["--ledger", "sqlite:///\udcff"], "--ledger contains bytes that are not text"),
            (["--ledger", "sqlite:///a%00b"], "--ledger contains bytes that are not text"),
            (["--ledger", "postgresql://root@127.0.0.1:abc/test"], "--ledger has an invalid port"),
            (["--ledger", "postgresql://root@127.0.0.1:99999/test"], "--ledger has an invalid port"),
            (["--ledger", "postgresql://root@::1/test"], "--ledger has an invalid port"),
            (["--since", "0001-01-01T00:00+05:00"], "--since '0001-01-01T00:00+05:00' is not a time"),
            (["--until", "9999-12-31T23:59-05:00"], "--until '9999-12-31T23:59-05:00' is not a time"),
            (["--tenant", "\udcff"], r"--tenant '\udcff' contains bytes that are not text"),
            (["--chain", "\udcff"], r"--chain '\udcff' contains bytes that are not text"),
            (["--model", "a\udcff"], r"--model 'a\udcff' contains bytes that are not text"),
        ],
    )
    def test_is_said(self, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["usage", *arguments]) == 2
        assert said in capsys.readouterr().err

    @pytest.mark.parametrize("arguments", [["--by", "moon"], ["--json", "--csv"], ["--nonsense"], ["--since"]])
    def test_is_said_by_the_parser(self, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as ended:
            main(["usage", *arguments])
        assert ended.value.code == 2

    @pytest.mark.parametrize(
        ("text", "moment"),
        [
            ("2026-01-31", "2026-01-31T00:00:00+00:00"),
            ("2026-01-31 12:30", "2026-01-31T12:30:00+00:00"),
            ("2026-01-31T12:30:00+02:00", "2026-01-31T12:30:00+02:00"),
            ("today", "2026-01-30T00:00:00+00:00"),
            ("7d", "2026-01-23T00:00:00+00:00"),
            ("24h", "2026-01-29T12:00:00+00:00"),
            ("30m", "2026-01-30T11:30:00+00:00"),
        ],
    )
    def test_moments(self, text: str, moment: str) -> None:
        assert parse_since(text, DAY, "--since").isoformat() == moment

    def test_a_moment_before_all_time(self) -> None:
        with pytest.raises(ConfigError, match="is not a time"):
            parse_since("99999999d", DAY, "--since")
