"""A ledger that several processes keep, and what the end of one means, whichever way it ends."""

import contextlib
import multiprocessing
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hf_gateway import ledger
from hf_gateway.ledger import place, waiting_room
from hf_gateway.ledger.database import Inserter
from hf_gateway.ledger.spill import Spill
from tests.support.late import COLLECTED
from tests.support.ledgers import (
    CALLS,
    CALLS_AND_WAIT,
    PATIENCE,
    Program,
    call,
    kept,
    locked,
    locked_from_the_start,
    lost,
    postgres,
    rows,
    run,
    sqlite,
    tags_of,
    url,
    waiting,
    waiting_tags,
)

if COLLECTED:
    import sqlalchemy as sa

    from hf_gateway.ledger import store


__all__ = ["postgres", "sqlite", "url"]  # fixtures


ENDLESS = (
    CALLS
    + """
import itertools, time
ledger.enable(sys.argv[1])
gateway = Gateway(targets=["hash:8"])
for number in itertools.count():
    time.sleep(0.003)  # for a server's answer; who never waits leaves CPython's other threads next to nothing
    with tagged(user=f"{number:08}"):
        gateway.embed(["a text"])
    print(f"{number:08} {time.monotonic()}", flush=True)
"""
)


@pytest.mark.parametrize("state", ["there", "locked", "missing"])
def test_a_killed_process_loses_at_most_the_last_second(state: str, sqlite: str, tmp_path: Path) -> None:
    with store.open_ledger(sqlite):
        pass
    folder = tmp_path / "folder"
    folder.write_text("a file in the place of the folder")
    wanted = f"sqlite:///{folder}/ledger.sqlite" if state == "missing" else sqlite
    made: dict[str, float] = {}
    with Program(ENDLESS, wanted) as program, contextlib.ExitStack() as lock:

        def read(seconds: float) -> None:
            ends = max(made.values(), default=time.monotonic()) + seconds
            while not made or max(made.values()) < ends:
                tag, at = program.line().split()
                made[tag] = float(at)

        read(1.0)
        if state == "locked":
            lock.enter_context(locked(sqlite))
        read(2.3)
        killed = time.monotonic()
        program.kill()
    folder.unlink()
    # Another process takes in what the dead one left behind.
    with kept(wanted) as book:
        assert book.flush(PATIENCE)
    found = tags_of(wanted)
    assert len(found) == len(set(found))
    assert {tag for tag, at in made.items() if at < killed - 1.0} - set(found) == set()


SEVERAL = (
    CALLS
    + """
book = ledger.enable(sys.argv[1])
gateway = Gateway(targets=["hash:8"])
print("ready", flush=True)
sys.stdin.readline()
for number in range(int(sys.argv[3])):
    call(gateway, f"{sys.argv[2]}-{number:06}")
"""
)


class TestSeveralProcesses:
    def test_write_to_one_ledger_at_once_and_make_it_once(self, url: str) -> None:
        """They begin together with making the tables; none of them flushes: the end of the process does."""
        programs = [Program(SEVERAL, url, str(number), "200") for number in range(4)]
        try:
            for program in programs:
                assert program.line() == "ready"
            for program in programs:
                program.say()
            assert [program.wait() for program in programs] == [0] * 4
        finally:
            for program in programs:
                program.__exit__()
        with kept(url) as book:
            assert book.flush(PATIENCE)
        assert tags_of(url) == sorted(f"{who}-{number:06}" for who in range(4) for number in range(200))
        assert lost(url) == {}

    def test_take_in_what_others_left_once(self, sqlite: str) -> None:
        with locked_from_the_start(sqlite):
            for who in range(3):
                with Program(CALLS_AND_WAIT, sqlite, str(who), "100") as other:
                    assert other.line() == "written"
                    other.kill()
        assert len(waiting(sqlite)) == 300
        everybody = [Inserter(place.check_url(sqlite), Spill(waiting_room(place.check_url(sqlite)))) for _ in range(4)]
        for each in everybody:
            each.start()
        with ThreadPoolExecutor(4) as threads:
            assert all(threads.map(lambda each: each.import_spill(PATIENCE), everybody))
        for each in everybody:
            each.close(PATIENCE)
        assert tags_of(sqlite) == sorted(f"{who}-{number:06}" for who in range(3) for number in range(100))
        assert waiting(sqlite) == []

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
    def test_forked_ones_write_their_own_calls_and_nobody_elses(self, url: str) -> None:
        with kept(url) as book:
            tags = call(range(10))
            children = [multiprocessing.get_context("fork").Process(target=_child, args=(n,)) for n in (1, 2)]
            for child in children:
                child.start()
            tags += call(range(10, 20))
            for child in children:
                child.join(PATIENCE)
                assert child.exitcode == 0
            assert book.flush(PATIENCE)
        assert tags_of(url) == sorted([*tags, *(f"{n}{k:05}" for n in (1, 2) for k in range(30))])


