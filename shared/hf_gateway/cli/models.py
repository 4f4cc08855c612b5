"""`hf-gateway models`: prices and capabilities of models, from the router or set by hand. Only `refresh` needs a network."""

import argparse
import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from hf_gateway.cli.database_url import configured_url
from hf_gateway.cli.output import Table, check_text, console, literal, print_json
from hf_gateway.errors import ConfigError, GatewayError, visible
from hf_gateway.ledger import place, price_checks
from hf_gateway.ledger.budget_pool import format_usd
from hf_gateway.ledger.file_prices import read_file_prices
from hf_gateway.ledger.prices import Price, PriceEntry
from hf_gateway.settings.config_file import router_url
from hf_gateway.values.task_facts import CHAT
from hf_gateway.values.wording import quantity

if TYPE_CHECKING:
    import sqlalchemy as sa

TAKES_A_CHAIN = False
"""Its arguments name models, not targets."""
_DECIMALS = 12
"""Decimals of stored prices, as in hf_gateway.ledger.tables, whose import needs SQLAlchemy."""
_PRICES = {
    "input": "USD per million tokens of input",
    "output": "USD per million tokens of output",
    "cached": "USD per million tokens of input that the provider had in its cache",
    "image": "USD per image",
    "second": "USD per second",
    "document": "USD per document",
}


