"""`hf-gateway usage`: calls, costs, latencies and failures, from the ledger."""

import argparse
import csv
import datetime as dt
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hf_gateway.cli.database_url import configured_url
from hf_gateway.cli.output import Table, check_text, console, escape_unencodable, literal, print_json
from hf_gateway.errors import ConfigError, GatewayError, visible
from hf_gateway.ledger import place, waiting_room
from hf_gateway.ledger.spill import Spill
from hf_gateway.ledger.times import parse_keys, parse_since
from hf_gateway.tasks.registry import task_names
from hf_gateway.values.wording import quantity

if TYPE_CHECKING:
    from hf_gateway.ledger.usage import Figures, UsageFilter, UsageReport

TAKES_A_CHAIN = False

# As in hf_gateway.ledger.usage, whose import needs SQLAlchemy.
BY = ("model", "provider", "target", "task", "day", "tenant", "user", "chain", "key")
IMPORT_TIMEOUT_S = 30.0
"""Seconds for importing spilled rows into the database."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "--by", type=_keys, default=("model",), metavar="KEY[,KEY]", help=f"what to group by: {', '.join(BY)} (model)"
    )
    parser.add_argument(
        "--since",
        metavar="WHEN",
        help="first time to include: a date or time (UTC), 'today', or how long ago, such as 7d, 24h, 30m",
    )
    parser.add_argument("--until", metavar="WHEN", help="first time to exclude")
    parser.add_argument("--tenant", help="only this tenant")
    parser.add_argument("--chain", help="only this chain")
    parser.add_argument("--model", help="only this model")
    parser.add_argument("--provider", help="only this provider")
    parser.add_argument("--task", choices=task_names(), help="only this task")
    parser.add_argument("--ledger", metavar="URL", help="URL of the ledger's database (HF_GATEWAY_LEDGER)")
    parser.add_argument("--config", metavar="FILE", help="the hf-gateway.toml that the server reads")
    parser.add_argument("--plot", action="store_true", help="draw bars")
    parser.add_argument("--migrate", action="store_true", help="create the ledger's tables or migrate them, and exit")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument("--csv", action="store_true", help="print CSV, one line per group")


def _keys(text: str) -> tuple[str, ...]:
    try:
        return parse_keys(text, BY, "--by")
    except ConfigError as error:
        raise argparse.ArgumentTypeError(error.message) from None


def run(arguments: argparse.Namespace) -> int:
    """Print the report; return 0, or 1 if there is no ledger or it cannot be read."""
    if arguments.plot and (arguments.json or arguments.csv):
        raise ConfigError("--plot is for people; leave --json and --csv out")
    check_text({f"--{name}": getattr(arguments, name) for name in ("tenant", "chain", "model", "provider")})
    url = configured_url(arguments.ledger, config=arguments.config)
    from sqlalchemy.exc import SQLAlchemyError

    selected = _usage_filter(arguments)
    try:
        if arguments.migrate:
            return _migrate(url)
        return _print_report(url, arguments, selected)
    except SQLAlchemyError as error:
        if "permission denied" in place.database_words(error):
            raise GatewayError(
                f"this role may not read the ledger in {place.shown_url(url)} ({place.database_words(error)}); "
                "its owner grants it with "
                "hf_gateway.ledger.store.grant(url, role=…, tenant=…)"
            ) from None
        raise GatewayError(
            f"the ledger's database {place.shown_url(url)} cannot be read: {place.database_words(error)}"
        ) from None


def _migrate(url: str) -> int:
    from hf_gateway.ledger import store

    engine = store.open_engine(url)
    try:
        changed = store.upgrade(engine)
    finally:
        engine.dispose()
    state = "created or migrated" if changed else "up to date already"
    sys.stdout.write(f"the ledger's tables in {place.shown_url(url)} are {state} (revision {store.HEAD})\n")
    return 0


def _usage_filter(arguments: argparse.Namespace) -> "UsageFilter":
    from hf_gateway.ledger.usage import UsageFilter

    now = dt.datetime.now(dt.UTC)
    since, until = (
        None if text is None else parse_since(text, now, option)
        for option, text in (("--since", arguments.since), ("--until", arguments.until))
    )
    if since is not None and until is not None and since >= until:
        raise ConfigError(f"--since {arguments.since} is not before --until {arguments.until}")
    return UsageFilter(
        since,
        until,
        tenant=arguments.tenant,
        chain=arguments.chain,
        model=arguments.model,
        provider=arguments.provider,
        task=arguments.task,
    )


def _print_report(url: str, arguments: argparse.Namespace, selected: "UsageFilter") -> int:
    from hf_gateway.ledger import store
    from hf_gateway.ledger.usage import usage_report

    spill = Spill(waiting_room(url))
    waiting = _import_spilled(url, spill)
    if (file := place.file_of(url)) is not None and not file.exists():
        return _no_ledger(url, arguments)
    engine = store.open_engine(url, read_only=True)
    try:
        if (found := store.revision(engine)) is None:
            return _no_ledger(url, arguments)
        if found != store.HEAD:
            raise GatewayError(_other_revision(url, found, store.HEAD))
        read = usage_report(engine, arguments.by, selected)
    finally:
        engine.dispose()
    if arguments.json:
        print_json(_document(url, read, selected, waiting))
    elif arguments.csv:
        _print_csv(read)
    elif arguments.plot:
        from hf_gateway.cli.usage_chart import draw

        draw(read, console())
    else:
        _print_table(url, read)
    _warn(read, waiting, spill)
    return 0


def _import_spilled(url: str, spill: Spill) -> int:
    """Import spilled rows, and return how many bytes of them are left."""
    if spill.waiting():
        from hf_gateway.ledger.database import Inserter

        database = Inserter(url, spill)
        database.start()
        database.import_spill(IMPORT_TIMEOUT_S)
        database.close(1.0)
    return sum(path.stat().st_size for path in spill.waiting() if path.exists())


def _no_ledger(url: str, arguments: argparse.Namespace) -> int:
    if arguments.json:
        print_json({"ledger": place.shown_url(url), "there": False})
    sys.stderr.write(
        f"there is no ledger in {place.shown_url(url)}: nothing was recorded yet; "
        "HF_GATEWAY_LEDGER=1 (or =<URL>) switches it on\n"
    )
    return 1


def _other_revision(url: str, found: str, head: str) -> str:
    if found > head:
        return f"the ledger in {place.shown_url(url)} was created by a newer hf-gateway: upgrade with `pip install -U hf-gateway`"
    return f"the ledger in {place.shown_url(url)} has tables of an older hf-gateway; run `hf-gateway usage --migrate`"


def _warn(read: "UsageReport", waiting: int, spill: Spill) -> None:
    for reason, count in read.lost.items():
        sys.stderr.write(f"not in these figures: {quantity(count, 'request')} lost ({visible(reason)})\n")
    if waiting:
        sys.stderr.write(
            f"not in these figures: {waiting:,} bytes of rows in {spill.folder} that are not in the database yet\n"
        )


def _document(url: str, read: "UsageReport", selected: "UsageFilter", waiting: int) -> dict[str, Any]:
    return {
        "ledger": place.shown_url(url),
        "there": True,
        "by": ",".join(read.by),
        "since": selected.since.isoformat() if selected.since else None,
        "until": selected.until.isoformat() if selected.until else None,
        "tenant": selected.tenant,
        "chain": selected.chain,
        "model": selected.model,
        "provider": selected.provider,
        "task": selected.task,
        "groups": [{**read.group_json(names), **figures.to_json()} for names, figures in read.named.items()],
        "total": read.total.to_json(),
        "lost": dict(read.lost),
        "waiting_bytes": waiting,
    }


def _print_csv(read: "UsageReport") -> None:
    lines = [
        {**_cells_of_keys(read.by, names), **figures.to_json(), "errors": _errors(figures)}
        for names, figures in read.named.items()
    ]
    escape_unencodable(sys.stdout)
    writer = csv.DictWriter(sys.stdout, [*read.by, *read.total.to_json()], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)


def _cells_of_keys(by: Sequence[str], names: Sequence[str | None]) -> dict[str, str]:
    return {key: visible(name or "") for key, name in zip(by, names, strict=True)}


def _print_table(url: str, read: "UsageReport") -> None:
    out = console()
    out.print(f"\n[bold]{literal(place.shown_url(url))}[/bold], by {', '.join(read.by)}\n")
    if not read.total.requests and not read.named:
        out.print("  no calls were recorded in this time\n")
        return
    at_least = ">=" if out.ascii_only else "≥"
    units = [name for name in _UNITS if getattr(read.total, name)]
    titles = (*_TITLES[:_UNITS_AT], *units, *_TITLES[_UNITS_AT:])
    footer = ("total", *[""] * (len(read.by) - 1), *_cells(read.total, units, at_least))
    table = Table((*read.by, *titles), right=frozenset(titles), footer=footer)
    for names, figures in read.named.items():
        table.add(*(literal(_group_name(name)) for name in names), *_cells(figures, units, at_least))
    out.print_table(table)
    out.print()
    for names, figures in read.named.items():
        if figures.errors:
            group = ", ".join(_group_name(name) for name in names)
            out.print(f"  {literal(group)}: [red]{literal(_errors(figures))}[/red]")
    out.print(f"  {_in_words(read)}\n")


def _group_name(name: str | None) -> str:
    return "-" if name is None else visible(name)


_TITLES = ("calls", "failed", "fell back", "tokens in", "out", "USD", "unknown", "p50", "p95", "p99")
_UNITS = ("documents", "images", "seconds")
"""Units that have a column where any were counted."""
_UNITS_AT = _TITLES.index("USD")


def _cells(figures: "Figures", units: Sequence[str], at_least: str) -> tuple[str, ...]:
    failed = figures.failed
    return (
        f"{figures.requests:,}",
        f"[red]{failed:,}[/red]" if failed else "-",
        f"[yellow]{figures.fallbacks:,}[/yellow]" if figures.fallbacks else "-",
        _tokens(figures, at_least),
        f"{figures.output_tokens:,}",
        *(f"{getattr(figures, name):,.10g}" if getattr(figures, name) else "-" for name in units),
        "?" if figures.known_cost is None else f"{figures.cost:,.6f}",
        f"[yellow]{figures.unknown_share:.1%}[/yellow]" if figures.cost_unknown else "-",
        *(_time(each) for each in (figures.p50, figures.p95, figures.p99)),
    )


def _tokens(figures: "Figures", at_least: str) -> str:
    """Return the count of input tokens, with a mark if some attempts reported neither theirs nor another unit."""
    if figures.tokens_unknown and figures.tokens_unknown >= figures.attempts:
        return "?"
    return f"{at_least if figures.tokens_unknown else ''}{figures.input_tokens:,}"


def _time(milliseconds: float | None) -> str:
    if milliseconds is None:
        return "-"
    return f"{milliseconds / 1000:.1f}s" if milliseconds >= 10_000 else f"{milliseconds:.3g}ms"


def _errors(figures: "Figures") -> str:
    return ", ".join(f"{name} {count:,}" for name, count in figures.errors.items())


def _in_words(read: "UsageReport") -> str:
    total = read.total
    parts = [f"{quantity(total.requests, 'call')} in {quantity(total.attempts, 'attempt')}"]
    if total.shared:
        parts.append(f"{total.shared:,} shared another call's request")
    if total.cached:
        parts.append(f"{total.cached:,} were served entirely from the cache")
    if total.cost_unknown:
        parts.append(f"cost unknown for {quantity(total.cost_unknown, 'attempt')} ({total.unknown_share:.1%})")
    if read.total_of_attempts:
        parts.append("calls are those with attempts at the model; failures and latencies are of these attempts")
    elif read.of_attempts:
        parts.append("failures and latencies are of attempts; in the total, of calls")
    return "; ".join([*parts, "latencies are of successes"])
