"""The figures that pages say were measured stand in the results that the same part of the page links or names.

Of a part that is about measurements, every number counts; elsewhere every number with a unit, and every one with three decimals.
"""

import gzip
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.page_build import BUILT

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
RESULTS = ROOT / "benchmarks" / "results"
PAGES = ["../README.md", *sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))]
MEASURED = {
    "benchmarks.md": "# Benchmarks",
    "browser.md": "## How fast",
    "comparison.md": "# Compared with others",
    "corpus.md": "## How fast, and what a kill leaves",
    "hybrid.md": "## Is it better?",
    "install.md": "## Sizes",
    "local.md": "## Memory",
    "page.md": "## First load",
    "quickstart.md": "## How long it takes",
}
"""Page → the heading of what was measured."""
REDUCED = {
    "7.7": "20,000 vectors of 384 numbers, in millions",
    "1.11": "23.4 of two workers over 21.1 of one",
    "1.07": "25.8 of two workers on Ray over 24.2 of one",
    "4": "21.1 of files over 21.9 of the stream, in percent",
}
"""Figures that are arithmetic over measured ones, and which."""
PARTS_OF_THE_QUESTIONS = {"44", "16", "30"}
"""In hybrid.md: questions in own words and by name, of 60, and passages that are reranked."""
UNITS = "s|ms|µs|seconds?|minutes?|hours?|days?|[kMGT]i?B|%|percent|×|x|times|fold"
RATES = r"(?:\w+ ){0,2}a (?:second|minute|hour)|\w+/s"
FIGURE = re.compile(rf"(?<![\w.,])(\d[\d,]*(?:\.\d+)?(?: (?:{RATES})|[ -]?(?:{UNITS}))|\d+\.\d{{3,}}|\d+e-\d+)(?!\w)")
NOT_MEASURED = {
    "browser.md": {"0.999", "2 GiB", "512 MiB", "30 seconds"},
    "classes.md": {"0.002"},
    "commands.md": {"0s"},
    "configuration.md": {"10 seconds"},
    "corpus.md": {"64 MiB", "95 %", "10 s"},
    "costs.md": {"0.125 ms", "17 minutes", "19 %", "30 s"},
    "hub.md": {"20 kB a second", "60 s", "15 s", "30 s"},
    "local.md": {"0.999", "0.99999", "5e-5"},
    "metrics.md": {"10 ms", "82 s"},
    "page.md": {"24 hours", "90 days", "5 seconds"},
    "promises.md": {"15 seconds"},
    "server.md": {"0.999", "5 seconds", "12 hours", "5 s"},
    "targets.md": {"10 requests a minute", "10 seconds", "16 seconds", "4 seconds", "3 seconds"},
    "tasks.md": {"180 s", "600 s", "32 MB"},
    "typescript.md": {"2 kB"},
}
"""Page → its figures with a unit that are settings, limits or definitions of the code, or that another test asserts."""
ASSERTED = {"corpus.md": "## To a billion texts"}
"""Page → the heading of figures that tests/corpus/test_corpus_page.py computes from the results."""


