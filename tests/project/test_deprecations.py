"""What warns of its end is on the page of deprecations, with the version in which it ends, and has not outlived that version."""

import ast
import re
from collections.abc import Iterator

import pytest
from packaging.version import Version

from hf_gateway import __version__
from tests.project.test_floors import MODULES, ROOT

PAGE = (ROOT / "docs" / "deprecations.md").read_text("utf-8")
WARNINGS = {"DeprecationWarning", "PendingDeprecationWarning", "FutureWarning"}


def warnings_of(source: str) -> Iterator[str]:
    """Yield the message of each warning of a deprecation in a module, as far as it is written there."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and node.args:
            named = {
                ast.unparse(each).rpartition(".")[2] for each in [*node.args[1:], *(key.value for key in node.keywords)]
            }
            if ast.unparse(node.func).rpartition(".")[2] in ("warn", "deprecated") and (
                named & WARNINGS or ast.unparse(node.func).endswith("deprecated")
            ):
                texts = [each.value for each in ast.walk(node.args[0]) if isinstance(each, ast.Constant)]
                yield "".join(map(str, texts))


def complaints(messages: list[str], page: str, version: str) -> list[str]:
    """Return what is wrong: no version of the end, no line on the page, or an end that has come.

    Args:
        messages: of the warnings.
        page: the page's text.
        version: of this package.
    """
    rows = re.findall(r"^\| (\d+\.\d+) \| (.+?) \| (.+?) \| (\d+\.\d+) \|$", page, re.MULTILINE)
    found = []
    ends: set[str] = set()
    for message in messages:
        named = re.search(r"ends with (?:hf-gateway )?(\d+\.\d+)", message)
        if named is None:
            found.append(f"{message!r} names no version in which it ends")
        else:
            ends.add(named[1])
            if named[1] not in {row[3] for row in rows}:
                found.append(f"{message!r} is not on the page")
    for since, what, _, end in rows:
        if Version(end) <= Version(version):
            found.append(f"{what} has outlived version {end}")
        if Version(end) <= Version(since):
            found.append(f"{what} ends as soon as it warns")
        if end not in ends:
            found.append(f"{what} warns nowhere")
    return found


def test_what_warns_is_on_the_page_and_nothing_has_outlived_its_end() -> None:
    messages = [message for path in MODULES.values() for message in warnings_of(path.read_text("utf-8"))]
    assert complaints(messages, PAGE, __version__) == []


ROW = "| 0.2 | `old` | `new` | 0.3 |"
WARNS = (
    "import warnings\nwarnings.warn(f'`old` ends with hf-gateway 0.3: use {new}', DeprecationWarning, stacklevel=2)\n"
)


@pytest.mark.parametrize(
    ("source", "row", "version", "expected"),
    [
        (WARNS, ROW, "0.2.0", []),
        (WARNS, "", "0.2.0", ["'`old` ends with hf-gateway 0.3: use ' is not on the page"]),
        (WARNS, ROW, "0.3.0", ["`old` has outlived version 0.3"]),
        ("", ROW, "0.2.0", ["`old` warns nowhere"]),
        (WARNS, ROW.replace("0.2", "0.3"), "0.2.0", ["`old` ends as soon as it warns"]),
        ("@deprecated('gone soon')\ndef old(): ...\n", "", "0.2.0", ["'gone soon' names no version in which it ends"]),
    ],
)
def test_a_deprecation_without_an_end_a_line_or_a_warning_is_found(
    source: str, row: str, version: str, expected: list[str]
) -> None:
    assert complaints(list(warnings_of(source)), row, version) == expected
