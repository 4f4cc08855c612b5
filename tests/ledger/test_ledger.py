"""What the ledger keeps of calls: a row a request and a row an attempt, with tokens, times, costs and no words."""

import asyncio
import contextlib
import datetime as dt
import sys
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from blockbuster import blockbuster_ctx

from hf_gateway import Gateway, Target, activation, ledger
from hf_gateway.errors import ConfigError, GatewayError
from hf_gateway.ledger import database, place
from hf_gateway.ledger.prices import Price, PriceEntry
from hf_gateway.observing import observer
from hf_gateway.observing.observer import tagged
from hf_gateway.testing import ManualClock
from tests.servers.chat import Said, script
from tests.servers.loopback import Reply, cut_stream, stall_stream
from tests.servers.openai import FakeOpenAI
from tests.support.chatters import Chatter
from tests.support.late import COLLECTED
from tests.support.ledgers import ctrl_c, kept, locked, lost, postgres, rows, run, sqlite, url

if COLLECTED:
    import sqlalchemy as sa
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    from hf_gateway.ledger import models, store
    from hf_gateway.ledger import usage as usages
    from hf_gateway.ledger.tables import Money, UtcTime, metadata


__all__ = ["postgres", "sqlite", "url"]  # fixtures

MODEL = "test/model"
SECRET = "sk-secret-0123456789"


def priced(url: str, server: FakeOpenAI, price: Price, task: str = "feature-extraction") -> None:
    """Set what every model of a server costs."""
    with store.open_ledger(url) as engine:
        models.set_entry(engine, PriceEntry("*", task, f"openai:{server.url}", price))


def embed(*servers: FakeOpenAI, texts: list[str], **settings: Any) -> Any:
    targets = [f"openai:{server.url}" for server in servers]
    with Gateway(MODEL, targets, clock=ManualClock(), **settings) as gateway:
        return gateway.embed(texts)


