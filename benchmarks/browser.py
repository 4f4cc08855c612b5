"""Embeddings in a browser, beside the same model on the server: texts a second and the time of a question, in Chromium.

One server serves the page, its model for browsers and `/v1/embeddings`; all are asked from one page, in turns. A measurement goes
on for a time and not for a count of texts, and rounds end when the time for all of them is over: a slow machine gives fewer.
"""

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.harness.bench import MODEL, Bench
from benchmarks.harness.environments import ROOT, NotRun
from benchmarks.harness.measure import Cell, Report, Row, Table
from benchmarks.harness.processes import ServedProcess
from benchmarks.harness.texts import Kind, texts
from hf_gateway.engines.browser_runtime import COMMAND, RUNTIME

ROUNDS = 5
AIM_S = {True: 0.5, False: 2.0}
"""For how long a cell is measured, by whether this is a quick look."""
BUDGET_S = 120.0
"""After this time no further round begins."""
STEP_MS = 120_000
"""Maximum of one step in the browser, on a machine that does other work."""
BATCH = 16
TABLES: tuple[tuple[str, Kind, int, str], ...] = (
    ("Short texts, 16 at once", "short", BATCH, "texts/s"),
    ("Chunks of 240 tokens, 16 at once", "chunk", BATCH, "texts/s"),
    ("One short text", "short", 1, "ms"),
)
"""Title, kind of texts, how many at once, and what is measured."""
SERVER, IN_PROCESS = "server: /v1/embeddings", "`local` in this process"
CHAIN = f'[chains.docs]\ntargets = ["local:{MODEL}"]\ntruncate = true\n'
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SETUP = """async ([chunk, threads]) => {
  globalThis.lib ??= await import(new URL(`assets/${chunk}`, document.baseURI));
  const baseUrl = new URL("..", document.baseURI).href;
  globalThis.models ??= { server: new lib.GatewayClient({ baseUrl }) };
  const began = performance.now();
  const model = await lib.BrowserEmbedder.load({ baseUrl, model: "docs", threads, truncate: true });
  models[threads] = model;
  return { seconds: (performance.now() - began) / 1000, threads: model.threads, worst: model.agreement.worst };
}"""
MEASURE = """async ([name, texts, step, aim]) => {
  const options = name === "server" ? { model: "docs" } : {};
  const times = [];
  const began = performance.now();
  do {
    const place = (times.length * step) % texts.length;
    const before = performance.now();
    await models[name].embedBatch(texts.slice(place, place + step), options);
    times.push((performance.now() - before) / 1000);
  } while (performance.now() - began < 1000 * aim);
  return times;
}"""


def runtime_folder() -> Path:
    """Return the folder of what runs models in a browser. Raises NotRun where it is not on this machine."""
    known = (RUNTIME.folder, ROOT / "build" / "browser-runtime" / RUNTIME.name)
    found = next((folder for folder in known if folder.is_dir()), None)
    if found is None:
        raise NotRun(f"nothing to run models in a browser with: `{COMMAND}`")
    return found


@contextmanager
def served(bench: Bench) -> Iterator[ServedProcess]:
    """Serve the model, with what runs it in a browser. Raises NotRun where that is not on this machine."""
    runtime = runtime_folder()
    folder = bench.folder / "served"
    folder.mkdir()
    (folder / "hf-gateway.toml").write_text(CHAIN, encoding="utf-8")
    variables = bench.environments.variables({"HF_GATEWAY_CHECK_SPACE": "1"})
    place = Path(variables["HF_GATEWAY_HOME"]) / "browser-runtime"
    place.mkdir(parents=True, exist_ok=True)
    (place / RUNTIME.name).symlink_to(runtime, target_is_directory=True)
    command = [sys.executable, "-m", "hf_gateway", "serve", "--port", "0"]
    with ServedProcess(command, variables, folder, ready="/readyz") as process:
        yield process


