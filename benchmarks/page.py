"""The page of the server in Chromium: what its first load and its views transfer, and when the first load is painted."""

import sys
from typing import Any

from benchmarks.browser import STEP_MS, chromium
from benchmarks.harness.bench import Bench
from benchmarks.harness.measure import Cell, Report, Row, Table, alternate
from benchmarks.harness.processes import ServedProcess

ROUNDS = 15
PARTS = {
    "Compare": ("compare-",),
    "Images": ("images-",),
    "Models": ("models-",),
    "Usage": ("usage-",),
    "Keys": ("keys-",),
    "models in the browser": ("browser-", "worker-"),
}
"""What is loaded when it is shown, or asked for → how the names of its files begin."""
CHAIN = '[chains.hash]\ntargets = ["hash"]\n'
PAINT = """() => new Promise((done) => new PerformanceObserver((list) => {
  const [first] = list.getEntriesByName("first-contentful-paint");
  if (first !== undefined) done(first.startTime);
}).observe({type: "paint", buffered: true}))"""
TRANSFERRED = """() => [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")]
.filter((each) => /\\/ui\\/($|assets)/.test(each.name)).map((each) => each.encodedBodySize)"""
FETCH = """(name) => fetch(`assets/${name}`).then((answer) => answer.arrayBuffer()).then(() => {
  const address = new URL(`assets/${name}`, document.baseURI).href;
  return performance.getEntriesByName(address)[0].encodedBodySize;
})"""


def run(bench: Bench) -> Report:
    """Measure; sizes once, the paint by loads with an empty cache and again from the browser's cache."""
    from hf_gateway.server.surfaces.page import page_files

    sizes = Table("Transferred, compressed, without headers", "kB", None, digits=1, columns=["files"])
    paint = Table("First contentful paint", "ms", None)
    first, again = Row("first load", ours=True), Row("again, from the browser's cache", ours=True)
    paint.rows += [first, again]
    folder = bench.folder / "served"
    folder.mkdir()
    (folder / "hf-gateway.toml").write_text(CHAIN, encoding="utf-8")
    command = [sys.executable, "-m", "hf_gateway", "serve", "--port", "0"]
    variables = bench.environments.variables()
    with ServedProcess(command, variables, folder, ready="/readyz") as process, chromium() as browser:

        def load(number: int) -> float:
            context = browser.new_context()
            context.set_default_timeout(STEP_MS)
            page = context.new_page()
            page.goto(f"{process.url}/ui/")
            painted: float = page.evaluate(PAINT)
            if not sizes.rows:
                _sizes(page, sizes, list(page_files()))
            page.goto("about:blank")
            page.goto(f"{process.url}/ui/")
            again.values[number] = page.evaluate(PAINT)
            context.close()
            return painted

        load(0)  # the browser's own start is not the page's
        again.values.clear()
        alternate([Cell(first, load)], bench.rounds(ROUNDS))
        version = browser.version
    report = Report("The page: its first load", [sizes, paint])
    least, most = min(first.values.values()), max(first.values.values())
    report.notes += [
        f"Chromium {version} without a window, the server on the same machine; each first load in a profile of its own.",
        f"The first loads were painted after {least:.0f} to {most:.0f} ms.",
        "The code of a view is loaded when the view is shown, that of models in the browser when one is asked for.",
    ]
    return report


def _sizes(page: Any, table: Table, names: list[str]) -> None:
    """Fill the table of what is transferred."""
    loaded = page.evaluate(TRANSFERRED)
    table.rows.append(Row("first load", ours=True, values={0: sum(loaded) / 1e3}, extra={"files": str(len(loaded))}))
    assets = [name.removeprefix("assets/") for name in names if name.startswith("assets/")]
    for part, begins in PARTS.items():
        files = [name for name in assets if name.startswith(begins)]
        size = sum(page.evaluate(FETCH, name) for name in files)
        table.rows.append(Row(part, ours=True, values={0: size / 1e3}, extra={"files": str(len(files))}))
