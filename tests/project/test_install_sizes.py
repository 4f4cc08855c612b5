"""The table of install sizes in docs/install.md is that of this environment, and no extra requires torch that is not for it."""

import re
import tomllib

import pytest

from tests.support.environments import REPOSITORY
from tests.support.late import COLLECTED

if COLLECTED:
    from benchmarks import install_sizes
    from benchmarks.install_sizes import PAGE, Install, closure, installs, table, written_table

EXTRAS = list(tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"])
WITH_TORCH = {"torch", "images", "all", "dev"}
TOLERANCE = 0.15
"""By which share the megabytes may differ: versions within the constraints, builds of other platforms."""
ROW = re.compile(r"\| (?P<extras>.+) \| (?P<distributions>\d+) \| (?P<megabytes>[\d,]+) \|")


def rows(text: str) -> dict[str, tuple[int, float]]:
    return {
        found["extras"]: (int(found["distributions"]), float(found["megabytes"].replace(",", "")))
        for line in text.splitlines()
        if (found := ROW.fullmatch(line))
    }


def test_the_table_is_true() -> None:
    page = PAGE.read_text(encoding="utf-8")
    written, counted = rows(written_table(page)), rows(table())
    assert list(written) == list(counted), "run python -m benchmarks.install_sizes"
    for extras, (distributions, megabytes) in counted.items():
        assert abs(written[extras][0] - distributions) <= 2, f"{extras}: run python -m benchmarks.install_sizes"
        assert written[extras][1] == pytest.approx(megabytes, rel=TOLERANCE, abs=2), extras


@pytest.mark.parametrize("extra", EXTRAS)
def test_torch_is_required_by_the_extras_that_are_for_it_alone(extra: str) -> None:
    assert ("torch" in closure([extra])) is (extra in WITH_TORCH)


def test_an_extra_counts_what_it_requires_by_itself_too() -> None:
    none, *others = installs()
    assert none.extras == ""
    assert all(none.names <= each.names for each in others)
    assert Install("x", closure(["langchain", "local"])).names == closure(["langchain"]) | closure(["local"])
    assert {"langchain-core", "pydantic", "typing-extensions"} <= closure(["langchain"])


def test_a_page_with_another_table_gets_this_one(tmp_path, monkeypatch, capsys) -> None:
    page = tmp_path / "install.md"
    page.write_text(f"Before.\n\n{install_sizes.HEAD}\n|---|\n| none | 1 | 2 |\n\nAfter.\n")
    monkeypatch.setattr(install_sizes, "PAGE", page)
    assert install_sizes.main() == 0
    assert page.read_text() == f"Before.\n\n{table()}\nAfter.\n"
