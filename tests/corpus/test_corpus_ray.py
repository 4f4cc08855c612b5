"""Bulk embedding on Ray: a cluster of two nodes on the loopback address that wants a token, and one that a job starts itself."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from hf_gateway.cli import main
from tests.corpus.kills import COMMAND, corpus, ids_of, play
from tests.support.late import COLLECTED
from tests.support.processes import family, title
from tests.support.ray_cluster import RayCluster, ray_cluster
from tests.support.ways import until

if COLLECTED:
    from hf_gateway.corpus import embed_dataset
    from hf_gateway.errors import ConfigError

pytestmark = [
    pytest.mark.xdist_group("ray"),
    pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc"),
]
ROWS, SHARD_ROWS = 4000, 50


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with ray_cluster() as made:
        yield made


class Job:
    """A job on Ray as a process, whose lines are read one by one."""

    def __init__(self, source: Path, out: Path, environment: Mapping[str, str], workers: int = 2) -> None:
        words = ["--engine", "ray", "--workers", str(workers), "--shard-rows", str(SHARD_ROWS), str(source), str(out)]
        self.process = subprocess.Popen(
            [*COMMAND, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, **environment},
        )

    def wait_for_parts(self, count: int) -> None:
        assert self.process.stderr is not None
        told = []
        while count:
            line = self.process.stderr.readline()
            told.append(line)
            assert line, "".join(told)
            count -= line.startswith('{"part"')

    def end(self) -> tuple[int, str, str]:
        out, err = self.process.communicate()
        return self.process.returncode, out, err


def check(out: Path) -> None:
    assert ids_of(out) == [f"d{row}" for row in range(ROWS)]
    assert not list(out.glob(".part-*"))


def test_a_node_that_dies_costs_no_row(cluster: RayCluster, tmp_path: Path) -> None:
    out = tmp_path / "out"
    job = Job(corpus(tmp_path, ROWS), out, cluster.environment)
    job.wait_for_parts(3)
    until(lambda: len(cluster.workers()) == 2)
    job.wait_for_parts(1)
    cluster.kill_node()
    code, said, errors = job.end()
    assert code == 0, errors
    assert json.loads(said)["rows"] == ROWS
    check(out)
    cluster.add_node()


def test_killed_workers_nodes_drivers_and_groups_lose_and_double_nothing(cluster: RayCluster, tmp_path: Path) -> None:
    out = tmp_path / "out"
    made = play(corpus(tmp_path, ROWS), out, kills=4, shard_rows=SHARD_ROWS, seed=3, cluster=cluster)
    assert made.kills.total() == 4
    check(out)
    assert max(made.parts.values()) == 1
    assert max(made.repeated) <= 2
    until(lambda: not made.alive())
    assert not made.late


def test_a_wrong_token_is_refused_by_name(cluster: RayCluster, tmp_path: Path) -> None:
    job = Job(corpus(tmp_path, 100), tmp_path / "out", {**cluster.environment, "RAY_AUTH_TOKEN": "0" * 64})
    code, _, errors = job.end()
    assert code == 2
    assert "cannot be joined" in errors


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_cluster_that_the_job_started_is_on_loopback_and_ends_with_its_driver(tmp_path: Path, number: int) -> None:
    source, out = corpus(tmp_path, ROWS), tmp_path / "out"
    job = Job(source, out, {"RAY_ADDRESS": ""})
    job.wait_for_parts(1)
    processes = family(job.process.pid)
    names = " ".join(title(process.pid) for process in processes)
    assert "raylet" in names
    assert "gcs_server" in names
    until(lambda: actors(job))
    assert {os.getpriority(os.PRIO_PROCESS, pid) for pid in actors(job)} == {os.getpriority(os.PRIO_PROCESS, 0)}
    assert not [address for process in processes for address in listening(process.pid) if address != "127.0.0.1"]
    if number == signal.SIGKILL:
        os.kill(job.process.pid, number)
    else:
        os.killpg(job.process.pid, number)  # as a terminal does
    code, _, errors = job.end()
    if number == signal.SIGINT:
        assert code == 130
        assert "run the same command again to go on" in errors
    until(lambda: not [process for process in processes if process.is_alive])
    report = embed_dataset(source, out, targets=["hash:64"], shard_rows=SHARD_ROWS)
    assert report.resumed >= 1
    check(out)


def actors(job: Job) -> list[int]:
    """Return the processes of a job's own cluster that embed."""
    return [each.pid for each in family(job.process.pid) if title(each.pid).startswith("ray::ShardActor")]


def listening(pid: int) -> set[str]:
    """Return the addresses at which a process listens."""
    try:
        links = {str(each.readlink()) for each in Path(f"/proc/{pid}/fd").iterdir()}
    except OSError:
        return set()
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text(encoding="utf-8").splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in links:
                found.add(_address(fields[1].partition(":")[0]))
    return found


def _address(digits: str) -> str:
    import ipaddress

    raw = b"".join(bytes.fromhex(digits[at : at + 8])[::-1] for at in range(0, len(digits), 8))
    address = ipaddress.ip_address(raw)
    return str(getattr(address, "ipv4_mapped", None) or address)


def test_without_ray_the_command_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    words = [
        "embed-corpus",
        str(corpus(tmp_path, 10)),
        str(tmp_path / "out"),
        "--targets",
        "hash:64",
        "--engine",
        "ray",
    ]
    assert main(words) == 2
    assert "pip install 'hf-gateway[ray]'" in capsys.readouterr().err
    assert "RAY_AUTH_TOKEN" not in os.environ


def test_shares_of_gpus_need_ray_and_engines_have_names(tmp_path: Path) -> None:
    source = corpus(tmp_path, 10)
    with pytest.raises(ConfigError, match="engine 'ray'"):
        embed_dataset(source, tmp_path / "out", targets=["hash:64"], gpus=0.5)
    with pytest.raises(ConfigError, match="there is no engine 'spark'"):
        embed_dataset(source, tmp_path / "out", targets=["hash:64"], engine="spark")
