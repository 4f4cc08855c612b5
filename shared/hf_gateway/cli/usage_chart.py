"""The chart of `hf-gateway usage`: bars in the terminal."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from hf_gateway.errors import visible
from hf_gateway.values.wording import quantity

if TYPE_CHECKING:
    from hf_gateway.cli.output import Console
    from hf_gateway.ledger.usage import Figures, UsageReport

BAR_CHARS = 40
"""Characters of the longest bar."""
MAX_NAME_CHARS = 36
"""Characters of a name; the beginning of a longer one is cut."""
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def draw(read: "UsageReport", out: "Console") -> None:
    """Draw bars of calls, tokens, costs and latencies, one per group.

    Args:
        read: the report.
        out: the console.
    """
    if not read.named:
        out.print("no calls were recorded in this time")
        return
    parts: tuple[tuple[str, Callable[[Figures], float], Callable[[Figures], str]], ...] = (
        ("calls", lambda each: each.requests, lambda each: f"{each.requests:,}{_failed(each)}"),
        ("tokens", lambda each: each.input_tokens + each.output_tokens, _tokens),
        ("USD", lambda each: float(each.cost), _cost),
        ("p95, ms", lambda each: each.p95 or 0.0, lambda each: "-" if each.p95 is None else f"{each.p95:,.1f}"),
    )
    plain = out.ascii_only
    for title, value, words in parts:
        out.print(f"\n[bold]{title}[/bold], by {', '.join(read.by)}")
        lines = [(_names(names, plain=plain), value(each), words(each)) for names, each in read.named.items()]
        for line in bars(lines, plain=plain):
            out.print(line, markup=False)


def bars(lines: Sequence[tuple[str, float, str]], *, plain: bool = False) -> list[str]:
    """Return a line for each value: its name, a bar and a description; the longest bar is `BAR_CHARS` long.

    Args:
        lines: name, value and description of each.
        plain: whether to use ASCII only.
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


def _names(names: Sequence[str | None], *, plain: bool) -> str:
    return ", ".join(_name(name, plain=plain) for name in names)


def _name(name: str | None, *, plain: bool) -> str:
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
