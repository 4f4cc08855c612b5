"""Rows measured in alternation: each round asks every row once, in turns, and ratios are taken within a round."""

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from benchmarks.harness.environments import NotRun


@dataclass
class Row:
    """One contender in one table. values: round → value, in the table's unit; extra: column → additional text."""

    name: str
    ours: bool = False
    values: dict[int, float] = field(default_factory=dict)
    extra: dict[str, str] = field(default_factory=dict)
    not_run: str | None = None

    @property
    def median(self) -> float:
        """The median over the rounds."""
        return statistics.median(self.values.values())

    @property
    def spread(self) -> tuple[float, float]:
        """The quartiles; with fewer than four rounds the least and the most."""
        values = sorted(self.values.values())
        if len(values) < 4:
            return values[0], values[-1]
        low, _, high = statistics.quantiles(values, n=4, method="inclusive")
        return low, high

    def ratio(self, baseline: "Row") -> float | None:
        """Return the median of the ratios to another row, round by round; None without a common round."""
        common = [self.values[number] / baseline.values[number] for number in self.values if number in baseline.values]
        return statistics.median(common) if common else None


@dataclass
class Table:
    """Rows that are compared with each other.

    unit: of the values; more: whether more is better; baseline: the row that ratios are to, None for none; digits: after the
    point; columns: of the rows' extra facts, in order; charted: whether the chart shows it.
    """

    title: str
    unit: str
    baseline: str | None
    more: bool = False
    digits: int = 0
    rows: list[Row] = field(default_factory=list)
    columns: Sequence[str] = ()
    charted: bool = True
    note: str = ""

    @property
    def base(self) -> Row | None:
        """The row that ratios are to, if it was measured."""
        return next((row for row in self.rows if row.name == self.baseline and row.values), None)

    def ratio(self, row: Row) -> float | None:
        """Return a row's ratio to the baseline."""
        base = self.base
        return row.ratio(base) if base is not None and row.values else None

    def times(self, row: Row) -> str:
        """Return the ratio in words; empty if it is unknown."""
        ratio = self.ratio(row)
        return "" if ratio is None else f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.2g}"


@dataclass
class Report:
    """What a benchmark found. raw: anything else for the JSON; notes: sentences below the tables."""

    title: str
    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    raw: dict[str, Any] = field(default_factory=dict)


@dataclass
class Cell:
    """A row and how it is measured: round number → value. rounds: at most so many, None for all."""

    row: Row
    measure: Callable[[int], float]
    rounds: int | None = None

    @classmethod
    def of(cls, row: Row, measure: Callable[..., float], *arguments: Any, rounds: int | None = None) -> Self:
        """Return a cell whose measure takes these arguments and is the same in every round."""
        return cls(row, lambda _: measure(*arguments), rounds)


def alternate(cells: Iterable[Cell], rounds: int) -> None:
    """Measure every cell once a round, another one first each time. What cannot be run says why, and is left out from then on."""
    waiting = list(cells)
    for number in range(rounds):
        start = number % len(waiting) if waiting else 0
        for cell in waiting[start:] + waiting[:start]:
            if cell.row.not_run is not None or (cell.rounds is not None and number >= cell.rounds):
                continue
            try:
                cell.row.values[number] = cell.measure(number)
            except NotRun as failure:
                cell.row.not_run = str(failure)
                cell.row.values.clear()
