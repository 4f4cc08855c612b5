"""What becomes of the ledger when its database, its disk or its process fails: calls go on, and no row is lost or doubled."""

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hf_gateway import Gateway
from hf_gateway.errors import DeadlineExceeded
from hf_gateway.ledger import database, place, waiting_room, writer
from hf_gateway.ledger import spill as spill_module
from hf_gateway.ledger.spill import Spill
from hf_gateway.observing.observer import tagged
from hf_gateway.testing import ManualClock
from tests.support.late import COLLECTED
from tests.support.ledgers import (
    CALLS,
    CALLS_AND_WAIT,
    PATIENCE,
    Program,
    Proxy,
    admin,
    call,
    drained,
    in_schema,
    kept,
    locked,
    locked_from_the_start,
    lost,
    postgres,
    rows,
    run,
    schema,
    sqlite,
    tags_of,
    waiting,
    waiting_tags,
)

if COLLECTED:
    import sqlalchemy as sa

    from hf_gateway.ledger import store
    from hf_gateway.ledger.tables import losses, metadata


__all__ = ["postgres", "sqlite"]  # fixtures


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a database that failed tried again without a pause."""
    monkeypatch.setattr(database, "FIRST_PAUSE_S", 0.0)
    monkeypatch.setattr(database, "MAX_PAUSE_S", 0.0)


class TestTheDatabaseIsAway:
    def test_at_the_start_of_postgres(self, caplog: pytest.LogCaptureFixture) -> None:
        with schema() as name, Proxy() as proxy, kept(in_schema(name, proxy.port)) as book:
            with caplog.at_level(logging.WARNING):
                tags = call(range(40))
                assert book.flush() is False
            told = [record for record in caplog.records if record.name.startswith("hf_gateway.ledger")]
            assert len(told) == 1
            assert "cannot be written to" in told[0].message
            assert "Connection refused" in told[0].message or "refused" in told[0].message
            assert waiting_tags(book.url) == tags
            proxy.start()
            assert book.flush()
            assert tags_of(book.url) == tags
            assert waiting(book.url) == []

    @pytest.mark.usefixtures("at_once")
    def test_at_the_start_of_sqlite(self, tmp_path: Path) -> None:
        folder = tmp_path / "missing"
        folder.write_text("a file in the place of the folder")
        with kept(f"sqlite:///{folder}/ledger.sqlite") as book:
            tags = call(range(40))
            assert book.flush() is False
            assert waiting_tags(book.url) == tags
            folder.unlink()
            assert book.flush()
            assert tags_of(book.url) == tags

    @pytest.mark.parametrize("way", ["stopped", "terminated"])
    def test_in_the_middle(self, way: str) -> None:
        with schema() as name, Proxy() as proxy:
            proxy.start()
            with kept(in_schema(name, proxy.port)) as book:
                tags = call(range(20))
                assert book.flush()
                if way == "stopped":
                    proxy.stop()
                else:
                    admin(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '{name}'")
                tags += call(range(20, 60))
                assert book.flush() is (way == "terminated")
                if way == "stopped":
                    proxy.start()
                tags += call(range(60, 80))
                assert book.flush()
                assert tags_of(book.url) == tags
                assert waiting(book.url) == []

    def test_a_server_that_stops_answering_is_not_waited_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with schema() as name, Proxy() as proxy:
            proxy.start()
            with kept(in_schema(name, proxy.port)) as book:
                tags = call(range(20))
                assert book.flush()
                proxy.silent.set()
                tags += call(range(20, 60))
                drained(book)
                assert waiting_tags(book.url) == tags[20:]
                # What is stuck is hung up on, once it is stuck for long enough; the thread can be used again.
                monkeypatch.setattr(database, "STATEMENT_TIMEOUT_S", 0.0)
                proxy.silent.clear()
                tags += call(range(60, 61))
                drained(book)
                assert book.flush(PATIENCE)
                assert tags_of(in_schema(name)) == tags

    def test_an_answer_to_commit_that_is_lost_doubles_nothing(self) -> None:
        with schema() as name, Proxy() as proxy:
            proxy.start()
            with kept(in_schema(name, proxy.port)) as book:
                tags = call(range(5))
                assert book.flush()
                proxy.cut_after(b"COMMIT")
                tags += call(range(5, 25))
                drained(book)
                assert proxy.cut.wait(PATIENCE)
                assert book.flush()
                assert tags_of(in_schema(name)) == tags
                assert lost(in_schema(name)) == {}

    @pytest.mark.usefixtures("at_once")
    def test_tables_that_are_dropped_are_made_again(self, postgres: str) -> None:
        with kept(postgres) as book:
            call(range(5))
            assert book.flush()
            engine = store.open_engine(postgres)
            with engine.begin() as connection:
                for table in metadata.sorted_tables:
                    connection.exec_driver_sql(f"DROP TABLE {table.name} CASCADE")
                connection.exec_driver_sql(f"DROP TABLE {store.VERSION_TABLE}")
            engine.dispose()
            tags = call(range(5, 10))
            drained(book)
            assert book.flush()
            assert tags_of(postgres) == tags

    def test_a_sqlite_file_that_is_deleted_is_made_again(self, sqlite: str) -> None:
        with kept(sqlite) as book:
            call(range(5))
            assert book.flush()
            for suffix in ("", "-wal", "-shm"):
                Path(sqlite.removeprefix("sqlite:///") + suffix).unlink(missing_ok=True)
            tags = call(range(5, 10))
            assert book.flush()
            assert tags_of(sqlite) == tags

    def test_a_locked_sqlite_file_slows_nobody_down(self, sqlite: str) -> None:
        with kept(sqlite) as book:
            tags = call(range(5))
            assert book.flush()
            with locked(sqlite):
                tags += call(range(5, 45))
                drained(book)
                assert waiting_tags(book.url) == tags[5:]
            assert book.flush(PATIENCE)
            assert tags_of(sqlite) == tags

    def test_tables_of_a_newer_version_are_left_alone(self, sqlite: str, caplog: pytest.LogCaptureFixture) -> None:
        with store.open_ledger(sqlite) as engine, engine.begin() as connection:
            connection.exec_driver_sql(f"UPDATE {store.VERSION_TABLE} SET version_num = '9999'")
        with kept(sqlite) as book:
            tags = call(range(3))
            assert book.flush() is False
            assert waiting_tags(book.url) == tags
        assert "newer hf-gateway" in caplog.text


FULL_DISK = (
    CALLS
    + """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
