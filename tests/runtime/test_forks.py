"""Forks while threads are at work: the child works as well, or is told what to do instead, and never hangs."""

import contextlib
import gc
import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock, Timeout

from tests.support.forks import PATIENCE_S, in_child

pytestmark = [
    pytest.mark.xdist_group("torch"),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here"),
]


class Held:
    """A thread within a block, until it is let go; or until somebody forks, where `ends_with_fork` is a gate."""

    def __init__(self, block: Any, ends_with_fork: Any = None) -> None:
        self._let_go = threading.Event()
        self._block, self._gate = block, ends_with_fork
        self._within = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        with self._block:
            self._within.set()
            if self._gate is not None:
                with self._gate.changed:
                    assert self._gate.changed.wait_for(lambda: self._gate.forks, PATIENCE_S)
            else:
                assert self._let_go.wait(PATIENCE_S)

    def __enter__(self) -> None:
        self._thread.start()
        assert self._within.wait(PATIENCE_S)

    def __exit__(self, *_: object) -> None:
        self._let_go.set()
        self._thread.join(PATIENCE_S)


@pytest.fixture
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    from hf_gateway.values import forks

    monkeypatch.setattr(forks, "FORK_WAIT_S", 0.01)


class TestSqlite:
    def test_a_child_that_was_forked_while_rows_come_in_writes_too(self, tmp_path: Path) -> None:
        from hf_gateway.tasks.embedding.cache import SqliteCache

        cache = SqliteCache(tmp_path / "cache.sqlite")
        cache.set_many([("warm", b"0")])
        begun, go_on = threading.Event(), threading.Event()

        def rows() -> Iterator[tuple[str, bytes]]:
            yield "first", b"1"
            begun.set()
            assert go_on.wait(PATIENCE_S)
            yield "second", b"2"

        writer = threading.Thread(target=cache.set_many, args=(rows(),))
        writer.start()
        assert begun.wait(PATIENCE_S)
        try:
            assert in_child(lambda: cache.set_many([("child", b"3")])) is None
        finally:
            go_on.set()
            writer.join()
        assert cache.get_many(["first", "second", "child"]) == [b"1", b"2", b"3"]

    def test_a_fork_waits_for_a_statement_under_way(self, tmp_path: Path) -> None:
        from hf_gateway.storage.sqlite import gate
        from hf_gateway.tasks.embedding.cache import SqliteCache

        cache = SqliteCache(tmp_path / "cache.sqlite")
        cache.set_many([("warm", b"0")])
        with Held(cache._connection(), ends_with_fork=gate):
            assert in_child(lambda: cache.set_many([("child", b"3")])) is None
        assert cache.get_many(["child"]) == [b"3"]

    def test_what_takes_too_long_is_an_error_with_a_remedy_in_the_child_for_that_file_alone(
        self, tmp_path: Path, no_patience: None
    ) -> None:
        from hf_gateway.tasks.embedding.cache import SqliteCache

        cache, other = SqliteCache(tmp_path / "cache.sqlite"), SqliteCache(tmp_path / "other.sqlite")
        other.set_many([("a", b"1")])

        def write() -> Any:
            other.set_many([("b", b"2")])
            cache.set_many([("child", b"3")])

        with Held(cache._connection()):
            said = in_child(write)
        assert said.startswith("InheritedDatabase")
        assert "spawn" in said
        assert str(cache.path) in said
        assert other.get_many(["a", "b"]) == [b"1", b"2"]
        cache.set_many([("parent", b"1")])
        assert in_child(lambda: cache.set_many([("later child", b"3")])) is None

    def test_nothing_is_lost_whoever_closes_first(self, tmp_path: Path) -> None:
        """A child that took its parent's locks for its own would write into a log that the parent has deleted."""
        from hf_gateway.tasks.embedding.cache import SqliteCache

        path = tmp_path / "cache.sqlite"
        cache = SqliteCache(path)
        cache.set_many([("parent", b"0")])
        ours, theirs = os.pipe()
        told, tells = os.pipe()
        child = os.fork()
        if child == 0:
            cache.set_many([("before", b"1")])
            os.write(theirs, b"1")
            os.read(told, 1)
            cache.set_many([("after", b"2")])
            os._exit(0)
        os.read(ours, 1)
        cache.get_many(["parent"])
        cache.close()
        os.write(tells, b"1")
        os.waitpid(child, 0)
        for descriptor in (ours, theirs, told, tells):
            os.close(descriptor)
        assert SqliteCache(path).get_many(["parent", "before", "after"]) == [b"0", b"1", b"2"]

    @pytest.mark.parametrize("held", ["by a transaction", "not at all"])
    def test_so_it_is_with_the_ledgers_file(self, tmp_path: Path, held: str) -> None:
        sa = pytest.importorskip("sqlalchemy")
        from hf_gateway.ledger import store
        from hf_gateway.storage.sqlite import gate

        with store.open_ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}") as engine:

            def write() -> None:
                with engine.begin() as connection:
                    connection.execute(sa.text("CREATE TABLE child (a)"))

            if held == "not at all":
                assert in_child(write) is None
            else:
                with Held(engine.begin(), ends_with_fork=gate):
                    assert in_child(write) is None
            assert sa.inspect(engine).has_table("child")

    def test_the_ledgers_connections_are_in_use_from_before_they_leave_the_pool_until_they_are_back(
        self, tmp_path: Path
    ) -> None:
        sa = pytest.importorskip("sqlalchemy")
        from hf_gateway.ledger import store
        from hf_gateway.storage.sqlite import gate

        path = tmp_path / "ledger.sqlite"
        seen: list[tuple[str, bool]] = []
        with store.open_ledger(f"sqlite:///{path}") as engine:
            for name in ("connect", "checkout", "checkin", "close"):
                sa.event.listen(engine, name, lambda *_, name=name: seen.append((name, str(path) in gate._names)))
            for _ in range(2):
                with engine.connect():
                    pass
            assert {name for name, _ in seen} >= {"checkout", "checkin"}
            borrowed = engine.connect()
            engine.dispose()
            borrowed.close()
        assert seen[-2:] == [("checkin", True), ("close", True)]
        assert all(in_use for name, in_use in seen if name != "close")
        assert not gate._names

    @pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files cannot be listed here")
    def test_no_child_inherits_an_open_ledger(self, tmp_path: Path) -> None:
        pytest.importorskip("sqlalchemy")
        from hf_gateway.ledger import store

        path = tmp_path / "ledger.sqlite"
        ended = threading.Event()

        def open_files() -> list[str]:
            return [str(each.readlink()) for each in Path("/proc/self/fd").iterdir() if each.is_symlink()]

        with store.open_ledger(f"sqlite:///{path}") as engine:

            def read() -> None:
                while not ended.is_set():
                    with engine.connect() as connection:
                        connection.exec_driver_sql("SELECT 1")

            readers = [threading.Thread(target=read) for _ in range(2)]
            for each in readers:
                each.start()
            try:
                inherited = [in_child(open_files) for _ in range(10)]
            finally:
                ended.set()
                for each in readers:
                    each.join(PATIENCE_S)
        assert not [file for files in inherited for file in files if "ledger.sqlite" in file]

    def test_connections_that_fail_hold_no_fork_up(self, tmp_path: Path) -> None:
        sa = pytest.importorskip("sqlalchemy")
        from hf_gateway.ledger import store
        from hf_gateway.storage.sqlite import gate

        (tmp_path / "file").write_text("no folder")
        engine = store.open_engine(f"sqlite:///{tmp_path / 'file' / 'ledger.sqlite'}")
        with pytest.raises(OSError, match="file"), engine.connect():
            pass
        spoilt = tmp_path / "spoilt.sqlite"
        spoilt.write_bytes(b"no database at all" * 1000)
        engine = store.open_engine(f"sqlite:///{spoilt}")
        with pytest.raises(sa.exc.DatabaseError), engine.connect():
            pass
        assert not gate._names


