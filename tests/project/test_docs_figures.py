"""The figures that pages say were measured stand in the results that the same part of the page links or names."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
MEASURED = {
    "benchmarks.md": "# Benchmarks",
    "browser.md": "## How fast",
    "comparison.md": "# Compared with others",
    "corpus.md": "## How fast, and what a kill leaves",
}
"""Page → the heading of what was measured."""
REDUCED = {
    "7.7": "20,000 vectors of 384 numbers, in millions",
    "1.11": "23.4 of two workers over 21.1 of one",
    "1.07": "25.8 of two workers on Ray over 24.2 of one",
    "4": "21.1 of files over 21.9 of the stream, in percent",
}
"""Figures that are arithmetic over measured ones, and which."""


def measured(page: str) -> str:
    """Return the part of a page that follows its heading, up to the next of the same rank, without code."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    heading = MEASURED[page]
    rank = heading.split(" ", 1)[0]
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    text = text[text.index(f"{heading}\n") + len(heading) :]
    return re.split(rf"^{rank} ", text, maxsplit=1, flags=re.MULTILINE)[0]


def parts(page: str) -> Iterator[tuple[str, list[Path]]]:
    """Yield each part of a page with its results: a part ends with its picture, as the pages are written."""
    for text in re.split(r"(?<=\.svg\)\n)", measured(page)):
        linked = re.findall(r"benchmarks/results/([\w/-]+)\.(?:md|svg)", text)
        linked += [name for words in re.findall(r"`python -m benchmarks ([a-z -]+)`", text) for name in words.split()]
        if "results/avx2)" in text:
            linked += [path.relative_to(RESULTS).with_suffix("").as_posix() for path in RESULTS.glob("avx2/*.md")]
        yield text, [RESULTS / f"{name}.md" for name in dict.fromkeys(linked)]


def numbers(text: str) -> set[str]:
    return {each.rstrip(",") for each in re.findall(r"(?<![\w.,])\d[\d,]*(?:\.\d+)?", text)}


def is_there(figure: str, known: set[str]) -> bool:
    """Return whether a figure is among those of a table, or one of them rounded to its places."""
    places = len(figure.partition(".")[2])
    value = float(figure.replace(",", ""))
    return figure in known or any(
        len(each.partition(".")[2]) > places and f"{float(each.replace(',', '')):.{places}f}" == f"{value:.{places}f}"
        for each in known
    )


@pytest.mark.parametrize("page", MEASURED)
def test_each_measured_figure_of_a_page_stands_in_the_results_that_it_links(page: str) -> None:
    unknown = []
    for text, results in parts(page):
        shown = numbers(re.sub(r"`[^`\n]*`|\]\([^)\n]*\)", "", text)) - REDUCED.keys()
        if page == "comparison.md":
            results = list(RESULTS.glob("*.md"))  # one row says what several tables show
        assert results or not shown, text
        known = set().union(*(numbers(path.read_text(encoding="utf-8")) for path in results))
        unknown += [figure for figure in sorted(shown) if not is_there(figure, known)]
    assert unknown == []


def test_what_is_arithmetic_is_right() -> None:
    assert round(20_000 * 384 / 1e6, 1) == 7.7
    (table,) = [text for text, _ in parts("corpus.md") if "**local engine**" in text]
    speed = [
        float(each)
        for each in re.findall(r"^\| \*\*(?:`embed_stream`|local|Ray).*?\| [12] \| ([\d.]+) \|", table, re.MULTILINE)
    ]
    stream, one, two, ray_one, ray_two = speed
    assert (round(two / one, 2), round(ray_two / ray_one, 2)) == (1.11, 1.07)
    assert round(100 * (1 - one / stream)) == 4


def test_a_figure_that_was_never_measured_would_be_found() -> None:
    known = numbers("| ours | 2,244 | (2,212-2,269) | 4.03 | 0.093 |")
    assert [each for each in ("2,244", "4.0", "0.09", "4.1", "2,245") if not is_there(each, known)] == ["4.1", "2,245"]