_PER_UNIT = ("image", "second", "document")
"""Prices that are for one unit, not for a million tokens."""
THOUSAND_DECIMALS = 3
"""Decimals by which a price for 1,000 is divided."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command and its subcommands."""
    commands = parser.add_subparsers(dest="action", metavar="COMMAND", required=True)
    for name, summary, add, _ in _ACTIONS:
        command = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        add(command)
        command.add_argument("--ledger", metavar="URL", help="URL of the ledger's database (HF_GATEWAY_LEDGER)")
        command.add_argument("--config", metavar="FILE", help="the hf-gateway.toml that the server reads")
        command.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Run a subcommand; return 0 on success, 1 if it failed or found nothing, 2 for wrong usage."""
    action = next(each for name, _, _, each in _ACTIONS if name == arguments.action)
    check_text({name: getattr(arguments, name.lstrip("-"), None) for name in ("model", "--provider", "--task")})
    out = None if arguments.json else console()
    with database(arguments.ledger, arguments.config) as engine:
        return action(engine, arguments, out)


@contextlib.contextmanager
def database(url: str | None, config: str | None = None, what: str = "--ledger") -> Iterator["sa.Engine"]:
    """Open the ledger's database, with its tables: at a URL, or the one that the server uses.

    Args:
        url: the URL.
        config: the config file; by default the one in force.
        what: name of the option that gave the URL, for errors.

    Raises:
        ConfigError: invalid URL, or missing package.
        GatewayError: the database cannot be used.
    """
    found = configured_url(url, what, config)
    from sqlalchemy.exc import SQLAlchemyError

    from hf_gateway.ledger.store import open_ledger

    try:
        with open_ledger(found) as engine:
            yield engine
    except SQLAlchemyError as error:
        raise GatewayError(
            f"the ledger's database {place.shown_url(found)} cannot be used: {place.database_words(error)}"
        ) from None


def amount(text: str, places: int = 0) -> Decimal:
    """Parse an amount in USD.

    Args:
        text: what was typed.
        places: decimals by which it is divided: 3 if it is for 1,000.

    Raises:
        ArgumentTypeError: an invalid amount, or one with more decimals than are stored.
    """
    try:
        found = Decimal(text.removeprefix("$")).scaleb(-places)
    except InvalidOperation:
        raise argparse.ArgumentTypeError(f"{text!r} is not an amount in USD, such as 0.15") from None
    if not found.is_finite() or found < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not an amount in USD, such as 0.15")
    _, digits, exponent = found.as_tuple()
    # Rounding would change the amount, a small one to 0.
    if isinstance(exponent, int) and exponent < -_DECIMALS and any(digits[exponent + _DECIMALS :]):
        raise argparse.ArgumentTypeError(
            f"{text!r} has more decimals than are stored; the smallest amount is {Decimal(1).scaleb(-_DECIMALS):f} USD"
        )
    return found


def _list_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("query", nargs="*", help="words in the model's id")
    parser.add_argument("--task", help="only this task, such as text-generation")
    parser.add_argument("--provider", help="only this provider")


def _list(engine: "sa.Engine", arguments: argparse.Namespace, out: Any) -> int:
    from hf_gateway.ledger import models

    providers = {arguments.provider}
    if arguments.provider is not None:
        with contextlib.suppress(ConfigError):
            providers.add(price_checks.payee(arguments.provider))
    hub_name = None if arguments.task is None else price_checks.task_of(arguments.task)
    found = [
        entry
        for entry in (*read_file_prices(arguments.config), *models.entries(engine))
        if all(word.casefold() in entry.model.casefold() for word in arguments.query)
        and (hub_name is None or price_checks.task_of(entry.task) == hub_name)
        and (arguments.provider is None or entry.provider in providers)
    ]
    if not found and arguments.task is not None:
        price_checks.check_task(arguments.task)
    fetched = models.fetched_at(engine)
    if out is None:
        print_json(
            {"fetched_at": fetched and fetched.isoformat(), "models": [_entry_to_dict(entry) for entry in found]}
        )
        return 0
    _print_entries(out, found)
    when = f"fetched {fetched:%Y-%m-%d %H:%M} UTC" if fetched else "never fetched; run `hf-gateway models refresh`"
    out.print(f"\n{quantity(len(found), 'line')}, USD per million tokens unless a unit is given; the router's: {when}")
    return 0


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="the model's id; '*' for every model of one server")
    parser.add_argument("--task", default=CHAT.price_task, help="task of the model there (text-generation)")
    parser.add_argument(
        "--provider",
        help="payee: an Inference Provider, or a target as in --targets, such as openai:https://api.example.com; else any",
    )
    for name, unit in _PRICES.items():
        parser.add_argument(f"--{_flag(name)}", dest=name, type=amount, metavar="USD", help=unit)
    parser.add_argument(
        "--per-1000-documents",
        dest="document",
        type=lambda text: amount(text, THOUSAND_DECIMALS),
        metavar="USD",
        help="USD per 1,000 documents",
    )
    parser.add_argument("--context", type=int, metavar="TOKENS", help="maximum tokens")
    parser.add_argument(
        "--tools", action=argparse.BooleanOptionalAction, default=None, help="whether it supports tool calls"
    )
    parser.add_argument(
        "--structured-output",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="whether it supports JSON schemas",
    )


def _flag(price: str) -> str:
    return {"cached": "cached-input"}.get(price, f"per-{price}" if price in _PER_UNIT else price)


def _add(engine: "sa.Engine", arguments: argparse.Namespace, out: Any) -> int:
    from hf_gateway.ledger import models

    entry = PriceEntry(
        arguments.model,
        arguments.task,
        arguments.provider,
        Price(**{name: getattr(arguments, name) for name in _PRICES}),
        arguments.context,
        arguments.tools,
        arguments.structured_output,
        pinned=True,
    )
    entry = price_checks.as_looked_up(entry)
    replaced = models.set_entry(engine, entry)
    if out is None:
        print_json({"replaced": replaced, "model": _entry_to_dict(entry)})
    else:
        _print_entries(out, [entry])
        out.print(f"\n{'replaced' if replaced else 'added'}; the router will not change it")
    return 0


def _remove_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="the model's id")
    parser.add_argument("--task", help="only this task")
    parser.add_argument("--provider", help="only this provider")


def _remove(engine: "sa.Engine", arguments: argparse.Namespace, out: Any) -> int:
    from hf_gateway.ledger import models

    gone = models.remove(engine, arguments.model, arguments.task, arguments.provider)
    if out is None:
        print_json({"removed": [_entry_to_dict(entry) for entry in gone]})
    elif gone:
        _print_entries(out, gone)
        back = "; the router's return with the next refresh" if any(each.source == "router" for each in gone) else ""
        out.print(f"\nremoved{back}")
    else:
        out.print(
            f"there is no such line of {visible(arguments.model)}; `hf-gateway models list` shows all", markup=False
        )
    return 0 if gone else 1


def _refresh_arguments(parser: argparse.ArgumentParser) -> None:
    pass


def _refresh(engine: "sa.Engine", arguments: argparse.Namespace, out: Any) -> int:  # noqa: ARG001 - as above
    from hf_gateway.ledger import models

    try:
        done = models.refresh(engine, router_url())
    except GatewayError as error:
        raise GatewayError(f"the router's prices stay as they were: {error.message}", target=error.target) from None
    if out is None:
        print_json(dataclasses.asdict(done))
        return 0
    out.print(
        f"{quantity(done.listed, 'line')} of the router, {done.priced} of them with a price; {done.gone} are gone"
    )
    if done.left_out:
        out.print(f"{done.left_out:,} left out, whose context, price or name cannot be stored")
    if done.replaced:
        out.print(
            f"configured values replaced by the router's: {', '.join(map(visible, done.replaced))}",
            markup=False,
        )
    if done.kept:
        out.print(f"{done.kept} set by hand are unchanged")
    return 0


def _entry_to_dict(entry: PriceEntry) -> dict[str, Any]:
    """Return the fields as JSON types; prices as text, with all digits."""
    price = {_flag(name): None if (each := getattr(entry.price, name)) is None else _digits(each) for name in _PRICES}
    return {
        "model": entry.model,
        "task": entry.task,
        "provider": entry.provider,
        "usd": {name.replace("-", "_"): value for name, value in price.items()},
        "context_length": entry.context,
        "tools": entry.tools,
        "structured_output": entry.structured_output,
        "source": entry.source,
        "pinned": entry.pinned,
        "fetched_at": entry.fetched_at and entry.fetched_at.isoformat(),
    }


def _digits(usd: Decimal) -> str:
    return format_usd(usd).removeprefix("$")


def _print_entries(out: Any, entries: Sequence[PriceEntry]) -> None:
    names, numbers = ("model", "task", "provider"), ("input", "output", "context")
    table = Table((*names, *numbers, "can", "price by"), right=frozenset(numbers), fold=frozenset(names))
    for entry in entries:
        able = (entry.tools and "tools", entry.structured_output and "schema")
        table.add(
            literal(entry.model),
            literal(entry.task),
            literal(entry.provider or "any"),
            *_columns(entry.price),
            "-" if entry.context is None else f"{entry.context:,}",
            ", ".join(each for each in able if each),
            f"{entry.source}, by hand" if entry.pinned and entry.source == "configured" else entry.source,
        )
    out.print_table(table)


def _columns(price: Price) -> tuple[str, str]:
    units = [f"{format_usd(each)} per {name}" for name in _PER_UNIT if (each := getattr(price, name)) is not None]
    if units and price.input is None:
        return " + ".join(units), ""
    shown = ["-" if each is None else format_usd(each) for each in (price.input, price.output)]
    return shown[0], shown[1]


_ACTIONS = (
    ("list", "show all or some lines", _list_arguments, _list),
    ("add", "set a price by hand, which the router does not change", _add_arguments, _add),
    ("remove", "remove lines", _remove_arguments, _remove),
    ("refresh", "read models and prices from the router now", _refresh_arguments, _refresh),
)