class TestLocks:
    def test_a_lock_that_a_thread_held_is_free_in_the_child(self) -> None:
        from hf_gateway.values.forks import fork_lock

        lock = fork_lock()

        def take() -> str:
            with lock:
                return "taken"

        with Held(lock):
            assert in_child(take) == "taken"
        assert take() == "taken"

    def test_a_block_in_which_a_child_was_forked_ends_in_both(self) -> None:
        from hf_gateway.values.forks import fork_lock

        lock = fork_lock()

        def leave_and_take() -> str:
            lock.__exit__(None, None, None)
            with lock:
                return "taken"

        with lock:
            assert in_child(leave_and_take) == "taken"

    def test_all_that_threads_share_is_free_in_a_child(self) -> None:
        """Each lock of a gateway held by another thread at once: blocking and async calls go through in the child."""
        import asyncio

        from hf_gateway import Gateway
        from hf_gateway.values import forks

        gateway = Gateway(targets=["hash"])
        gateway.embed(["a text"])

        def embed() -> list[int]:
            first = gateway.embed(["another"])
            second = asyncio.run(gateway.aembed(["a third"]))
            return [len(first.vectors), len(second.vectors)]

        with contextlib.ExitStack() as held:
            for lock in list(forks._locks):
                held.enter_context(Held(lock))
            assert in_child(embed) == [1, 1]


