"""Charts of `hf-gateway usage`: bars in the terminal, or four panels in a PNG or SVG file."""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_gateway.errors import ConfigError, visible
from hf_gateway.values.wording import quantity

if TYPE_CHECKING:
    from hf_gateway.cli.output import Console
    from hf_gateway.ledger.usage import Figures, UsageReport

BAR_CHARS = 40
"""Characters of the longest bar."""
MAX_NAME_CHARS = 36
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def draw(read: "UsageReport", file: str, out: "Console") -> None:
    """Draw in the terminal, or into a file where one is named. Raises ConfigError, ImportError, OSError."""
    if file:
        _into(read, Path(file))
        out.print(f"drawn into {visible(file)}", markup=False)
        return
    if not read.groups:
        out.print("no call was recorded in this time")
        return
    parts: tuple[tuple[str, Callable[[Figures], float], Callable[[Figures], str]], ...] = (
        ("calls", lambda each: each.requests, lambda each: f"{each.requests:,}{_failed(each)}"),
        ("tokens", lambda each: each.input_tokens + each.output_tokens, _tokens),
        ("USD", lambda each: float(each.cost), _cost),
        ("p95, ms", lambda each: each.p95 or 0.0, lambda each: "-" if each.p95 is None else f"{each.p95:,.1f}"),
    )
    plain = out.ascii_only
    for title, value, said in parts:
        out.print(f"\n[bold]{title}[/bold], by {read.by}")
        lines = [(_name(name, plain=plain), value(each), said(each)) for name, each in read.groups.items()]
        for line in bars(lines, plain=plain):
            out.print(line, markup=False)


def bars(lines: Sequence[tuple[str, float, str]], *, plain: bool = False) -> list[str]:
    """Return a line each: name, bar, and what it stands for in words; the longest bar is `WIDTH` characters.

    plain: in ASCII, for where there is nothing else.
    """
    most = max((value for _, value, _ in lines), default=0.0)
    width = max(len(name) for name, _, _ in lines)
    return [f"  {name:<{width}}  {_bar(value / most if most else 0.0, plain)} {said}" for name, value, said in lines]


def _bar(part: float, plain: bool) -> str:
    if plain:
        return "#" * max(round(part * BAR_CHARS), part > 0) or "-"
    eighths = round(part * BAR_CHARS * 8)
    if part > 0:
        eighths = max(1, eighths)
    return ("█" * (eighths // 8) + _EIGHTHS[eighths % 8]).rstrip() or "·"


def _name(name: str | None, *, plain: bool = False) -> str:
    if name is None:
        return "-"
    name, cut = visible(name), "..." if plain else "…"
    return name if len(name) <= MAX_NAME_CHARS else cut + name[len(cut) - MAX_NAME_CHARS :]


def _failed(figures: "Figures") -> str:
    return f" ({figures.failed:,} failed)" if figures.failed else ""


def _tokens(figures: "Figures") -> str:
    unknown = f", unknown for {quantity(figures.tokens_unknown, 'attempt')}" if figures.tokens_unknown else ""
    return f"{figures.input_tokens:,} in, {figures.output_tokens:,} out{unknown}"


def _cost(figures: "Figures") -> str:
    unknown = f", and {figures.unknown_share:.1%} of the attempts unknown" if figures.cost_unknown else ""
    return f"{figures.cost:,.6f}{unknown}"


def _into(read: "UsageReport", path: Path) -> None:
    if path.suffix.lower() not in (".png", ".svg"):
        raise ConfigError(f"--plot {path}: a chart is drawn into a .png or .svg file")
    if find_spec("matplotlib") is None:
        raise ImportError("charts in files are drawn by matplotlib: pip install matplotlib")
    from matplotlib.figure import Figure

    names = [_name(name) for name in read.groups]
    each = list(read.groups.values())
    across = read.by == "day"
    figure = Figure(figsize=(12, 7 if across else max(5.0, 2.5 + 0.7 * len(names))), layout="constrained")
    axes = figure.subplots(2, 2)
    # Of a model, a provider or a target it is attempts that fail, and a call may have several.
    of_attempts = read.of_attempts
    served = _numbers(each, lambda one: (one.attempts if of_attempts else one.requests) - _bad(one))
    ended = [("served", served), ("failed or cancelled", _numbers(each, _bad))]
    _stacked(axes[0, 0], "attempts" if of_attempts else "calls", names, across, ended)
    tokens = [
        ("in", _numbers(each, lambda one: one.input_tokens)),
        ("out", _numbers(each, lambda one: one.output_tokens)),
    ]
    _stacked(axes[0, 1], "tokens", names, across, tokens)
    unknown = read.total.unknown_share
    title = f"USD ({unknown:.1%} of the attempts unknown)" if unknown else "USD"
    _stacked(axes[1, 0], title, names, across, [("", _numbers(each, lambda one: float(one.cost)))])
    times = [
        ("p50", _numbers(each, lambda one: one.p50 or 0.0)),
        ("p95", _numbers(each, lambda one: one.p95 or 0.0)),
        ("p99", _numbers(each, lambda one: one.p99 or 0.0)),
    ]
    _side_by_side(axes[1, 1], "milliseconds of what was served", names, across, times)
    figure.suptitle(f"hf-gateway usage, by {read.by}")
    figure.savefig(path, format=path.suffix[1:].lower(), dpi=120)


def _numbers(figures: "Sequence[Figures]", value: "Callable[[Figures], float]") -> list[float]:
    return [value(each) for each in figures]


def _bad(figures: "Figures") -> float:
    return figures.failed + figures.cancelled


_Series = Sequence[tuple[str, Sequence[float]]]


def _stacked(axis: Any, title: str, names: Sequence[str], across: bool, series: _Series) -> None:
    places = list(range(len(names)))
    base = [0.0] * len(names)
    for label, values in series:
        if across:
            axis.bar(places, values, bottom=base, label=label)
        else:
            axis.barh(places, values, left=base, label=label)
        base = [one + other for one, other in zip(base, values, strict=True)]
    _finish(axis, title, names, across, legend=len(series) > 1)


def _side_by_side(axis: Any, title: str, names: Sequence[str], across: bool, series: _Series) -> None:
    thick = 0.8 / len(series)
    for number, (label, values) in enumerate(series):
        places = [place + (number - (len(series) - 1) / 2) * thick for place in range(len(names))]
        if across:
            axis.bar(places, values, thick, label=label)
        else:
            axis.barh(places, values, thick, label=label)
    _finish(axis, title, names, across, legend=True)


def _finish(axis: Any, title: str, names: Sequence[str], across: bool, *, legend: bool) -> None:
    places = list(range(len(names)))
    axis.set_title(title)
    if across:
        axis.set_xticks(places, names, rotation=45, ha="right", parse_math=False)
    else:
        axis.set_yticks(places, names, parse_math=False)
        axis.locator_params(axis="x", nbins=5)
        axis.invert_yaxis()
    if legend:
        axis.legend()
