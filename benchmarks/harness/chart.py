"""Horizontal bars, a panel a table: the median, its spread as a thin line, and the ratio to the baseline beside it."""

import math
from pathlib import Path
from typing import Any

from benchmarks.harness.measure import Report, Row, Table

OURS, THEIRS, BASE = "#0b6e99", "#b9c2c9", "#7d8a94"
_ROW, _HEAD, _WIDTH = 0.26, 0.95, 6.2
"""Inches: the height of a bar's line, what a panel needs besides, the width of a panel."""


def draw(report: Report, path: Path, below: str) -> None:
    """Write `<path>.svg` and `<path>.png`; nothing when there is nothing to show."""
    tables = [table for table in report.tables if table.charted and any(row.values for row in table.rows)]
    if not tables:
        return
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    style: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": "hf-gateway",
        "font.size": 8.5,
        "font.family": "DejaVu Sans",
    }
    columns = 1 if len(tables) == 1 else 2
    lines = [tables[place : place + columns] for place in range(0, len(tables), columns)]
    heights = [max(len(_rows_with_values(table)) for table in line) * _ROW + _HEAD for line in lines]
    with plt.rc_context(style):
        figure = plt.figure(figsize=(_WIDTH * columns, sum(heights) + 0.7))
        grid = figure.add_gridspec(len(lines), columns, height_ratios=heights)
        for place, line in enumerate(lines):
            for column, table in enumerate(line):
                lines_high = max(len(_rows_with_values(table)) for table in line)
                _panel(figure.add_subplot(grid[place, column]), table, lines_high)
        figure.suptitle(report.title, fontsize=11, fontweight="bold", x=0.01, ha="left")
        figure.text(0.01, 0.005, below, fontsize=7, color="#666666")
        figure.tight_layout(rect=(0, 0.02, 1, 0.99))
        figure.savefig(path.with_suffix(".svg"), metadata={"Date": None, "Creator": None})
        figure.savefig(path.with_suffix(".png"), dpi=100, metadata={"Software": None})
        plt.close(figure)


def _rows_with_values(table: Table) -> list[Row]:
    return [row for row in table.rows if row.values]


def _panel(axes: Any, table: Table, lines_high: int) -> None:
    rows = sorted(_rows_with_values(table), key=lambda row: row.median, reverse=table.more)
    values = [row.median for row in rows]
    # What differs a hundredfold cannot be seen on a straight scale; on another, bars would lie, so there are dots.
    wide = max(values) > 30 * min(values) > 0
    colours = [OURS if row.ours else BASE if row.name == table.baseline else THEIRS for row in rows]
    places = range(len(rows))
    lows, highs = zip(*(row.spread for row in rows), strict=True)
    most = max(*values, *highs)
    if wide:
        axes.set_xscale("log")
        least = 10 ** math.floor(math.log10(min(*values, *lows) * 0.9))
        axes.set_xlim(least, most * (most / least) ** 0.42)
    else:
        axes.set_xlim(0, most * 1.42)
    if wide:
        axes.hlines(places, axes.get_xlim()[0], values, color=colours, linewidth=1.2, zorder=2)
        axes.scatter(values, list(places), color=colours, s=34, zorder=4)
    else:
        axes.barh(places, values, color=colours, height=0.72, zorder=2)
    axes.hlines(places, lows, highs, color="#222222", linewidth=0.9, zorder=3)
    for place, row in enumerate(rows):
        times = table.times(row)
        told = f"{row.median:,.{table.digits}f}" + (f"  ({times}×)" if times else "")  # noqa: RUF001 - the sign is meant
        beside = max(row.median, row.spread[1])
        axes.annotate(told, (beside, place), (6, 0), textcoords="offset points", va="center", fontsize=7.5)
    axes.set_yticks(list(places), [row.name for row in rows])
    for label, row in zip(axes.get_yticklabels(), rows, strict=True):
        label.set_fontweight("bold" if row.ours else "normal")
    axes.set_ylim(lines_high - 0.5, -0.5)  # bars are as high in every panel
    better = "more is better" if table.more else "less is better"
    against = f"; × {table.baseline}" if table.base is not None else ""  # noqa: RUF001 - the sign is meant
    axes.set_title(f"{table.title}\n", loc="left", fontsize=9.5, fontweight="bold", pad=2)
    scale = ", logarithmic" if wide else ""
    axes.text(
        0, 1.01, f"{table.unit}, {better}{against}{scale}", transform=axes.transAxes, fontsize=7.5, color="#555555"
    )
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=7, colors="#555555")
    axes.grid(axis="x", color="#e6e6e6", linewidth=0.6, zorder=0)
