"""Several worker processes: one that is killed is replaced, signals reach all, and nobody is left behind."""

import os
import signal
from pathlib import Path

import pytest

from tests.server.faults.load import EMBEDDING, Load, wait_until
from tests.server.test_openai_chat import ASK
from tests.server.test_streams import WAITS, raw_request
from tests.servers.loopback import stall_stream
from tests.servers.openai import FakeOpenAI
from tests.support.gateway_server import HASH_CHAIN, START_S, ServerProcess, chat_chain

ANOTHER = '[chains.other]\ntargets = ["hash:32"]\n'

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the workers under /proc")


def children(pid: int) -> list[int]:
    """Return the worker processes of a server."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            command = (stat.parent / "cmdline").read_bytes()
        except (OSError, IndexError):
            continue
        if parent == pid and b"spawn_main" in command:
            found.append(int(stat.parent.name))
    return sorted(found)


def models(process: ServerProcess) -> int:
    """Return how many chains a worker has."""
    with process.client() as client:
        return len(client.get("/v1/models").json()["data"])


def test_a_worker_that_is_killed_is_replaced_while_the_other_goes_on() -> None:
    with ServerProcess(HASH_CHAIN, "--workers", "2") as process, process.client() as client:
        assert client.get("/readyz").text == "ready"
        before = children(process.pid)
        assert len(before) == 2
        with Load([process.url], 4, kinds=[EMBEDDING]) as load:
            load.more(50)
            os.kill(before[0], signal.SIGKILL)
            # The killed one may still be seen for a moment: only a process that was not there before takes its place.
            wait_until(lambda: len(set(children(process.pid)) - set(before)) == 1, "no new worker")
            load.more(50)
        # A connection that the killed one held is gone, and no more than those.
        assert sum(count for found, count in load.seen.items() if found != "200") <= 4, load.seen
        process.signal(signal.SIGTERM)
        assert process.wait() == 0
    assert "is replaced" in process.log


def test_sighup_reloads_every_worker_without_a_failed_request_and_keeps_the_processes() -> None:
    with ServerProcess(HASH_CHAIN, "--workers", "2") as process:
        assert models(process) == 1
        before = children(process.pid)
        with Load([process.url], 4, kinds=[EMBEDDING]) as load:
            load.more(20)
            # The mistake first, since each worker says that it read it: one that is late for a right file would read the next.
            Path("served.toml").write_text("[chains.docs")
            process.signal(signal.SIGHUP)
            wait_until(lambda: process.log.count("the old one stays in force") >= 2, "the mistake is not logged")
            assert {models(process) for _ in range(20)} == {1}
            Path("served.toml").write_text(HASH_CHAIN + ANOTHER)
            process.signal(signal.SIGHUP)
            wait_until(lambda: {models(process) for _ in range(20)} == {2}, "not every worker has the new chain")
            load.more(20)
        assert set(load.seen) == {"200"}
        assert {models(process) for _ in range(20)} == {2}
        assert children(process.pid) == before


def test_a_reload_does_not_end_a_worker_that_still_starts() -> None:
    with ServerProcess(HASH_CHAIN, "--workers", "2") as process:
        assert models(process) == 1
        first, second = children(process.pid)
        os.kill(second, signal.SIGKILL)
        wait_until(lambda: len(set(children(process.pid)) - {first, second}) == 1, "the worker is not replaced")
        (third,) = set(children(process.pid)) - {first, second}
        os.kill(third, signal.SIGHUP)
        Path("served.toml").write_text(HASH_CHAIN + ANOTHER)
        process.signal(signal.SIGHUP)
        wait_until(lambda: {models(process) for _ in range(20)} == {2}, "not every worker has the new chain")
        assert third in children(process.pid)


def test_sigterm_ends_all_workers_and_no_connection_waits_for_nobody(primary: FakeOpenAI) -> None:
    stall = stall_stream(2)
    primary.always(stall)
    with ServerProcess(chat_chain(primary.url, more=WAITS), "--workers", "2", "--grace", "60") as process:
        connection = raw_request(process.url, {"messages": ASK, "stream": True})
        assert stall.reached.wait(START_S)
        process.signal(signal.SIGTERM)

        def refuses() -> bool:
            try:
                other = raw_request(process.url, {})
                other.settimeout(0.1)
                with other:
                    other.recv(1)
            except ConnectionError:
                return True
            except TimeoutError:
                return False
            return False

        wait_until(refuses, "new connections are still accepted")
        stall.release()
        received = b""
        while part := connection.recv(65536):
            received += part
        assert process.wait() == 0
    assert b"data: [DONE]" in received


def test_workers_end_with_their_supervisor() -> None:
    with ServerProcess(HASH_CHAIN, "--workers", "2") as process:
        assert models(process) == 1
        workers = children(process.pid)
        process.signal(signal.SIGKILL)
        process.wait()
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), "workers are left")
