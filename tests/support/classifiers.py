"""Both forms of a classification behind one name, so that each behaviour is tested blocking and async with the same lines."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from hf_gateway import ClassifyGateway
from hf_gateway.testing import ManualClock
from hf_gateway.values.labels import ClassifyResult, Label
from tests.support.timed import shortest, within

MODEL = "test/classifier"
FORMS = ("blocking", "async")


class Classifier:
    """A gateway called blocking or async. clock: stands still until something waits."""

    def __init__(self, form: str, targets: Sequence[Any], **settings: Any) -> None:
        """Build the chain."""
        self.form = form
        self.clock = settings.pop("clock", None) or ManualClock()
        self.limit = shortest(settings)
        self.gateway = ClassifyGateway(targets=list(targets), clock=self.clock, **{"model": MODEL, **settings})

    def __call__(self, inputs: Any, *arguments: Any, **named: Any) -> ClassifyResult:
        """Classify; a limit of less than a second that was set has to hold."""
        with within(self.limit):
            if self.form == "async":
                return asyncio.run(self.gateway.aclassify(inputs, *arguments, **named))
            return self.gateway.classify(inputs, *arguments, **named)


def same(labels: Sequence[Label], expected: Sequence[tuple[str, float]], tolerance: float = 1e-6) -> bool:
    """Whether labels have these names, in this order, with these scores."""
    return [each.label for each in labels] == [name for name, _ in expected] and [
        each.score for each in labels
    ] == pytest.approx([score for _, score in expected], abs=tolerance)


def assert_same_labels(found: Sequence[Label], expected: Sequence[tuple[str, float]], tolerance: float = 1e-4) -> None:
    """Compare by name: two labels whose scores differ in the last bit only may stand in either order."""
    assert len(found) == len(expected)
    assert {each.label: each.score for each in found} == pytest.approx(dict(expected), abs=tolerance)
    assert [each.score for each in found] == sorted((each.score for each in found), reverse=True)


def pairs(labels: Sequence[Label]) -> list[tuple[str, float]]:
    """Return labels with their scores."""
    return [(each.label, each.score) for each in labels]
