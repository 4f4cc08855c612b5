"""`hf-gateway budgets`: budgets of tenants per day or month, and how much of them is spent."""

import argparse
import time
from typing import TYPE_CHECKING, Any

from hf_gateway.cli.models import amount, database
from hf_gateway.cli.output import Table, check_text, console, literal, print_json
from hf_gateway.errors import ConfigError, visible
from hf_gateway.ledger.budget_pool import format_usd

if TYPE_CHECKING:
    import sqlalchemy as sa

    from hf_gateway.ledger.budget import BudgetStatus

TAKES_A_CHAIN = False
"""Its arguments name tenants, not targets."""
_PERIODS = ("day", "month")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command and its subcommands."""
    commands = parser.add_subparsers(dest="action", metavar="COMMAND", required=True)
    for name, summary in _ACTIONS.items():
        command = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        if name != "list":
            command.add_argument(
                "tenant", help="the tenant; '*' for all calls together, those without a tenant included"
            )
        if name == "set":
            for period in _PERIODS:
                command.add_argument(f"--per-{period}", type=amount, metavar="USD", help=f"budget for a {period} (UTC)")
            command.add_argument(
                "--on-unknown",
                choices=["refuse", "allow"],
                help="what to do with a request whose cost is unknown (refuse)",
            )
        if name == "remove":
            command.add_argument("--period", choices=_PERIODS, help="remove only the budget for this period")
        command.add_argument("--ledger", metavar="URL", help="URL of the ledger's database (HF_GATEWAY_LEDGER)")
        command.add_argument("--config", metavar="FILE", help="the hf-gateway.toml that the server reads")
        command.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Run a subcommand; return 0 on success, 1 if it failed or found nothing, 2 for wrong usage."""
    check_text({"tenant": getattr(arguments, "tenant", None)})
    out = None if arguments.json else console()
    with database(arguments.ledger, arguments.config) as engine:
        from hf_gateway.ledger import budgets

        if arguments.action == "set":
            _set(engine, arguments)
        elif arguments.action == "remove":
            removed = budgets.remove_budget(engine, arguments.tenant, arguments.period)
            if out is None:
                print_json({"removed": removed})
            else:
                out.print(
                    f"{removed} removed" if removed else f"{visible(arguments.tenant)} has no such budget", markup=False
                )
            return 0 if removed else 1
        found = budgets.budget_statuses(engine, time.time())
        if arguments.action == "set":
            found = [each for each in found if each.budget.tenant == arguments.tenant]
        if out is None:
            print_json({"budgets": [_status_to_dict(each) for each in found]})
        elif found:
            _print_statuses(out, found)
        else:
            out.print("there are no budgets; set one: hf-gateway budgets set TENANT --per-day USD", markup=False)
    return 0


def _set(engine: "sa.Engine", arguments: argparse.Namespace) -> None:
    from hf_gateway.ledger.budget import Budget
    from hf_gateway.ledger.budgets import all_budgets, set_budget

    known = {each.period: each for each in all_budgets(engine) if each.tenant == arguments.tenant}
    limits = {period: getattr(arguments, f"per_{period}") for period in _PERIODS}
    if not any(limit is not None for limit in limits.values()) and not (arguments.on_unknown and known):
        raise ConfigError("give a budget: --per-day USD, --per-month USD, or both")
    for period, given in limits.items():
        before = known.get(period)  # type: ignore[call-overload]
        limit = given if given is not None or before is None else before.limit
        if limit is not None:
            on_unknown = arguments.on_unknown or (before.on_unknown if before else "refuse")
            set_budget(engine, Budget(arguments.tenant, period, limit, on_unknown))  # type: ignore[arg-type]


def _status_to_dict(status: "BudgetStatus") -> dict[str, Any]:
    """Return the fields as JSON types; amounts as text, with all digits."""
    budget = status.budget
    amounts = {"limit": budget.limit, "spent": status.spent, "reserved": status.reserved, "left": status.remaining}
    return {
        "tenant": budget.tenant,
        "period": budget.period,
        "starts": status.starts.isoformat(),
        "resets": status.resets.isoformat(),
        "usd": {name: format_usd(each).removeprefix("$") for name, each in amounts.items()},
        "on_unknown": budget.on_unknown,
    }


def _print_statuses(out: Any, statuses: "list[BudgetStatus]") -> None:
    amounts = ("limit", "spent", "reserved", "left")
    titles = ("tenant", "per", *amounts, "unknown price", "resets")
    table = Table(titles, right=frozenset(amounts), fold=frozenset({"tenant"}))
    for each in statuses:
        budget = each.budget
        left = format_usd(each.remaining) if each.remaining else f"[red]{format_usd(each.remaining)}[/red]"
        table.add(
            literal(budget.tenant) if budget.tenant != "*" else "all calls (*)",
            budget.period,
            format_usd(budget.limit),
            format_usd(each.spent),
            format_usd(each.reserved),
            left,
            budget.on_unknown,
            f"{each.resets:%Y-%m-%d %H:%M} UTC",
        )
    out.print_table(table)


_ACTIONS = {
    "list": "show the budgets and how much of them is spent",
    "set": "set the budget of a tenant",
    "remove": "remove the budget of a tenant",
}