class TestRows:
    def test_of_a_request_that_fell_back(self, url: str, primary: FakeOpenAI, backup: FakeOpenAI) -> None:
        primary.always(Reply(500, "broken"))
        priced(url, backup, Price(Decimal("0.123456"), Decimal(0)))
        before = dt.datetime.now(dt.UTC)
        with kept(url) as book:
            with tagged(tenant="acme", user="ann"):
                embed(primary, backup, texts=["one two", "three"], max_retries=0, chain="docs")
            assert book.flush()
        request, failed, served = rows(url)
        common = {"request": request["id"], "tenant": "acme", "user_tag": "ann", "chain": "docs", "task": "embedding"}
        for row in (request, failed, served):
            assert {name: row[name] for name in common} == common
            assert (row["streamed"], row["shared"], row["prompt"], row["answer"]) == (False, False, None, None)
            assert before <= row["time"] <= dt.datetime.now(dt.UTC)
        assert (request["kind"], failed["kind"], served["kind"]) == ("request", "attempt", "attempt")
        assert (request["status"], failed["status"], served["status"]) == ("ok", "failed", "ok")
        assert (failed["target"], failed["target_kind"]) == (f"openai:{primary.url}", "openai")
        assert (failed["error_class"], failed["http_status"]) == ("ServerError", 500)
        assert failed["cost_usd"] == 0
        assert request["target"] == served["target"] == f"openai:{backup.url}"
        assert request["fallback"] is True
        assert (request["texts"], request["cached_texts"]) == (2, 0)
        assert request["model"] == served["model"] == MODEL
        # Seven words, with the marks around each text: 0.123456 USD a million of them.
        assert request["input_tokens"] == served["input_tokens"] == 7
        assert request["cost_usd"] == served["cost_usd"] == Decimal("0.000000864192")
        assert (request["cost_source"], served["cost_source"]) == ("configured", "configured")
        assert request["latency_ms"] >= served["latency_ms"] >= 0
        assert request["space_id"] is not None

    @pytest.mark.parametrize("form", ["whole", "awhole", "streamed", "astreamed"])
    def test_of_a_conversation(self, form: str, sqlite: str) -> None:
        said = Said("an answer", prompt_tokens=100, completion_tokens=20, cached_tokens=60, reasoning_tokens=5)
        with FakeOpenAI(models=None, brain=script(said), served_model="served/model") as server:
            priced(sqlite, server, Price(Decimal(3), Decimal(15), Decimal("0.3")), "text-generation")
            with kept(sqlite) as book:
                Chatter(form, [f"openai:{server.url}"]).ask()
                assert book.flush()
        request, attempt = rows(sqlite)
        for row in (request, attempt):
            counts = ("input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens")
            assert [row[name] for name in counts] == [100, 20, 60, 5]
            assert row["cost_usd"] == Decimal("0.000438")  # 40 · 3 + 60 · 0.3 + 20 · 15
            assert row["model"] == "served/model"
            assert row["task"] == "chat"
            assert (row["texts"], row["cached_texts"]) == (None, None)
        assert request["streamed"] is form.endswith("streamed")
        assert attempt["request_id"] is not None
        if form.endswith("streamed"):
            assert request["first_content_ms"] is not None
            assert attempt["first_content_ms"] is not None

    def test_of_a_target_without_its_key(self, sqlite: str, primary: FakeOpenAI) -> None:
        with kept(sqlite) as book:
            Gateway(MODEL, ["hf:together", f"openai:{primary.url}"]).embed(["a text"])
            assert book.flush()
        request, skipped, served = rows(sqlite)
        assert (skipped["status"], skipped["error_class"], skipped["latency_ms"]) == ("skipped", "KeyMissing", 0)
        assert (skipped["provider"], skipped["cost_usd"], skipped["input_tokens"]) == ("together", 0, 0)
        assert (served["status"], request["status"], request["fallback"]) == ("ok", "ok", True)

    def test_of_a_batch_that_was_cut(self, sqlite: str) -> None:
        with FakeOpenAI(models=None, max_inputs=4) as server, kept(sqlite) as book:
            embed(server, texts=[f"text {number}" for number in range(8)], max_concurrency=1)
            assert book.flush()
            asked = server.count()
        request, *attempts = rows(sqlite)
        assert [row["status"] for row in attempts].count("split") == 1
        assert len(attempts) == asked == 3
        assert request["input_tokens"] == sum(row["input_tokens"] for row in attempts) == 32

    def test_of_a_request_that_failed(self, sqlite: str, primary: FakeOpenAI) -> None:
        primary.always(Reply(429, "slow down", {"retry-after": "50"}))
        with kept(sqlite) as book:
            with pytest.raises(GatewayError):
                embed(primary, texts=["a text"], max_retries=0)
            assert book.flush()
        request, attempt = rows(sqlite)
        assert (request["status"], request["error_class"], request["http_status"]) == ("failed", "RateLimited", 429)
        assert (attempt["status"], attempt["error_class"]) == ("failed", "RateLimited")
        assert request["target"] is None

    def test_of_a_stream_that_broke(self, sqlite: str) -> None:
        with FakeOpenAI(models=None) as server:
            server.fail(cut_stream(3))
            priced(sqlite, server, Price(Decimal(1), Decimal(1)), "text-generation")
            with kept(sqlite) as book:
                with pytest.raises(GatewayError):
                    Chatter("streamed", [f"openai:{server.url}"]).ask()
                assert book.flush()
        request, attempt = rows(sqlite)
        assert (request["status"], request["error_class"]) == ("failed", "StreamInterrupted")
        assert attempt["input_tokens"] is None
        # It may be billed, and nobody said for how much: unknown, not 0.
        assert (attempt["cost_usd"], request["cost_usd"], request["cost_source"]) == (None, None, "unknown")

    def test_of_a_stream_that_its_reader_left(self, sqlite: str) -> None:
        with FakeOpenAI(models=None) as server, kept(sqlite) as book:
            server.fail(stall := stall_stream(3))
            with Gateway(MODEL, [f"openai:{server.url}"], task="chat").stream("Tell me") as stream:
                next(iter(stream))
            stall.release()
            assert book.flush()
        request, attempt = rows(sqlite)
        assert (request["status"], attempt["status"]) == ("cancelled", "cancelled")

    def test_of_what_the_cache_had(self, sqlite: str, primary: FakeOpenAI, tmp_path: Path) -> None:
        with kept(sqlite) as book:
            for texts in (["one", "two"], ["two", "three"], ["one", "two"]):
                embed(primary, texts=texts, cache=tmp_path / "cache.sqlite")
            assert book.flush()
        requests = rows(sqlite, kind="request")
        assert [row["cached_texts"] for row in requests] == [0, 1, 2]
        assert [row["input_tokens"] for row in requests] == [6, 3, 0]
        assert [row["cost_usd"] for row in requests] == [0, 0, 0]
        assert [row["fallback"] for row in requests] == [False, False, False]
        assert len(rows(sqlite, kind="attempt")) == 2

    def test_of_a_server_that_says_nothing_of_tokens(self, sqlite: str) -> None:
        with FakeOpenAI(models=None, usage=False) as server:
            priced(sqlite, server, Price(Decimal(1)))
            with kept(sqlite) as book:
                embed(server, texts=["a text"])
                assert book.flush()
        request, attempt = rows(sqlite)
        assert (request["input_tokens"], attempt["input_tokens"]) == (None, None)
        assert (request["cost_usd"], request["cost_source"]) == (None, "unknown")

    @pytest.mark.parametrize(
        "count", [-1, 2**70, 10**12 + 1, 10**12], ids=["negative", "huge", "more than anybody used", "dear"]
    )
    def test_of_a_server_that_says_nonsense(self, count: int, url: str) -> None:
        said = Said("an answer", prompt_tokens=5, completion_tokens=1)
        with FakeOpenAI(models=None, brain=lambda body: said, served_model="na\0me \ud800 " + "x" * 9000) as server:
            priced(url, server, Price(Decimal(1), Decimal(1)), "text-generation")
            usage = {"prompt_tokens": count, "completion_tokens": 1, "total_tokens": count}
            message = {"role": "assistant", "content": "an answer"}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            model = "na\0me \ud800 " + "x" * 9000
            server.always(Reply(200, {"id": "1", "model": model, "choices": [choice], "usage": usage}))
            with kept(url) as book:
                Gateway(MODEL, [f"openai:{server.url}"], task="chat").chat("Tell me")
                assert book.flush()
        request, attempt = rows(url)
        assert attempt["model"].startswith("na\ufffdme ? xxx")
        assert len(attempt["model"]) == 500
        assert request["cost_usd"] is None
        assert request["input_tokens"] == (10**12 if count == 10**12 else None)
        assert lost(url) == {}

    def test_of_absurd_counts_that_come_again_and_again_can_be_added_up(self, url: str, primary: FakeOpenAI) -> None:
        choice = {"index": 0, "message": {"content": "yes"}, "finish_reason": "stop"}
        with kept(url) as book:
            for count in (2**62 - 1, 2**62 - 1, 2**62 - 1, 10**12, 7):
                usage = {"prompt_tokens": count, "completion_tokens": count}
                primary.always(Reply(200, {"choices": [choice], "usage": usage}))
                Gateway(MODEL, [f"openai:{primary.url}"], task="chat").chat("Tell me")
            assert book.flush()
        with store.open_ledger(url) as engine:
            total = usages.usage_report(engine, "model", usages.UsageFilter()).total
        assert (total.requests, total.tokens_unknown) == (5, 3)
        assert total.input_tokens == total.output_tokens == 10**12 + 7

    @pytest.mark.parametrize("waits", [False, True], ids=["at once", "after waiting in a file"])
    def test_of_a_provider_that_says_what_it_takes(
        self, waits: bool, sqlite: str, primary: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(database, "LOCK_TIMEOUT_S", 0.1)
        priced(sqlite, primary, Price(Decimal(1), Decimal(1)), "text-generation")
        choice = {"index": 0, "message": {"content": "yes"}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 3, "completion_tokens": 4, "cost": 0.000123456789}
        primary.always(Reply(200, {"choices": [choice], "usage": usage}))
        with locked(sqlite) if waits else contextlib.nullcontext(), kept(sqlite) as book:
            Gateway(MODEL, [f"openai:{primary.url}"], task="chat").chat("Tell me")
            assert book.flush() is not waits
        with kept(sqlite) as book:
            assert book.flush()
        assert len(rows(sqlite)) == 2
        for row in rows(sqlite):
            assert (row["cost_usd"], row["cost_source"]) == (Decimal("0.000123456789"), "provider_reported")
            assert (row["input_tokens"], row["output_tokens"]) == (3, 4)

    def test_of_a_provider_that_says_what_vectors_cost(self, sqlite: str, primary: FakeOpenAI) -> None:
        priced(sqlite, primary, Price(Decimal(1)))
        usage = {"prompt_tokens": 3, "cost": 0.25}
        data = [{"index": 0, "embedding": [1.0, 0.0]}]
        primary.always(Reply(200, {"data": data, "usage": usage}))
        with kept(sqlite) as book:
            result = Gateway(MODEL, [f"openai:{primary.url}"], check_space=False).embed(["a text"])
            assert book.flush()
        assert result.usage.cost_usd == Decimal("0.25")
        assert {(row["cost_usd"], row["cost_source"]) for row in rows(sqlite)} == {
            (Decimal("0.25"), "provider_reported")
        }

    def test_of_a_call_that_was_interrupted_as_it_began(self, sqlite: str) -> None:
        with kept(sqlite) as book:
            with ctrl_c(), pytest.raises(KeyboardInterrupt):
                Gateway(targets=["hash"]).embed(["a text"])
            assert book.flush()
        (request,) = rows(sqlite)
        assert (request["status"], request["error_class"]) == ("cancelled", "KeyboardInterrupt")

    def test_go_into_the_ledger_from_an_event_loop_that_nothing_blocks(self, sqlite: str) -> None:
        async def calls() -> None:
            async with Gateway(targets=["hash:8"]) as gateway:
                await gateway.aembed(["warm"])
                with blockbuster_ctx():
                    for _ in range(20):
                        await gateway.aembed(["a text"])

        with kept(sqlite) as book:
            asyncio.run(calls())
            assert book.flush()
        assert len(rows(sqlite, kind="request")) == 21


class TestWords:
    def test_are_not_kept(self, sqlite: str, primary: FakeOpenAI) -> None:
        with kept(sqlite) as book:
            embed(primary, texts=["a very private text"])
            Chatter("whole", [f"openai:{primary.url}"]).ask("a very private question")
            primary.always(Reply(400, "do not like: a very private text"))
            with pytest.raises(GatewayError):
                embed(primary, texts=["a very private text"])
            assert book.flush()
        assert b"private" not in everything(sqlite)

    @pytest.mark.parametrize("way", ["argument", "environment"])
    def test_are_kept_where_somebody_asks_for_it(
        self, way: str, url: str, primary: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if way == "environment":
            monkeypatch.setenv("HF_GATEWAY_LEDGER_CONTENT", "1")
        with kept(url, **({"content": True} if way == "argument" else {})) as book:
            embed(primary, texts=["first text", "zweiter Täxt"])
            messages = [{"role": "user", "content": "What is it?"}]
            Gateway(MODEL, [f"openai:{primary.url}"], task="chat").chat(messages)
            messages[0]["content"] = "changed by its owner"
            assert book.flush()
        first, second = rows(url, kind="request")
        assert first["prompt"] == '["first text", "zweiter Täxt"]'
        assert first["answer"] is None
        assert second["prompt"] == '[{"role": "user", "content": "What is it?"}]'
        assert "I heard: What is it?" in second["answer"]
        assert all(row["prompt"] is None for row in rows(url, kind="attempt"))

    @pytest.mark.parametrize("state", ["written", "waiting"])
    def test_keys_are_nowhere(self, state: str, sqlite: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        wanted = sqlite
        if state == "waiting":
            (tmp_path / "file").touch()
            wanted = f"sqlite:///{tmp_path}/file/ledger.sqlite"
        with FakeOpenAI(models=None, api_key=SECRET) as server, kept(wanted, content=True) as book:
            target = Target("openai", url=f"{server.url}?deployment={SECRET}", credential=SECRET)
            Gateway(MODEL, [target]).embed(["a text"])
            server.always(Reply(401, {"error": {"message": f"wrong key: {SECRET}"}}))
            with pytest.raises(GatewayError):
                Gateway(MODEL, [target]).embed(["a text"])
            assert book.flush() is (state == "written")
            found = everything(sqlite) if state == "written" else files(ledger.waiting_room(book.url))
        assert b"a text" in found
        assert SECRET.encode() not in found
        assert SECRET not in caplog.text


def everything(url: str) -> bytes:
    path = url.removeprefix("sqlite:///")
    return b"".join(Path(path + end).read_bytes() for end in ("", "-wal") if Path(path + end).exists())


def files(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir())


class TestSwitchingOn:
    def test_without_a_ledger_nothing_of_it_is_imported(self) -> None:
        code = """
import sys
from hf_gateway import Gateway, activation, observe
activation.from_environment()
Gateway(targets=["hash"]).embed(["a text"])
heavy = [name for name in sys.modules if name.split(".")[0] in ("sqlalchemy", "alembic", "psycopg", "prometheus_client")]
assert not heavy, heavy
assert "hf_gateway.ledger" not in sys.modules
assert not observe.watchers
"""
        assert run(code, HF_GATEWAY_LEDGER="0").returncode == 0

    @pytest.mark.parametrize("value", ["1", "true", "a file"])
    def test_by_the_environment(self, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        home = tmp_path / "home"
        monkeypatch.setenv("HF_GATEWAY_HOME", str(home))
        path = home / "ledger.sqlite" if value != "a file" else tmp_path / "elsewhere" / "calls.sqlite"
        monkeypatch.setenv("HF_GATEWAY_LEDGER", value if value != "a file" else f"sqlite:///{path}")
        monkeypatch.setattr(activation, "_switched", set())
        try:
            activation.from_environment()
            activation.from_environment()
            assert [type(each).__name__ for each in observer.watchers] == ["Ledger", "BudgetWatcher"]
            Gateway(targets=["hash:8"]).embed(["a text"])
        finally:
            assert ledger.disable()
            ledger.disable_budgets()
        assert observer.watchers == ()
        assert len(rows(f"sqlite:///{path}")) == 2
        assert path.stat().st_mode & 0o777 == 0o600

    def test_without_a_home_of_ones_own_it_lies_with_the_users_data(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("HF_GATEWAY_HOME")
        monkeypatch.setenv("XDG_DATA_HOME", "/where/data/is")
        monkeypatch.setattr(sys, "platform", "linux")
        assert place.default() == "sqlite:////where/data/is/hf-gateway/ledger.sqlite"

    @pytest.mark.parametrize(
        ("value", "said"),
        [
            ("yesplease", "is '1', or a URL"),
            ("mysql://host/database", "'mysql'"),
            ("sqlite://", "names no file"),
            ("sqlite:///:memory:", "names no file"),
        ],
    )
    def test_what_is_no_ledger_is_refused(self, value: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_GATEWAY_LEDGER", value)
        monkeypatch.setattr(activation, "_switched", set())
        with pytest.raises(ConfigError, match=said):
            activation.from_environment()
        assert observer.watchers == ()

    @pytest.mark.parametrize(
        ("missing", "url", "line"),
        [
            ("sqlalchemy", "sqlite:///file", "pip install 'hf-gateway[ledger]'"),
            ("alembic", "sqlite:///file", "pip install 'hf-gateway[ledger]'"),
            ("psycopg", "postgresql://host/database", "pip install 'hf-gateway[ledger,postgres]'"),
        ],
    )
    def test_a_missing_package_is_named(
        self, missing: str, url: str, line: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(place, "find_spec", lambda name: None if name == missing else object())
        with pytest.raises(ConfigError) as refused:
            ledger.enable(url)
        assert line in str(refused.value)

    def test_twice_is_once_and_elsewhere_is_refused(self, sqlite: str, tmp_path: Path) -> None:
        with kept(sqlite) as book:
            assert ledger.enable(sqlite) is book
            assert ledger.enabled() is book
            with pytest.raises(ConfigError, match=r"disable\(\) before enabling it in"):
                ledger.enable(f"sqlite:///{tmp_path}/other.sqlite")
            Gateway(targets=["hash:8"]).embed(["a text"])
        assert ledger.enabled() is None
        assert len(rows(sqlite, kind="request")) == 1

    def test_a_password_is_in_no_text(self) -> None:
        url = f"postgresql+psycopg://ann:{SECRET}@127.0.0.1:1/database?sslpassword={SECRET}"
        book = ledger.enable(url)
        try:
            assert SECRET not in repr(book)
            with pytest.raises(ConfigError) as refused:
                ledger.enable("sqlite:///other")
            assert SECRET not in str(refused.value)
        finally:
            ledger.disable(0.1)
        assert place.shown_url(url) == "postgresql+psycopg://ann:***@127.0.0.1:1/database"

    def test_a_query_of_the_url_does_not_replace_the_users_own(self) -> None:
        assert place.check_url("postgres://ann@host/database").startswith("postgresql+psycopg://ann@host")


class TestTables:
    @pytest.mark.filterwarnings("ignore:.*expression-based index")
    def test_the_migrations_make_what_the_code_knows(self, url: str) -> None:
        with store.open_ledger(url) as engine, engine.connect() as connection:
            known = MigrationContext.configure(connection, opts={"version_table": store.VERSION_TABLE})
            assert compare_metadata(known, metadata) == []
            assert store.revision(engine) == store.HEAD
            assert store.upgrade(engine) is False

    def test_begin_with_five_models(self, url: str) -> None:
        with store.open_ledger(url) as engine:
            found = {each.model: each for each in models.entries(engine)}
        assert len(found) == 5
        assert {each.source for each in found.values()} == {"guide"}
        llama, minilm = "meta-llama/Llama-3.2-3B-Instruct", "sentence-transformers/all-MiniLM-L6-v2"
        # Of the issue: 0.0001, 0.0002, 0.00005 USD per thousand tokens; 0.005 and 0.001 an image.
        assert (found[llama].price.input, found[llama].price.output) == (Decimal("0.1"), Decimal("0.1"))
        assert found["mistralai/Mistral-7B-Instruct-v0.2"].price.input == Decimal("0.2")
        assert found[minilm].price.input == Decimal("0.05")
        assert found["stabilityai/stable-diffusion-xl-base-1.0"].price.image == Decimal("0.005")
        assert found["runwayml/stable-diffusion-v1-5"].price.image == Decimal("0.001")

    def test_money_is_exact_and_never_a_float(self, url: str) -> None:
        amounts = [Decimal(text) for text in ("0.1", "0.000000000001", "12345.678901234567", "0.2")]
        table = sa.Table("sums", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), sa.Column("usd", Money))
        with store.open_ledger(url) as engine, engine.begin() as connection:
            table.create(connection)
            connection.execute(sa.insert(table), [{"usd": amount} for amount in amounts])
            assert connection.execute(sa.select(sa.func.sum(table.c.usd))).scalar() == sum(amounts)
            assert connection.execute(sa.select(table.c.usd).order_by(table.c.id)).scalars().all() == amounts
            rounded = sa.insert(table).values(usd=Decimal("0.0000000000025")).returning(table.c.usd)
            assert connection.execute(rounded).scalar() == Decimal("0.000000000002")
            with pytest.raises(sa.exc.StatementError, match="never float"):
                connection.execute(sa.insert(table).values(usd=0.1))

    def test_times_keep_their_moment(self, url: str) -> None:
        table = sa.Table("moments", sa.MetaData(), sa.Column("at", UtcTime, primary_key=True))
        moment = dt.datetime(2026, 1, 31, 23, 30, tzinfo=dt.timezone(dt.timedelta(hours=-5)))
        with store.open_ledger(url) as engine, engine.begin() as connection:
            table.create(connection)
            connection.execute(sa.insert(table).values(at=moment))
            found = connection.execute(sa.select(table.c.at)).scalar()
            with pytest.raises(sa.exc.StatementError, match="time zone"):
                connection.execute(sa.insert(table).values(at=moment.replace(tzinfo=None)))
        assert found == moment
        assert found.utcoffset() == dt.timedelta(0)


def test_ids_are_of_version_7_and_rise() -> None:
    from hf_gateway.ledger.rows import Ids

    ids = Ids()
    made = [ids.next() for _ in range(5000)]
    assert made == sorted(set(made))
    assert {(each.version, each.variant) for each in made} == {(7, uuid.RFC_4122)}