def prose(page: str) -> str:
    return re.sub(r"^```.*?^```", "", (DOCS / page).read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def plain(text: str) -> str:
    """Return a text without what is code or an address."""
    return re.sub(r"`[^`\n]*`|\]\([^)\n]*\)", "", text)


def below(page: str, heading: str) -> str:
    """Return the part of a page that follows a heading, up to the next of the same rank, without code."""
    rank = heading.split(" ", 1)[0]
    text = prose(page)
    text = text[text.index(f"{heading}\n") + len(heading) :]
    return re.split(rf"^{rank} ", text, maxsplit=1, flags=re.MULTILINE)[0]


def named_results(text: str) -> list[Path]:
    """Return the results that a text links, or names by the command that makes them."""
    linked = re.findall(r"benchmarks/results/([\w/-]+)\.(?:md|svg)", text)
    linked += [name for words in re.findall(r"`python -m benchmarks ([a-z -]+)`", text) for name in words.split()]
    if "results/avx2)" in text:
        linked += [path.relative_to(RESULTS).with_suffix("").as_posix() for path in RESULTS.glob("avx2/*.md")]
    return [RESULTS / f"{name}.md" for name in dict.fromkeys(linked)]


def parts(page: str) -> Iterator[tuple[str, list[Path]]]:
    """Yield each part of a page with its results: a part ends with its picture, as the pages are written."""
    for text in re.split(r"(?<=\.svg\)\n)", below(page, MEASURED[page])):
        yield text, named_results(text)


def numbers(text: str) -> set[str]:
    return {each.rstrip(",") for each in re.findall(r"(?<![\w.,])\d[\d,]*(?:\.\d+)?", text)}


def known_numbers(results: list[Path]) -> set[str]:
    return set().union(*(numbers(path.read_text(encoding="utf-8")) for path in results))


def is_there(figure: str, known: set[str]) -> bool:
    """Return whether a figure is among those of a table, or one of them rounded to its places."""
    places = len(figure.partition(".")[2])
    value = float(figure.replace(",", ""))
    return figure in known or any(
        len(each.partition(".")[2]) > places and f"{float(each.replace(',', '')):.{places}f}" == f"{value:.{places}f}"
        for each in known
    )


def unmeasured(paragraph: str, fixed: set[str]) -> list[str]:
    """Return the figures of a paragraph, as written, that are neither in the results that it links nor fixed."""
    known = known_numbers(named_results(paragraph))
    found = sorted(set(FIGURE.findall(plain(paragraph))) - fixed)
    return [each for each in found if not is_there(next(iter(numbers(each)), each), known)]


@pytest.mark.parametrize("page", MEASURED)
def test_each_measured_figure_of_a_page_stands_in_the_results_that_it_links(page: str) -> None:
    unknown = []
    for text, results in parts(page):
        shown = numbers(plain(text)) - REDUCED.keys()
        if page == "comparison.md":
            results = list(RESULTS.glob("*.md"))  # one row says what several tables show
        if page == "hybrid.md":
            shown -= PARTS_OF_THE_QUESTIONS
        assert results or not shown, text
        unknown += [figure for figure in sorted(shown) if not is_there(figure, known_numbers(results))]
    assert unknown == []


@pytest.mark.parametrize("page", PAGES)
def test_a_figure_with_a_unit_was_measured_or_is_one_of_the_code(page: str) -> None:
    text = prose(page)
    for heading in filter(None, (MEASURED.get(page), ASSERTED.get(page))):
        text = text.replace(below(page, heading), "\n\n")
    fixed = NOT_MEASURED.get(page, set())
    unknown = [each for paragraph in text.split("\n\n") for each in unmeasured(paragraph, fixed)]
    assert unknown == [], (
        "in the results that its paragraph links is no such figure: measure it by a benchmark and link that, or leave it out; "
        "a setting or a limit of the code belongs into NOT_MEASURED"
    )
    assert fixed <= set(FIGURE.findall(plain(text))), "NOT_MEASURED names what the page does not say any more"


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


def test_the_sizes_of_the_page_are_those_of_its_built_files() -> None:
    said = plain(below("page.md", MEASURED["page.md"]))
    first = ["index.html", *re.findall(r'(?:src|href)="\./([^"]*)"', (BUILT / "index.html").read_text("utf-8"))]
    parts_of_it = {
        "the first load": [BUILT / name for name in first],
        **{
            name: [*BUILT.glob(f"assets/{name.lower()}-*")] for name in ("Compare", "Images", "Models", "Usage", "Keys")
        },
        "models in the browser": [*BUILT.glob("assets/browser-*"), *BUILT.glob("assets/worker-*")],
    }
    for name, files in parts_of_it.items():
        kilobytes = sum(len(gzip.compress(file.read_bytes(), 9, mtime=0)) for file in files) / 1e3
        found = re.search(rf"{name}[^.\d]* \(?([\d.]+) kB", said, re.IGNORECASE)
        assert found, name
        assert abs(float(found[1]) - kilobytes) <= 1, f"{name}: run python -m benchmarks page"


def test_a_figure_that_was_never_measured_would_be_found() -> None:
    known = numbers("| ours | 2,244 | (2,212-2,269) | 4.03 | 0.093 |")
    assert [each for each in ("2,244", "4.0", "0.09", "4.1", "2,245") if not is_there(each, known)] == ["4.1", "2,245"]
    words = "It takes 123,456 ms and 0.98765 of a `7 s`, 5 seconds at most ([a](../benchmarks/results/usage.md))."
    assert unmeasured(words, {"5 seconds"}) == ["0.98765", "123,456 ms"]
    assert unmeasured("A report takes 82 ms (`python -m benchmarks usage`).", set()) == []
    assert unmeasured("A report takes 82 ms, and 1,234 texts a second or 56.7 rows/s.", set()) == [
        "1,234 texts a second",
        "56.7 rows/s",
        "82 ms",
    ]
