"""The mutation pass itself: it knows where its modules and tests are, and what it changes."""

import json

import pytest

from tests.mutation import MODULES, SURVIVORS, Mutant, mutants_of
from tests.mutation import test_file as file_of

ALL = [f"hf_gateway.{module}" for modules, _ in MODULES.values() for module in modules]


@pytest.mark.parametrize("module", ALL)
def test_there_is_something_to_change_in_each_module(module: str) -> None:
    found = mutants_of(module)
    assert len(found) > 10
    assert [mutant.number for mutant in found] == list(range(len(found)))
    assert len({mutant.key for mutant in found}) == len(found), "a reason for one would be one for another"


@pytest.mark.parametrize("tests", [tests for _, tests in MODULES.values()], ids=list(MODULES))
def test_the_tests_of_each_module_are_there(tests: list[str]) -> None:
    assert [name for name in tests if not file_of(name).is_file()] == []


def test_every_survivor_that_is_explained_is_still_there() -> None:
    explained = json.loads(SURVIVORS.read_text())
    there: set[str] = {mutant.key for module in ALL for mutant in mutants_of(module)}
    assert sorted(set(explained) - there) == []
    assert all(len(reason) > 20 for reason in explained.values())


def test_a_change_is_called_by_what_it_changes_and_not_by_its_line() -> None:
    mutant = Mutant("hf_gateway.chain.fallback", 3, 17, "Chain.serve", "Lt -> LtE", "if a < b:")
    assert mutant.key == "hf_gateway.chain.fallback:Chain.serve: if a < b:: Lt -> LtE"
