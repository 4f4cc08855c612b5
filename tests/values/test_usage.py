"""What a call used: units by their names, of which an unknown one stays unknown in a sum."""

import dataclasses
from decimal import Decimal
from typing import Any

import pytest

from hf_gateway.values.chat import ChatResult
from hf_gateway.values.embedding import EmbedResult
from hf_gateway.values.result import Result
from hf_gateway.values.usage import MAX_COST_USD, MAX_TOKENS, Usage, drop_implausible

UNITS = [field.name for field in dataclasses.fields(Usage)]
WHOLE = Usage(**{name: Decimal(3) if name == "cost_usd" else 3 for name in UNITS})  # type: ignore[arg-type]


@pytest.mark.parametrize("unit", UNITS)
def test_each_unit_adds_up_and_is_unknown_where_one_part_is(unit: str) -> None:
    known = [name for name in UNITS if name != unit]
    partly = dataclasses.replace(WHOLE, **{unit: None})
    for total in (WHOLE + partly, partly + WHOLE):
        assert {name: getattr(total, name) for name in known} == dict.fromkeys(known, 6)
        assert getattr(total, unit) is None
    assert getattr(WHOLE + WHOLE, unit) == 6
    assert getattr(Usage(), unit) is None


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize(
    "value", [-1, Decimal("NaN"), "three", max(MAX_TOKENS, MAX_COST_USD) + 1, float("nan")], ids=repr
)
def test_a_number_that_cannot_be_is_unknown_and_the_others_stay(unit: str, value: Any) -> None:
    cleaned = drop_implausible(dataclasses.replace(WHOLE, **{unit: value}))
    assert cleaned == dataclasses.replace(WHOLE, **{unit: None})
    assert drop_implausible(WHOLE) is WHOLE


@pytest.mark.parametrize("kind", [EmbedResult, ChatResult])
def test_every_result_says_who_served_it_what_was_tried_what_it_used_and_how_long_it_took(kind: type[Result]) -> None:
    assert issubclass(kind, Result)
    names = {field.name for field in dataclasses.fields(Result)}
    assert names == {"served_by", "attempts", "usage", "seconds"} <= {field.name for field in dataclasses.fields(kind)}