class TestMetrics:
    def test_a_fork_waits_while_something_is_counted(self) -> None:
        """prometheus_client's own locks are not made for forks."""
        prometheus_client = pytest.importorskip("prometheus_client")
        from hf_gateway import Gateway, telemetry

        registry = prometheus_client.CollectorRegistry()
        telemetry.enable_prometheus(registry)
        try:
            gateway = Gateway(targets=["hash"])
            gateway.embed(["a text"])

            def count() -> float | None:
                gateway.embed(["another"])
                found: float | None = registry.get_sample_value(
                    "hf_gateway_calls_total", {"task": "embedding", "outcome": "ok"}
                )
                return found

            with Held(telemetry.counting.using("prometheus_client"), ends_with_fork=telemetry.counting):
                assert in_child(count) == 2
        finally:
            telemetry.disable()


class TestFiles:
    def test_a_child_does_not_keep_others_out_of_what_its_parent_had_for_itself(self, tmp_path: Path) -> None:
        """A lock on a file is the child's as well, and would be held as long as it lives."""
        fcntl = pytest.importorskip("fcntl")
        from hf_gateway.storage.files import interprocess_lock

        told, tells = os.pipe()
        ours, theirs = os.pipe()
        with interprocess_lock(tmp_path / "lock"):
            child = os.fork()
            if child == 0:
                os.write(theirs, b"1")
                os.read(told, 1)
                os._exit(0)
            os.read(ours, 1)
        try:
            with (tmp_path / "lock").open("r+") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.write(tells, b"1")
            os.waitpid(child, 0)
            for descriptor in (told, tells, ours, theirs):
                os.close(descriptor)

    def test_a_child_that_leaves_first_takes_nothing_from_its_parent(self, tmp_path: Path) -> None:
        from hf_gateway.storage.files import interprocess_lock

        def others_may_enter() -> bool:
            held = FileLock(tmp_path / "lock", blocking=False)
            try:
                held.acquire()
            except Timeout:
                return False
            held.release()
            return True

        with contextlib.ExitStack() as held:
            held.enter_context(interprocess_lock(tmp_path / "lock", remove=True))
            assert in_child(held.close) is None
            assert not in_child(others_may_enter)
        assert list(tmp_path.iterdir()) == []

    def test_a_lock_that_is_to_be_removed_is_also_where_something_failed(self, tmp_path: Path) -> None:
        from hf_gateway.storage.files import interprocess_lock

        with pytest.raises(ZeroDivisionError), interprocess_lock(tmp_path / "lock", remove=True):
            1 / 0  # noqa: B018
        assert list(tmp_path.iterdir()) == []


ENGINES = ("torch", "openvino", "onnxruntime")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.support.tiny_encoders import encoder

    return encoder(tmp_path_factory.mktemp("models") / "bert")


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_GATEWAY_CONVERTED", str(tmp_path / "converted"))


TEXTS = [f"a text of some length, number {number}" for number in range(64)]


def embedding(model: Path, engine: str, **options: Any) -> Callable[[], list[list[float]]]:
    from hf_gateway import Gateway, Target

    gateway = Gateway(str(model), [Target("local", options={"engine": engine, **options})])
    return lambda: gateway.embed(TEXTS).vectors.tolist()  # type: ignore[no-any-return]


