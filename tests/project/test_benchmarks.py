"""The command of the benchmarks: what it lists, what it refuses, and that one runs from end to end. No figure is looked at."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.late import COLLECTED

if COLLECTED:
    from benchmarks import __main__ as command
    from benchmarks.harness.environments import Environments, NotRun
    from benchmarks.harness.measure import Cell, Report, Row, Table, alternate
    from benchmarks.harness.results import text
    from benchmarks.harness.workers import Worker


ROOT = Path(__file__).resolve().parents[2]
NAMES = {
    "local", "cold-start", "overhead", "stream", "ingest", "concurrent", "cache", "growth", "imports", "guard", "observing",
    "server", "usage", "corpus", "corpus-memory", "browser", "hash", "hybrid", "local-memory", "page",
    "model-files", "install-sizes", "quickstart",
}  # fmt: skip


def test_list_names_every_benchmark(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--list"]) == 0
    assert {line.split()[0] for line in capsys.readouterr().out.splitlines()} == NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_listed_benchmark_has_its_module(name: str) -> None:
    assert (ROOT / "benchmarks" / f"{name.replace('-', '_')}.py").is_file()


def test_a_wrong_name_is_refused_with_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        command.main(["local", "loocal"])
    assert refused.value.code == 2
    assert "there is no benchmark 'loocal'" in capsys.readouterr().err


def test_one_benchmark_runs_from_end_to_end_without_peers(tmp_path: Path) -> None:
    arguments = [sys.executable, "-m", "benchmarks", "--quick", "--no-peers", "--output", str(tmp_path), "growth"]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert {file.name for file in tmp_path.iterdir()} == {"growth.md", "growth.json", "growth.svg", "growth.png"}
    found = json.loads((tmp_path / "growth.json").read_text())
    streamed = [row for row in found["tables"][0]["rows"] if row["name"].startswith("Gateway.embed_stream")]
    assert streamed
    assert all(row.get("rounds") for row in streamed), "a stream that was not measured"
    written = (tmp_path / "growth.md").read_text()
    assert "python -m benchmarks --quick --no-peers growth" in written
    assert str(ROOT) not in written


@pytest.mark.parametrize("kind", ["aembed", "chat"])
def test_calls_whose_instructions_are_counted_run_without_sockets(kind: str) -> None:
    arguments = [sys.executable, "-m", "benchmarks.instructions", "--call", kind, "2"]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("arguments", [["ingest_steps", "--queries"], ["layers", "--calls", "query"]], ids=" ".join)
def test_the_scripts_that_measure_cpu_time_run(arguments: list[str]) -> None:
    command_line = [sys.executable, "-m", f"benchmarks.{arguments[0]}", *arguments[1:]]
    done = subprocess.run(command_line, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") > 1


def test_a_peer_that_may_not_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotRun, match=r"^--no-peers$"):
        Environments(peers=False, home=tmp_path).python("litellm")


def test_a_contender_that_cannot_start_gives_its_own_reason(tmp_path: Path) -> None:
    arguments = {"url": "http://127.0.0.1:9", "max_retris": 1}
    with pytest.raises(NotRun, match=r"ConfigError: .*max_retris.*max_retries"):
        Worker(Environments(peers=False, home=tmp_path), "remote:gateway", "own", arguments)


def test_no_reason_names_a_folder_of_this_machine() -> None:
    assert str(NotRun(f"no file {ROOT}/benchmarks/x, nor {Path.home()}/y")) == "no file …/benchmarks/x, nor ~/y"


def test_rows_are_measured_in_turns_and_compared_within_a_round() -> None:
    order: list[str] = []
    rows = {name: Row(name) for name in ("base", "other")}
    speeds = {"base": [1.0, 10.0, 100.0], "other": [2.0, 30.0, 300.0]}

    def cell(name: str) -> Cell:
        def measure(number: int) -> float:
            order.append(name)
            return speeds[name][number]

        return Cell(rows[name], measure)

    alternate([cell("base"), cell("other")], 3)
    assert order == ["base", "other", "other", "base", "base", "other"]
    # The machine became a hundred times slower meanwhile; medians would say 3.0 by chance of the order, rounds say 2, 3, 3.
    assert Table("t", "s", "base", rows=list(rows.values())).ratio(rows["other"]) == 3.0


def test_what_cannot_run_is_a_line_with_its_reason() -> None:
    def fails(_: int) -> float:
        raise NotRun("its server | is gone")

    table = Table("t", "s", "base", rows=[Row("base"), Row("broken")])
    alternate([Cell(table.rows[0], lambda _: 1.0), Cell(table.rows[1], fails)], 2)
    assert "| broken | not run | its server / is gone |" in text(Report("r", [table]))
