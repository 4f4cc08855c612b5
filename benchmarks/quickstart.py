"""`make quickstart` in a fresh copy of the repository without any cache: setting up, then index and answers of both frameworks.

How long setting up takes depends on the package index, too; processor time is told beside it.
"""

import os
import resource
import shutil
import subprocess
import time
from pathlib import Path

from benchmarks.harness.bench import Bench
from benchmarks.harness.environments import ROOT, NotRun
from benchmarks.harness.measure import Cell, Report, Row, Table, alternate

ROUNDS = 2
LIMIT_S = 900
ENVIRONMENT = ".venv-quickstart"


def run(bench: Bench) -> Report:
    """Measure: each round a copy of its own."""
    whole, processor = Table("From the command on", "s", None, digits=1), Table("Processor time", "s", None, digits=1)
    sizes = Table("On the disk", "MB", None, charted=False)
    names = ("setting up", "index and answers")
    for table in (whole, processor):
        table.rows += [Row(name, ours=True) for name in names]
    size = Row(f"the environment, {ENVIRONMENT}", ours=True)
    sizes.rows.append(size)

    def set_up(number: int) -> float:
        copy = _copy(bench.folder / f"round {number}".replace(" ", "-"))
        variables = _variables(copy)
        seconds, used = _timed(["make", f"{ENVIRONMENT}/.ready"], copy, variables)
        processor.rows[0].values[number] = used
        size.values[number] = _bytes(copy / ENVIRONMENT) / 1e6
        variables |= bench.environments.variables()  # offline, and without a key
        variables["HF_GATEWAY_HOME"] = variables["HF_HOME"] = str(copy / "home")
        whole.rows[1].values[number], processor.rows[1].values[number] = _timed(["make", "quickstart"], copy, variables)
        shutil.rmtree(copy)
        return seconds

    alternate([Cell(whole.rows[0], set_up)], bench.rounds(ROUNDS))
    notes = [
        "Each round in a copy of the tracked files, without caches of uv and pip, from the package index that pip is set to.",
        "Index and answers: Python's language reference in both frameworks, all-MiniLM-L6-v2 in the process, offline.",
        "LlamaIndex has its vectors from the cache of LangChain's.",
    ]
    return Report("make quickstart", [whole, processor, sizes], notes)


def _copy(folder: Path) -> Path:
    """Copy the tracked files into a folder, and return it. Raises NotRun where there is no git."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotRun("git does not know the files of the repository")
    for name in filter(None, done.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def _variables(copy: Path) -> dict[str, str]:
    caches = {"UV_CACHE_DIR": str(copy / "cache-of-uv"), "PIP_NO_CACHE_DIR": "1"}
    return {**{name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}, **caches}


def _timed(command: list[str], folder: Path, variables: dict[str, str]) -> tuple[float, float]:
    """Run a command; return its seconds, and those of processor time of all its processes. Raises NotRun."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        command, cwd=folder, env=variables, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise NotRun((done.stderr.strip() or f"it ended with {done.returncode}").splitlines()[-1])
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and not file.is_symlink())
