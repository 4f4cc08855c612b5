"""Commands that stand in sentences and lists, or in lines without a fence: what they name exists, and is taken so."""

import re
from pathlib import Path

import pytest

from tests.project.test_page_blocks import PAGES, ROOT
from tests.support.page_commands import ELSEWHERE, assert_named, assert_whole, program, sentences

CONTRIBUTING = ROOT / "CONTRIBUTING.md"
CHART_PAGE = ROOT / "deploy" / "helm" / "hf-gateway" / "README.md"
TEXTS = [*PAGES, CONTRIBUTING, ROOT / "SECURITY.md", CHART_PAGE]
COMMANDS = {
    page: found for page in TEXTS if (found := [line for line in sentences(page.read_text("utf-8")) if program(line)])
}
PRINTED_BY_MAKE_TEST = [
    r"All checks passed!",
    r"[\d,]+ files already formatted",
    r"Success: no issues found in \d+ source files",
    r"\d+ passed, \d+ skipped, \d+ warnings in [\d.]+s",
    r"\d+ passed, \d+ skipped, \d+ warnings in [\d.]+s",
    r"base install: \d+ distributions, [\d.]+ MB",
    r"\d+ passed, \d+ deselected in [\d.]+s",
]
"""What CONTRIBUTING shows: ruff, ruff, mypy, the tests, those of `hub1`, and those of `packaging`, which print the size."""


@pytest.mark.parametrize("page", COMMANDS, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_command_in_a_sentence_names_what_there_is(page: Path) -> None:
    for line in COMMANDS[page]:
        if program(line) in ELSEWHERE:
            assert page in (ROOT / "docs" / "deploy.md", CHART_PAGE), f"tests/deploy/test_page.py does not read {page}"
            assert_whole(line)
        else:
            assert_named(line)


def test_they_are_found() -> None:
    found = [program(line) for lines in COMMANDS.values() for line in lines]
    assert len(found) > 200
    assert set(found) >= {
        "hf-gateway",
        "make",
        "python",
        "pip",
        "npm",
        "node",
        "pre-commit",
        "docker",
        "helm",
        "kubectl",
    }


@pytest.mark.parametrize(
    "line",
    [
        "hf-gateway serv",
        "hf-gateway hub serch x",
        "hf-gateway embed --tragets hash",
        "make tset",
        "python -m benchmark",
        "python -m benchmarks lokal",
        "pip install 'hf-gateway[lokal]'",
        "npm run bulid",
        "node scripts/generat.mjs URL",
    ],
)
def test_a_command_that_is_misspelt_is_found(line: str) -> None:
    with pytest.raises(AssertionError):
        assert_named(line)


def test_contributing_shows_the_lines_that_make_test_prints() -> None:
    """Their order is that of the parts; the numbers are those of a run, and change with every test."""
    (block,) = re.findall(r"^```\n(.*?)^```", CONTRIBUTING.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    lines = block.splitlines()
    assert len(lines) == len(PRINTED_BY_MAKE_TEST)
    for line, form in zip(lines, PRINTED_BY_MAKE_TEST, strict=True):
        assert re.fullmatch(form, line)
    size = (ROOT / "tests" / "project" / "test_packaging.py").read_text(encoding="utf-8")
    assert "base install: {" in size
    (parts,) = re.findall(r"^test: (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert parts.split() == ["setup", "lint", "types", "unit", "hub1", "packaging"]