def _child(number: int) -> None:
    call(range(number * 100_000, number * 100_000 + 30))


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_tables_are_made_once_whoever_tries_at_the_same_time(kind: str, request: pytest.FixtureRequest) -> None:
    """litellm #14400: replicas that start together raced to create the tables."""
    where = request.getfixturevalue(kind)
    engines = [store.open_engine(where, patience=PATIENCE) for _ in range(6)]
    together = threading.Barrier(len(engines))

    def upgrade(engine: sa.Engine) -> bool:
        together.wait(PATIENCE)
        return store.upgrade(engine)

    with ThreadPoolExecutor(len(engines)) as threads:
        list(threads.map(upgrade, engines))
    assert {store.revision(engine) for engine in engines} == {store.HEAD}
    for engine in engines:
        engine.dispose()


class TestTheEndOfAProcess:
    def test_keeps_what_a_short_script_did(self, url: str) -> None:
        patient = "from hf_gateway.ledger import writer; writer.EXIT = 30.0\n"  # for machines that are busy
        code = CALLS + patient + "ledger.enable(sys.argv[1]); call(Gateway(targets=['hash:8']), '000000')"
        done = run(code, url)
        assert (done.returncode, done.stderr) == (0, "")
        assert tags_of(url) == ["000000"]
        assert waiting(url) == []

    def test_leaves_in_a_file_what_the_database_does_not_take_in_time(self, url: str) -> None:
        hurried = "from hf_gateway.ledger import writer; writer.EXIT = 0.0\n"
        code = CALLS + hurried + "ledger.enable(sys.argv[1]); call(Gateway(targets=['hash:8']), '000000')"
        assert run(code, url).returncode == 0
        with kept(url) as book:
            assert book.flush(PATIENCE)
        assert tags_of(url) == ["000000"]

    def test_says_what_it_could_leave_nowhere(self, tmp_path: Path) -> None:
        folder = tmp_path / "folder"
        folder.write_text("a file in the place of the folder")
        code = CALLS + "ledger.enable(sys.argv[1]); call(Gateway(targets=['hash:8']), '000000')"
        done = run(code, f"sqlite:///{folder}/ledger.sqlite", HF_GATEWAY_HOME=str(folder))
        assert done.returncode == 0
        assert "1 calls are missing in the ledger: the process exits, and" in done.stderr

    def test_does_not_wait_for_a_database_that_is_away(self, tmp_path: Path) -> None:
        folder = tmp_path / "folder"
        folder.write_text("a file in the place of the folder")
        away = f"sqlite:///{folder}/ledger.sqlite"
        code = CALLS + "ledger.enable(sys.argv[1]); call(Gateway(targets=['hash:8']), '000000')"
        done = run(code, away)
        assert done.returncode == 0
        assert "cannot be written to" in done.stderr
        assert waiting_tags(away) == ["000000"]

    def test_a_ledger_that_is_switched_off_leaves_no_thread(self, sqlite: str) -> None:
        before = set(threading.enumerate())
        with kept(sqlite):
            assert len(set(threading.enumerate()) - before) == 2
            call(range(3))
        assert set(threading.enumerate()) - before == set()
        assert len(tags_of(sqlite)) == 3


def test_ids_go_on_rising_when_the_clock_is_set_back(sqlite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time
    with kept(sqlite) as book:
        tags = call(range(10))
        assert book.flush()
        monkeypatch.setattr(time, "time", lambda: real() - 3600)
        tags += call(range(10, 20))
        assert book.flush()
        monkeypatch.undo()
    found = rows(sqlite, kind="request")
    assert [row["user_tag"] for row in found] == tags
    assert found[-1]["time"] < found[0]["time"]
    assert {row["id"].version for row in found} == {7}
    assert ledger.enabled() is None
