"""CONTRIBUTING leads a newcomer to files that are there, and its tour goes down the floors."""

import re

import pytest

from tests.project.test_floors import FLOORS, MODULES, ROOT, floor, room

TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
BY_PATH = {str(path.relative_to(ROOT)): module for module, path in MODULES.items()}
TOURS = re.findall(r"^\*\*([^*]+):\*\*\n\n((?:\d+\. .*\n)+)", TEXT, re.MULTILINE)
CHANGES = [
    "a kind of provider",
    "a task",
    "a command",
    "a class of failure",
    "an engine",
    "a column of the ledger",
    "a surface of a server",
]


def paths(text: str) -> list[str]:
    """Return what is named in backticks and looks like a path of the project."""
    return [
        name for name in re.findall(r"`([\w./-]+)`", text) if "/" in name and not name.startswith((".", "hf_gateway."))
    ]


def test_every_path_that_it_names_exists() -> None:
    assert len(paths(TEXT)) > 60
    assert [name for name in paths(TEXT) if not (ROOT / name).exists()] == []


def test_it_says_where_each_kind_of_change_goes() -> None:
    rows = dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", TEXT, re.MULTILINE))
    assert [change for change in CHANGES if not paths(rows.get(change, ""))] == []


def test_its_table_of_folders_is_the_order_of_the_floors() -> None:
    table = TEXT.partition("## The house")[2].partition("## A tour")[0]
    named = [name.removeprefix("shared/hf_gateway/").rstrip("/").removesuffix(".py") for name in paths(table)]
    floors = [number for name in named if (number := floor(name)) is not None]
    assert floors == sorted(floors)
    missing = {name for row in FLOORS for name in row} - set(named) - {"_version", "cache"}
    assert missing == set()


@pytest.mark.parametrize(("title", "steps"), TOURS, ids=[title.split(",")[0] for title, _ in TOURS])
def test_each_step_of_the_tour_goes_down_a_floor_or_stays_in_its_room(title: str, steps: str) -> None:
    first = [paths(step)[0] for step in steps.splitlines()]
    rooms = [room(BY_PATH[path]) for path in first]
    assert len(rooms) >= 5, title
    floors = [floor(each) for each in rooms]
    for (above, here), (below, there) in zip(
        zip(rooms, floors, strict=True), zip(rooms[1:], floors[1:], strict=True), strict=False
    ):
        assert below == above or there < here, f"{above} to {below}"


def test_there_are_three_tours() -> None:
    assert len(TOURS) == 3


def test_the_example_of_a_new_task_names_all_files_that_only_this_task_has() -> None:
    example = TEXT.partition("### A new task, by the example of `rerank`")[2].partition("\n## ")[0]
    named = paths(example)
    own = [
        path
        for path in BY_PATH
        if re.search("rerank|ranking|lexical|cross_encoder", path) and "/tasks/rerank/" not in path
    ]
    assert len(own) >= 10
    assert [path for path in own if path not in named] == []
