"""Every argument of the classes that users come from is one here, too, or is answered by what to write instead."""

import re

import pytest

from hf_gateway.errors import ConfigError
from hf_gateway.settings.foreign_arguments import HINTS, hint_for
from tests.migration_page import INCUMBENTS, PAGE, Incumbent, arguments_of, page_text, written_arguments

WRITTEN = written_arguments()
BY_NAME = {each.name: each for each in INCUMBENTS}


@pytest.mark.parametrize("incumbent", INCUMBENTS, ids=lambda each: each.name)
def test_the_list_is_that_of_the_installed_class(incumbent: Incumbent) -> None:
    source = incumbent.source()
    if source is None:
        pytest.skip(f"{incumbent.package} is not installed")
    assert WRITTEN[incumbent.name] == arguments_of(incumbent, source), "run python -m tests.migration_page"


@pytest.mark.parametrize(("name", "argument"), [(name, each) for name in WRITTEN for each in WRITTEN[name]])
def test_an_argument_is_taken_or_answered_by_what_to_write_instead(name: str, argument: str) -> None:
    ours = BY_NAME[name].our_class()
    if argument in BY_NAME[name].accepted():
        return
    with pytest.raises(ConfigError) as caught:
        ours(targets=["local"], **{argument: "hf_of_a_caller"})
    hint = hint_for(argument, set(ours.model_fields))
    assert hint is not None
    assert str(caught.value) == f"{ours.__name__} has no argument {argument!r}; {hint}"
    assert "hf_of_a_caller" not in str(caught.value)


@pytest.mark.parametrize("name", WRITTEN)
def test_no_hint_names_an_argument_that_the_class_lacks(name: str) -> None:
    known = BY_NAME[name].accepted()
    for argument in set(WRITTEN[name]) - known:
        hint = hint_for(argument, known) or ""
        advised = set(re.findall(r"(?:use|and|or|,) `([a-z_]+)(?:=[^`]*)?`", hint))
        assert advised - {"as_structured_llm", "with_structured_output", "generate"} <= known, (argument, hint)


def test_a_misspelt_argument_is_still_answered_by_the_nearest() -> None:
    ours = BY_NAME["HuggingFaceEmbeddings"].our_class()
    with pytest.raises(ConfigError, match="did you mean 'targets'"):
        ours(target=["local"])


def test_every_hint_is_for_an_argument_of_some_class() -> None:
    known = {argument for arguments in WRITTEN.values() for argument in arguments}
    beside = {"context_window", "num_output", "num_predict", "num_workers", "reasoning"}
    assert HINTS.keys() - known - beside == set()


def test_the_page_is_made_from_the_table() -> None:
    page = PAGE.read_text("utf-8")
    assert page == page_text(page), "run python -m tests.migration_page"


ROWS = re.findall(r"^\| `[^|]+` \| `(HFGateway\w+|ChatHFGateway)\((.*)\)` \|$", PAGE.read_text("utf-8"), re.M)


@pytest.mark.parametrize(("name", "arguments"), ROWS, ids=[f"{name}({given})" for name, given in ROWS])
def test_what_the_page_writes_instead_of_a_class_can_be_built(name: str, arguments: str) -> None:
    ours = {each.our_class().__name__: each.our_class() for each in INCUMBENTS}[name]
    given = arguments.removeprefix("…, ")
    named = given if "targets=" in given else f"{given}, model='an/model', targets=['local']"
    ours(**eval(f"dict({named})".replace("…", "'an/model'")))


def test_every_row_of_the_page_is_built() -> None:
    assert len(ROWS) == PAGE.read_text("utf-8").partition("## Every argument")[0].count("\n| `")
