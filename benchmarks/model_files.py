"""The files that are fetched or made once to run models, in this process and in browsers."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from unittest.mock import patch

from benchmarks.browser import runtime_folder
from benchmarks.harness.bench import MODEL, Bench
from benchmarks.harness.environments import NotRun
from benchmarks.harness.measure import Cell, Report, Row, Table, alternate
from benchmarks.local import folder_of_model
from hf_gateway.engines.browser_files import GRAPH, browser_files
from hf_gateway.engines.browser_runtime import RUNTIME
from hf_gateway.engines.sources import find

MB = 1e6
WEBASSEMBLY = ("transformers.min.js", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
WEBGPU = ("transformers.min.js", "ort-wasm-simd-threaded.asyncify.mjs", "ort-wasm-simd-threaded.asyncify.wasm")
"""What a browser loads of the runtime."""


def run(bench: Bench) -> Report:
    """Measure each once: sizes of files."""
    table = Table("Files", "MB", None, digits=1)
    measures: dict[str, Callable[[], float]] = {
        "all-MiniLM-L6-v2, as `offline-model` fetches it": _model,
        "all-MiniLM-L6-v2 for browsers, made by the server": lambda: _model_for_browsers(bench.folder),
        "runtime for browsers: what npm downloads": lambda: _download(bench.folder),
        "runtime for browsers: its files": lambda: _sizes(RUNTIME.files),
        "runtime for browsers: loaded for WebAssembly": lambda: _sizes(WEBASSEMBLY),
        "runtime for browsers: loaded for WebAssembly, compressed": lambda: _sizes(WEBASSEMBLY, ".gz"),
        "runtime for browsers: loaded for WebGPU": lambda: _sizes(WEBGPU),
        "runtime for browsers: loaded for WebGPU, compressed": lambda: _sizes(WEBGPU, ".gz"),
    }
    cells = [Cell.of(Row(name, ours=True), measure) for name, measure in measures.items()]
    table.rows += [cell.row for cell in cells]
    alternate(cells, 1)
    return Report("Files to run models", [table], [f"In 10^6 bytes. The runtime is {RUNTIME.name}."])


def _sizes(names: Iterable[str], suffix: str = "") -> float:
    return sum((runtime_folder() / f"{name}{suffix}").stat().st_size for name in names) / MB


def _model() -> float:
    return sum(file.stat().st_size for file in Path(folder_of_model()).rglob("*") if file.is_file()) / MB


def _model_for_browsers(folder: Path) -> float:
    files = find(MODEL)
    if files is None:
        raise NotRun(f"{MODEL} is not on this machine")
    with patch.dict(os.environ, {"HF_GATEWAY_HOME": str(folder / "made")}):
        return browser_files(files)[GRAPH].path.stat().st_size / MB


def _download(folder: Path) -> float:
    npm = shutil.which("npm")
    if npm is None:
        raise NotRun("npm is not installed")
    names = [f"{package.name}@{package.version}" for package in RUNTIME.packages]
    done = subprocess.run([npm, "pack", *names, "--ignore-scripts"], cwd=folder, capture_output=True, check=False)
    if done.returncode:
        raise NotRun("npm could not fetch the packages")
    return sum(file.stat().st_size for file in folder.glob("*.tgz")) / MB
