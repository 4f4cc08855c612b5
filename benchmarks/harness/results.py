"""What a benchmark leaves: `<name>.md`, `<name>.json`, `<name>.svg` and `<name>.png`."""

import json
from pathlib import Path
from typing import Any

from benchmarks.harness import chart, machine
from benchmarks.harness.environments import PEERS
from benchmarks.harness.measure import Report, Row, Table


def write(report: Report, name: str, folder: Path, command: str, facts: dict[str, str]) -> None:
    """Write all four. facts: what else the head tells, such as how loaded the machine was."""
    folder.mkdir(parents=True, exist_ok=True)
    head = {**machine.machine(), **facts, "date": machine.today(), "command": command}
    (folder / f"{name}.md").write_text(_markdown(report, name, head), encoding="utf-8")
    tables = [_raw(table) for table in report.tables]
    raw: dict[str, Any] = {"title": report.title, "machine": head, "versions": machine.versions()}
    raw |= {"peers": {peer: machine.pinned(peer) for peer in PEERS}, "tables": tables, "more": report.raw}
    (folder / f"{name}.json").write_text(json.dumps(raw, indent=1) + "\n", encoding="utf-8")
    chart.draw(report, folder / name, f"{head['processor']}, {head['cores']} cores, {head['date']}")


def text(report: Report) -> str:
    """Return the tables as they are printed."""
    return "\n\n".join(f"{_title(table)}\n\n{_table(table)}" for table in report.tables)


def _markdown(report: Report, name: str, head: dict[str, str]) -> str:
    versions = ", ".join(f"{package} {number}" for package, number in machine.versions().items())
    lines = [f"# {report.title}", "", f"`{head['command']}`, {head['date']}", ""]
    lines += [f"{head['processor']}, {head['cores']} cores ({head['flags']}), {head['memory']}; {head['system']}. "]
    lines += [f"Load when it began: {head.get('load', 'not known')}; rounds: {head.get('rounds', 'not known')}.", ""]
    lines += [f"{versions}. The peers' pins: `benchmarks/requirements-*.txt`.", ""]
    lines += [
        "Medians; in brackets the quartiles of the rounds (least and most where there are fewer than four). A ratio is the"
    ]
    lines += ["median of the ratios within a round. **Bold** is ours.", ""]
    if any(table.charted for table in report.tables):
        lines += [f"![{report.title}]({name}.svg)", ""]
    for table in report.tables:
        lines += [f"## {_title(table)}", "", _table(table), ""]
        lines += [table.note, ""] if table.note else []
    lines += [f"- {note}" for note in report.notes]
    return "\n".join(lines).rstrip() + "\n"


def _title(table: Table) -> str:
    return f"{table.title} ({table.unit}, {'more' if table.more else 'less'} is better)"


def _table(table: Table) -> str:
    against = [f"× {table.baseline}"] if table.baseline else []  # noqa: RUF001 - the sign is meant
    columns = ["", table.unit, "", *against, *table.columns]
    lines = [_line(columns), _line(["---", "--:", "---", *["--:"] * len(against), *["---"] * len(table.columns)])]
    for row in table.rows:
        name = f"**{row.name}**" if row.ours else row.name
        if row.not_run is not None:
            lines.append(_line([name, "not run", row.not_run, *[""] * (len(columns) - 3)]))
            continue
        if not row.values:
            lines.append(_line([name, "not run", "no round was measured", *[""] * (len(columns) - 3)]))
            continue
        low, high = (number(value, table.digits) for value in row.spread)
        told = [table.times(row)] if table.baseline else []
        cells = [name, number(row.median, table.digits), f"({low}–{high})", *told]  # noqa: RUF001 - the sign is meant
        lines.append(_line([*cells, *(row.extra.get(column, "") for column in table.columns)]))
    return "\n".join(lines)


def number(value: float, digits: int) -> str:
    """Write a number with thousands set apart."""
    return f"{value:,.{digits}f}"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _raw(table: Table) -> dict[str, Any]:
    rows = [_raw_row(row, table) for row in table.rows]
    return {"title": table.title, "unit": table.unit, "more": table.more, "baseline": table.baseline, "rows": rows}


def _raw_row(row: Row, table: Table) -> dict[str, Any]:
    if not row.values:
        return {"name": row.name, "ours": row.ours, "not_run": row.not_run}
    ratio = table.ratio(row)
    values = [float(f"{value:.5g}") for value in row.values.values()]
    return {
        "name": row.name,
        "ours": row.ours,
        "median": float(f"{row.median:.5g}"),
        "ratio": None if ratio is None else round(ratio, 4),
        "rounds": values,
        **({"more": row.extra} if row.extra else {}),
    }