book = ledger.enable(sys.argv[1])
gateway = Gateway(targets=["hash:8"])
for number in range(10):
    call(gateway, f"{number:06}")
assert book.flush(30)
# No file may grow beyond this: neither the database nor a file of rows that wait.
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
for number in range(10, 310):
    call(gateway, f"{number:06}")
print(book.flush(30))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(book.flush(30))
"""
)


@pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_FSIZE")
class TestTheDiskIsFull:
    def test_for_database_and_files_rows_stay_in_memory_until_there_is_room(self, sqlite: str) -> None:
        done = run(FULL_DISK, sqlite)
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == ["False", "True"]
        assert "can be written nowhere, and stay in memory for now" in done.stderr
        assert tags_of(sqlite) == [f"{number:06}" for number in range(310)]
        assert lost(sqlite) == {}

    def test_in_a_small_file_system(self, tmp_path: Path) -> None:
        small = tmp_path / "small"
        small.mkdir()
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=320k", "tmpfs", str(small)], capture_output=True, text=True
        )
        if mounted.returncode:
            pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
        try:
            with kept(f"sqlite:///{small}/ledger.sqlite") as book:
                (small / "ballast").write_bytes(b"\0" * 120_000)
                tags = call(range(300))
                book.flush()
                assert waiting_tags(book.url) != []
                (small / "ballast").unlink()
                subprocess.run(["mount", "-o", "remount,size=8m", str(small)], check=True)
                assert book.flush(PATIENCE)
                assert tags_of(book.url) == tags
        finally:
            subprocess.run(["umount", "-l", str(small)], check=True)


class TestWhatWaitsInFiles:
    def test_a_line_that_cannot_be_read_is_kept_aside_and_counted_once(
        self, sqlite: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(database, "LOCK_TIMEOUT_S", 0.1)
        folder = waiting_room(place.check_url(sqlite))
        with locked_from_the_start(sqlite), kept(sqlite):
            tags = call(range(3))
        (path,) = Spill(folder).waiting()
        good = path.read_bytes().splitlines(keepends=True)
        other_columns = json.dumps(json.loads(good[0]) | {"attempts": [{"id": "x"}]}).encode() + b"\n"
        spoilt = [b"{half a li", b"\n", b"[]\n", other_columns, b"\xff\xfe\n"]
        path.write_bytes(good[0] + b"".join(spoilt) + good[1] + good[2][:-1])
        copy = path.read_bytes()
        with kept(sqlite) as book:
            assert book.flush()
        assert tags_of(sqlite) == tags
        assert lost(sqlite) == {"a line of a file in which rows wait could not be read": 1}
        assert sum(row["rows"] for row in _losses(sqlite)) == 4
        assert (folder / "unreadable.txt").read_bytes().count(b"\n") == 4
        assert "cannot be read, and is put aside" in caplog.text
        # A process that died before it deleted the file leaves it to be taken in once more.
        path.write_bytes(copy)
        with kept(sqlite) as book:
            assert book.flush()
        assert tags_of(sqlite) == tags
        assert sum(row["rows"] for row in _losses(sqlite)) == 4

    def test_a_file_that_another_process_writes_to_is_left_alone(self, sqlite: str) -> None:
        with store.open_ledger(sqlite):
            pass
        with locked(sqlite), Program(CALLS_AND_WAIT, sqlite, "0", "1") as other:
            assert other.line() == "written"
            (path,) = Spill(waiting_room(place.check_url(sqlite))).waiting()
            assert Spill(path.parent).claim(path) is None
            other.kill()
            claim = Spill(path.parent).claim(path)
            assert claim is not None
            assert len(list(claim.lines())) == 1
            claim.close()

    def test_a_file_that_another_process_deletes_before_it_is_locked_is_not_written_to(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The other one finds it empty, and would delete what is written to it later."""
        mine, other, lock = Spill(tmp_path), Spill(tmp_path), spill_module._try_lock

        def late(descriptor: int) -> bool:
            monkeypatch.setattr(spill_module, "_try_lock", lock)
            (path,) = other.waiting()
            claim = other.claim(path)
            assert claim is not None
            claims.append(claim)
            if delete_first:
                claim.delete()
            return lock(descriptor)

        for delete_first in (False, True):
            claims: list[spill_module.Claim] = []
            monkeypatch.setattr(spill_module, "_try_lock", late)
            mine.append(["a row"])
            if not delete_first:
                claims[0].delete()
            (path,) = other.waiting()
            assert other.claim(path) is None
            mine.close()
            claim = other.claim(path)
            assert claim is not None
            assert [line.text for line in claim.lines()] == [b'"a row"\n']
            claim.delete()

    def test_lines_after_a_batch_that_cannot_be_read_are_taken_in(
        self, sqlite: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(database, "LOCK_TIMEOUT_S", 0.1)
        monkeypatch.setattr(database, "BATCH_ENTRIES", 3)
        with locked_from_the_start(sqlite), kept(sqlite):
            tags = call(range(3))
        (path,) = Spill(waiting_room(place.check_url(sqlite))).waiting()
        path.write_bytes(b"{half a line\n" * 3 + path.read_bytes())
        with kept(sqlite) as book:
            assert book.flush()
        assert tags_of(sqlite) == tags
        assert sum(row["rows"] for row in _losses(sqlite)) == 3

    def test_files_take_up_no_more_than_their_limit(self, tmp_path: Path) -> None:
        spill = Spill(tmp_path / "waiting", max_bytes=1000)
        spill.append(["x" * 400])
        spill.append(["y" * 400])
        with pytest.raises(OSError, match="1,000 bytes already"):
            spill.append(["z" * 400])
        spill.close()
        assert sum(path.stat().st_size for path in spill.waiting()) == 2 * 403

    def test_a_file_is_closed_at_its_limit_and_another_one_begun(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("hf_gateway.ledger.spill.MAX_FILE_BYTES", 1000)
        spill = Spill(tmp_path / "waiting")
        for number in range(6):
            spill.append([f"{number}" * 400])
        spill.close()
        assert len(spill.waiting()) == 3
        assert (tmp_path / "waiting").stat().st_mode & 0o777 == 0o700
        assert {path.stat().st_mode & 0o777 for path in spill.waiting()} == {0o600}

    def test_rows_that_the_database_refuses_are_kept_aside_and_counted(self, postgres: str) -> None:
        class Broken(ManualClock):
            def now(self) -> float:
                self._now = self._now * 1e200
                return self._now

        with kept(postgres) as book:
            tags = call(range(3))
            with pytest.raises(DeadlineExceeded):
                Gateway(targets=["hash:8"], clock=Broken()).embed(["a text"])
            tags += call(range(3, 6))
            assert book.flush()
        assert tags_of(postgres) == tags
        assert [row["rows"] for row in _losses(postgres)] == [1]
        assert "refused by the database" in next(iter(lost(postgres)))


def _losses(url: str) -> list[dict[str, Any]]:
    engine = store.open_engine(url, read_only=True)
    try:
        with engine.connect() as connection:
            return [dict(row) for row in connection.execute(sa.select(losses)).mappings()]
    finally:
        engine.dispose()


class TestTooMuch:
    def test_what_a_full_queue_drops_is_counted_and_said(
        self, sqlite: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(writer, "MAX_QUEUED_REQUESTS", 5)
        monkeypatch.setattr(writer, "WRITE_INTERVAL_S", PATIENCE)
        with kept(sqlite) as book:
            tags = call(range(12))
            assert book.flush()
        assert tags_of(sqlite) == tags[:5]
        assert lost(sqlite) == {writer.OVERFLOW: 7}
        assert "7 calls are missing in the ledger" in caplog.text

    @pytest.mark.usefixtures("at_once")
    def test_what_can_be_written_nowhere_is_dropped_beyond_a_limit_and_counted(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(writer, "MAX_QUEUED_REQUESTS", 10)
        folder = tmp_path / "folder"
        folder.write_text("a file in the place of the folder")
        monkeypatch.setenv("HF_GATEWAY_HOME", str(folder))
        with kept(f"sqlite:///{folder}/ledger.sqlite") as book:
            tags = []
            for start in range(0, 25, 5):
                tags += call(range(start, start + 5))
                drained(book)
            folder.unlink()
            assert book.flush(PATIENCE)
            assert book.flush(PATIENCE)
            assert tags_of(book.url) == tags[-10:]
            assert lost(book.url) == {writer.NOWHERE: 15}

    @pytest.mark.usefixtures("at_once")
    def test_what_is_in_memory_alone_is_not_said_to_be_in_the_database(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Neither the database nor a file takes rows; then the database does, before the writer has tried it again."""

        def full(*_: object) -> None:
            raise OSError("no room")

        monkeypatch.setattr(Spill, "append", full)
        folder = tmp_path / "folder"
        folder.write_text("a file in the place of the folder")
        with kept(f"sqlite:///{folder}/ledger.sqlite") as book:
            tags = call(range(5))
            assert book.flush() is False
            assert book.writer.waiting == 5
            folder.unlink()
            assert book.flush(PATIENCE)
            assert book.writer.waiting == 0
            assert tags_of(book.url) == tags


def test_names_that_no_encoding_has_are_written_with_a_question_mark(sqlite: str) -> None:
    with kept(sqlite) as book, Gateway("half\ud83d", targets=["hash:8"]) as gateway:
        with tagged(user="us\udc00er", tenant="te\ud83dnant"):
            gateway.embed(["a text"])
        assert book.flush(PATIENCE)
    (found,) = rows(sqlite, kind="request")
    assert (found["user_tag"], found["tenant"]) == ("us?er", "te?nant")
    json.dumps([{name: str(value) for name, value in row.items()} for row in rows(sqlite)], ensure_ascii=False).encode()
