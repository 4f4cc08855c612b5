"""What a corpus takes, from 100,000 to a billion texts: `python -m benchmarks.capacity` writes the table in docs/corpus.md.

Speed, lengths and sizes are those of `benchmarks/results/corpus.json`; a test holds the page to them.
"""

import json
import sys
from dataclasses import dataclass

from benchmarks.install_sizes import ROOT

PAGE = ROOT / "docs" / "corpus.md"
RESULTS = ROOT / "benchmarks" / "results" / "corpus.json"
HEAD = (
    "| texts | tokens | hours on two cores | GPU hours at 1 M tokens/s | hours at 1 M tokens/min | USD at 0.02 a M tokens | "
    "parts | float32 | float16 | `--since` index |"
)
SHARD_ROWS = 10_000
INDEX_BYTES = 24
"""Of memory for each text of an earlier job."""
GPU_TOKENS_PER_S = 1e6
LIMIT_TOKENS_PER_MIN = 1e6
USD_PER_MILLION_TOKENS = 0.02


@dataclass(frozen=True)
class Measured:
    """What the benchmark of bulk embedding found."""

    texts_per_s: float
    """Of the local engine with one worker."""
    tokens: int
    """Of a text."""
    dimension: int
    """Numbers of a vector."""
    row_bytes: float
    """Of a row on the disk, as float32."""
    half_row_bytes: float
    """The same as float16."""
    resume_s: float
    """Seconds for the resume of a job with a quarter of a million finished parts."""


def measured() -> Measured:
    """Return what was measured."""
    found = json.loads(RESULTS.read_bytes())
    tables = {table["title"]: {row["name"]: row for row in table["rows"]} for table in found["tables"]}
    more = found["more"]
    return Measured(
        texts_per_s=tables["Embedding"]["local engine, 1 worker"]["median"],
        tokens=round(more["tokens_a_text"]),
        dimension=more["dimension"],
        row_bytes=more["bytes_a_row"]["float32"],
        half_row_bytes=more["bytes_a_row"]["float16"],
        resume_s=tables["Planning a resume"]["250,000 finished parts"]["median"],
    )


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.2g}"


def table() -> str:
    """Return the table."""
    found = measured()
    lines = [HEAD, "|" + "---:|" * HEAD.count(" | ") + "---:|"]
    for power in range(5, 10):
        texts = 10**power
        total = texts * found.tokens
        cells = [
            f"{texts:,}",
            f"{_short(total / 1e6)} M",
            _short(texts / found.texts_per_s / 3600),
            _short(total / GPU_TOKENS_PER_S / 3600),
            _short(total / LIMIT_TOKENS_PER_MIN / 60),
            _short(total / 1e6 * USD_PER_MILLION_TOKENS),
            f"{-(-texts // SHARD_ROWS):,}",
            f"{_short(texts * found.row_bytes / 1e9)} GB",
            f"{_short(texts * found.half_row_bytes / 1e9)} GB",
            f"{_short(texts * INDEX_BYTES / 1e9)} GB",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def written_table(page: str) -> str:
    """Return the table in a page."""
    lines = page[page.index(HEAD) :].splitlines(keepends=True)
    end = next((at for at, line in enumerate(lines) if not line.startswith("|")), len(lines))
    return "".join(lines[:end])


def main() -> int:
    """Write the table into the page."""
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(page.replace(written_table(page), table()), encoding="utf-8")
    sys.stdout.write(table())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
