"""What a corpus takes, from 100,000 to a billion texts: `python -m benchmarks.capacity` writes the table in docs/corpus.md.

Speed and lengths are those of `benchmarks/results/local.json`; a test holds the page to them.
"""

import json
import re
import sys

from benchmarks.install_sizes import ROOT

PAGE = ROOT / "docs" / "corpus.md"
RESULTS = ROOT / "benchmarks" / "results" / "local.json"
HEAD = (
    "| texts | tokens | hours on two cores | GPU hours at 1 M tokens/s | hours at 1 M tokens/min | USD at 0.02 a M tokens | "
    "parts | float32 | float16 | `--since` index |"
)
DIMENSION = 384
SHARD_ROWS = 10_000
ROW_BYTES = 16 + 12
"""Of the hash of a text and of an id of twelve characters."""
INDEX_BYTES = 24
"""Of memory for each text of an earlier job."""
GPU_TOKENS_PER_S = 1e6
LIMIT_TOKENS_PER_MIN = 1e6
USD_PER_MILLION_TOKENS = 0.02


def measured() -> tuple[float, int]:
    """Return texts per second and tokens per text of the model in this process on passages, as measured."""
    tables = json.loads(RESULTS.read_bytes())["tables"]
    passages = next(each for each in tables if each["title"].startswith("Chunk texts"))
    found = re.search(r"(\d+) tokens", passages["title"])
    assert found is not None
    row = next(each for each in passages["rows"] if each["name"] == "Gateway, as it comes")
    return row["median"], int(found[1])


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.2g}"


def table() -> str:
    """Return the table."""
    texts_per_s, tokens = measured()
    lines = [HEAD, "|" + "---:|" * HEAD.count(" | ") + "---:|"]
    for power in range(5, 10):
        texts = 10**power
        total = texts * tokens
        cells = [
            f"{texts:,}",
            f"{_short(total / 1e6)} M",
            _short(texts / texts_per_s / 3600),
            _short(total / GPU_TOKENS_PER_S / 3600),
            _short(total / LIMIT_TOKENS_PER_MIN / 60),
            _short(total / 1e6 * USD_PER_MILLION_TOKENS),
            f"{-(-texts // SHARD_ROWS):,}",
            f"{_short(texts * (DIMENSION * 4 + ROW_BYTES) / 1e9)} GB",
            f"{_short(texts * (DIMENSION * 2 + ROW_BYTES) / 1e9)} GB",
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
