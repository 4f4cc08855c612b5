"""Comparing what a command prints with what a page shows of it: every word, with what differs from run to run by its form."""

import difflib
import re
from collections.abc import Sequence

from tests.config_pages import ROOT

SIZE = r"\b[\d,.]+ (?:B|kB|MB|GB|TB)\b"
TIME = r"\b[\d,.]+ ?(?:µs|ms|s)\b|\b[\d,]+(?= tokens/s)"
LOOPBACK = r"http://127\.0\.0\.1:\d+"
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def _blocks(page: str) -> list[str]:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return [content for language, content in _BLOCK.findall(text) if language in ("", "text")]


def shown_block(page: str, beginning: str) -> str:
    """Return the block of a page of docs/ that begins so."""
    (found,) = [block for block in _blocks(page) if block.startswith(beginning)]
    return found


def shown_after(page: str, command: str) -> str:
    """Return what a page of docs/ shows below a line `$ command`, up to the next one."""
    (found,) = [
        part.partition("\n")[2]
        for block in _blocks(page)
        for part in re.split(r"^\$ ", block.replace("\\\n", ""), flags=re.MULTILINE)
        if re.sub(r"\s+", " ", part.partition("\n")[0]) == command
    ]
    return found


def assert_shown(printed: str, shown: str, varying: Sequence[str] = ()) -> None:
    """Compare an output with the one that a page shows.

    Args:
        printed: what the command printed.
        shown: what stands on the page. A line `…` stands for any lines, and `…` at the end of a line for its rest.
        varying: expressions of what differs from run to run: two texts may differ in what matches one of them. The width of
            columns follows, so all runs of blanks are alike then.

    Raises:
        AssertionError: they differ; it shows where.
    """
    found, wanted = _without(printed, varying), _without(shown, varying)
    lines = [r"(?:.*\n)*?" if line.strip() == "…" else _expected(line) for line in wanted.splitlines()]
    if re.fullmatch("".join(lines), found) is None:
        differences = difflib.unified_diff(
            wanted.splitlines(), found.splitlines(), "the page", "printed", n=99, lineterm=""
        )
        raise AssertionError("\n".join(differences))


def _expected(line: str) -> str:
    return f"{re.escape(line.removesuffix('…'))}{'.*' if line.endswith('…') else ''}\n"


def _without(text: str, varying: Sequence[str]) -> str:
    """Return a text with a number for what varies, without blanks at the ends of lines and empty lines at its ends."""
    for number, expression in enumerate(varying):
        text = re.sub(expression, f"<{number}>", text, flags=re.MULTILINE)
    if varying:
        text = re.sub(r"(?<=\S) {2,}", "  ", text)
    return re.sub(r" +$", "", text.strip("\n"), flags=re.MULTILINE) + "\n"