@contextmanager
def chromium() -> Iterator[Any]:
    """Start Chromium. Raises NotRun where Chromium or playwright is missing."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        raise NotRun("Chromium is not installed")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise NotRun("playwright is not installed") from None
    with sync_playwright() as driver:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-proxy-server"]
        browser = driver.chromium.launch(executable_path=program, args=flags)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(url: str) -> Iterator[Any]:
    """Open the server's page in Chromium. Raises NotRun where Chromium or playwright is missing."""
    with chromium() as browser:
        page = browser.new_page()
        page.set_default_timeout(STEP_MS)
        page.goto(f"{url}/ui")
        yield page


def run(bench: Bench) -> Report:
    """Measure all in turns."""
    from hf_gateway import Gateway

    chunk = next((ROOT / "shared" / "hf_gateway" / "server" / "page" / "assets").glob("browser-*.js")).name
    report = Report("Embeddings in a browser")
    with ExitStack() as ends:
        process = ends.enter_context(served(bench))
        page = ends.enter_context(opened(process.url))
        gateway = ends.enter_context(Gateway(MODEL, ["local"], truncate=True))
        parties: dict[str, Callable[[list[str], int, float], list[float]]] = {}
        for threads in (1, 2):
            found = page.evaluate(SETUP, [chunk, threads])
            name = f"browser: WebAssembly, {found['threads']} thread{'s' if found['threads'] > 1 else ''}"
            parties[name] = _in_page(page, threads)
            report.notes.append(
                f"{name}: loaded and compared with the server's space in {found['seconds']:.1f} s; "
                f"worst cosine {found['worst']:.6f}."
            )
        parties[SERVER] = _in_page(page, "server")
        parties[IN_PROCESS] = lambda given, step, aim: _timed(gateway, given, step, aim)
        aim = AIM_S[bench.quick]
        cells: list[Cell] = []
        for title, kind, step, wanted in TABLES:
            table = Table(title, wanted, SERVER, more=wanted == "texts/s", digits=1)
            given = _texts(kind)
            for name, measure in parties.items():
                measure(given, step, 0.0)  # the first batch of a length compiles and allocates
                row = Row(name, ours=True)
                table.rows.append(row)
                cells.append(Cell.of(row, _value, measure, given, step, aim, wanted))
            report.tables.append(table)
        began = time.perf_counter()
        done = 0
        for number in range(bench.rounds(ROUNDS)):
            if number and time.perf_counter() - began > BUDGET_S:
                break
            _round(cells, number)
            done += 1
    report.notes.append(
        f"{done} rounds of {aim:g} s a figure; {MODEL}, asked from the page but for {IN_PROCESS}. The server computes with an "
        "engine of its own in all threads that it takes; the browser with 8-bit weights in the same vector space."
    )
    return report


def _round(cells: list[Cell], number: int) -> None:
    """Measure every cell once, another one first each time."""
    start = number % len(cells)
    for cell in cells[start:] + cells[:start]:
        cell.row.values[number] = cell.measure(number)


def _texts(kind: Kind) -> list[str]:
    return texts(kind, 4 * BATCH)


def _in_page(page: Any, name: int | str) -> Callable[[list[str], int, float], list[float]]:
    def measure(given: list[str], step: int, aim: float) -> list[float]:
        times: list[float] = page.evaluate(MEASURE, [name, given, step, aim])
        return times

    return measure


def _timed(gateway: Any, given: list[str], step: int, aim: float) -> list[float]:
    """Return the seconds of each call, one at least, until the time is over."""
    times: list[float] = []
    began = time.perf_counter()
    while not times or time.perf_counter() - began < aim:
        place = (len(times) * step) % len(given)
        before = time.perf_counter()
        gateway.embed(given[place : place + step])
        times.append(time.perf_counter() - before)
    return times


def _value(
    measure: Callable[[list[str], int, float], list[float]], given: list[str], step: int, aim: float, wanted: str
) -> float:
    """Return texts a second, or the median milliseconds of a call."""
    times = measure(given, step, aim)
    return step * len(times) / sum(times) if wanted == "texts/s" else 1000 * sorted(times)[len(times) // 2]