@pytest.mark.slow  # they import torch
class TestEngines:
    @pytest.mark.parametrize("engine", ENGINES)
    def test_a_model_that_the_parent_used_gives_the_child_the_same_vectors(
        self, model: Path, cache: None, engine: str
    ) -> None:
        embed = embedding(model, engine)
        expected = embed()
        assert in_child(embed) == [pytest.approx(row, abs=1e-5) for row in expected]

    @pytest.mark.parametrize("engine", ENGINES)
    def test_so_does_one_that_the_child_loads_itself(self, model: Path, cache: None, engine: str) -> None:
        expected = embedding(model, engine, batch_size=15)()
        found = in_child(lambda: embedding(model, engine, batch_size=16)())
        assert found == [pytest.approx(row, abs=1e-5) for row in expected]

    @pytest.mark.parametrize("engine", ENGINES)
    def test_a_fork_waits_for_what_is_computed(self, model: Path, cache: None, engine: str) -> None:
        embed = embedding(model, engine)
        expected = embed()
        over = threading.Event()

        def work() -> None:
            while not over.is_set():
                embed()

        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(3):
                assert in_child(embed) == [pytest.approx(row, abs=1e-5) for row in expected]
        finally:
            over.set()
            for thread in threads:
                thread.join()

    def test_a_child_never_computes_with_an_inherited_session_of_onnxruntime(
        self, model: Path, cache: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It hangs in some forks only: where a thread of the pool held the lock of a queue at that moment."""
        import onnxruntime

        loaded: dict[int, int] = {}  # session → process
        load, run = onnxruntime.InferenceSession.__init__, onnxruntime.InferenceSession.run

        def loading(self: Any, *given: Any, **named: Any) -> None:
            load(self, *given, **named)
            loaded[id(self)] = os.getpid()

        def running(self: Any, *given: Any, **named: Any) -> Any:
            assert loaded[id(self)] == os.getpid(), "a session of another process"
            return run(self, *given, **named)

        monkeypatch.setattr(onnxruntime.InferenceSession, "__init__", loading)
        monkeypatch.setattr(onnxruntime.InferenceSession, "run", running)
        embed = embedding(model, "onnxruntime", batch_size=13)
        expected = embed()
        assert in_child(lambda: [embed(), embed()][1]) == [pytest.approx(row, abs=1e-5) for row in expected]
        assert embed() == expected

    @pytest.mark.parametrize("engine", ENGINES)
    def test_what_takes_too_long_is_an_error_with_a_remedy(
        self, model: Path, cache: None, engine: str, no_patience: None
    ) -> None:
        from hf_gateway.engines.forked import compute_guard

        embed = embedding(model, engine)
        embed()
        with Held(compute_guard.using(engine)):
            said = in_child(embed)
        assert said.startswith("EngineFailed")
        assert "spawn" in said
        with Held(compute_guard.using("a model's loader")):
            said = in_child(lambda: embedding(model, engine, batch_size=17)())
        assert said.startswith("EngineFailed")
        assert "spawn" in said

    @pytest.mark.parametrize("engine", ENGINES)
    def test_a_model_that_the_child_drops_holds_it_up_neither_then_nor_at_its_end(
        self, model: Path, cache: None, engine: str
    ) -> None:
        """The destructors of the runtimes' objects wait for threads that only the parent has."""
        held = [embedding(model, engine)]
        held[0]()

        def drop() -> str:
            held.clear()
            gc.collect()
            return "dropped"

        assert in_child(drop) == "dropped"
        child = multiprocessing.get_context("fork").Process(target=embedding(model, engine))
        child.start()
        child.join(PATIENCE_S)
        try:
            assert child.exitcode == 0
        finally:
            child.kill()
            child.join()

    @pytest.mark.parametrize("engine", ENGINES)
    def test_a_child_that_has_embedded_ends_as_any_other(self, model: Path, cache: None, engine: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "tests.support.forked_end", str(model), engine],
            cwd=Path(__file__).resolve().parents[2],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    def test_a_model_on_another_device_is_refused_in_the_child(self) -> None:
        from hf_gateway.engines.forked import torch_computes

        parent = os.getpid()

        def compute() -> None:
            with torch_computes("cuda:0", parent):
                pass

        compute()
        said = in_child(compute)
        assert said.startswith("EngineFailed: the model is on cuda:0")
        assert "spawn" in said

    def test_a_chat_goes_on_in_the_child_while_the_parent_answers(self) -> None:
        # In a process of its own: libraries that other tests have loaded have handlers of forks, too, and threads.
        done = subprocess.run(
            [sys.executable, "-m", "tests.support.forked_chat"],
            cwd=Path(__file__).resolve().parents[2],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
