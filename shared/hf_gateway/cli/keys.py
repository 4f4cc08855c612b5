"""`hf-gateway keys`: keys of the server's callers. A key is shown once, when it is made or rotated, and never again."""

import argparse
import datetime as dt
import os
import re
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hf_gateway.cli.models import amount, database
from hf_gateway.cli.output import Table, check_text, console, count_above_0, literal, print_json
from hf_gateway.errors import ConfigError, GatewayError, did_you_mean
from hf_gateway.ledger.budget import KEY_BUDGET, Budget
from hf_gateway.server.access.caller import ANONYMOUS_SCOPES, SCOPES
from hf_gateway.server.access.rights import KeyRights
from hf_gateway.settings.config_file import read_config

if TYPE_CHECKING:
    import sqlalchemy as sa

    from hf_gateway.server.access.store import StoredKey

TAKES_A_CHAIN = False
"""Its arguments name keys, not targets."""
DEFAULT_SCOPES = ANONYMOUS_SCOPES - {"metrics"}
"""Scopes of a key for which none are given: use of every task, and reading."""
_PERIODS = ("day", "month")
_LIMITS = {
    "requests_per_minute": "requests in a minute",
    "tokens_per_minute": "tokens in a minute",
    "parallel": "requests under way at one time",
}
_UNITS = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds"}
KeyBudgets = dict[str, dict[str, str]]
"""Limits of keys in USD, by the key's public part and the period."""
_NONE = "none"
"""Value of an option that removes a right's limit."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command and its subcommands."""
    commands = parser.add_subparsers(dest="action", metavar="COMMAND", required=True)
    for name, summary in _ACTIONS.items():
        command = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        if name in ("change", "rotate", "revoke"):
            command.add_argument("id", metavar="ID", help="the key's public part: the 12 characters after hfg_")
        if name in ("create", "change"):
            _add_rights(command, changing=name == "change")
        if name == "list":
            command.add_argument("--tenant", help="only the keys of this tenant")
        if name == "rotate":
            command.add_argument(
                "--grace", metavar="TIME", help="accept the old key too for this time, such as 1h or 7d (0s)"
            )
        command.add_argument("--config", metavar="FILE", help="the hf-gateway.toml that the server reads")
        command.add_argument("--database", metavar="URL", help="URL of the server's database ([server] database)")
        command.add_argument("--json", action="store_true", help="print JSON")


def _add_rights(command: argparse.ArgumentParser, *, changing: bool) -> None:
    or_none = f", or '{_NONE}' for no limit" if changing else ""
    command.add_argument("--name", required=not changing, help="what the key is for")
    if not changing:
        command.add_argument("--tenant", help="who is billed; by default calls have no tenant")
    command.add_argument(
        "--scopes", help=f"what it may do, separated by commas, or 'all': {', '.join(SCOPES)} (all uses, and read)"
    )
    command.add_argument("--chains", help=f"the chains that it may use, separated by commas (all){or_none}")
    command.add_argument("--expires", metavar="WHEN", help=f"a date or time (UTC), or in how long: 90d, 12h{or_none}")
    for limit, unit in _LIMITS.items():
        flag = f"--{limit.replace('_', '-')}"
        command.add_argument(flag, dest=limit, type=_limit if changing else count_above_0, help=f"{unit}{or_none}")
    for period in _PERIODS:
        command.add_argument(f"--per-{period}", type=amount, metavar="USD", help=f"budget of the key for a {period}")


def _limit(value: str) -> int | str:
    return value if value == _NONE else count_above_0(value)


_limit.__name__ = count_above_0.__name__


def run(arguments: argparse.Namespace) -> int:
    """Run a subcommand; return 0 on success, 2 for wrong usage or an unknown key."""
    check_text({f"--{name}": getattr(arguments, name, None) for name in ("name", "tenant", "scopes", "chains")})
    if (key_id := getattr(arguments, "id", None)) is not None and not re.fullmatch(r"[a-z2-9]{12}", key_id):
        raise ConfigError(
            "ID is the public part of a key: the 12 characters between hfg_ and the next _. What was given is not "
            "repeated here, as it may be a whole key: keys do not belong on the command line"
        )
    with database(arguments.database, arguments.config, "--database") as engine:
        action = {"create": _create, "list": _list, "change": _change, "rotate": _rotate, "revoke": _revoke}
        return action[arguments.action](engine, arguments)


def _create(engine: "sa.Engine", arguments: argparse.Namespace) -> int:
    from hf_gateway.server.access import store

    given = _given_rights(arguments)
    rights = KeyRights(**{"scopes": DEFAULT_SCOPES, **given, "tenant": arguments.tenant})
    text, made = store.create_key(engine, rights)
    try:
        _set_budgets(engine, made.id, arguments)
        _warn_of_unknown_chains(arguments, rights)
        _show_new(arguments, text, made)
    except Exception as error:
        store.revoke_key(engine, made.id)
        if isinstance(error, OSError):
            raise GatewayError(f"the key {made.id} could not be shown, and was revoked: {error}") from error
        raise
    _tell_once(arguments, made)
    return 0


def _list(engine: "sa.Engine", arguments: argparse.Namespace) -> int:
    from hf_gateway.server.access import store

    found = store.all_keys(engine, arguments.tenant)
    budgets = _budgets(engine)
    if arguments.json:
        print_json({"keys": [_with_budgets(key, budgets) for key in found]})
    elif found:
        _print_keys(found, budgets)
    else:
        console().print("there are no keys; make one: hf-gateway keys create --name NAME", markup=False)
    return 0


def _change(engine: "sa.Engine", arguments: argparse.Namespace) -> int:
    from hf_gateway.server.access import store

    changes = _given_rights(arguments)
    budgets = any(getattr(arguments, f"per_{period}") is not None for period in _PERIODS)
    if not changes and not budgets:
        raise ConfigError("say what to change, such as --expires 90d")
    changed = store.change_key(engine, arguments.id, changes)
    _set_budgets(engine, changed.id, arguments)
    _warn_of_unknown_chains(arguments, changed.rights)
    return _print_key(arguments, changed, "changed; servers see it within 5 seconds", _budgets(engine))


def _rotate(engine: "sa.Engine", arguments: argparse.Namespace) -> int:
    from hf_gateway.server.access import store

    grace = _duration(arguments.grace, "--grace") if arguments.grace else dt.timedelta(0)
    text, rotated = store.rotate_key(engine, arguments.id, grace)
    try:
        _show_new(arguments, text, rotated)
    except OSError as error:
        cure = "the old one is accepted until --grace ends; make another key before" if grace else "rotate it again"
        raise GatewayError(f"the new key {rotated.id} could not be shown ({error}); {cure}") from error
    _tell_once(arguments, rotated)
    return 0


def _revoke(engine: "sa.Engine", arguments: argparse.Namespace) -> int:
    from hf_gateway.server.access import store

    revoked = store.revoke_key(engine, arguments.id)
    return _print_key(arguments, revoked, "revoked; servers see it within 5 seconds", _budgets(engine))


def _given_rights(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the rights that were given, as values of `KeyRights`."""
    given: dict[str, Any] = {}
    if arguments.name is not None:
        given["name"] = arguments.name
    if arguments.scopes is not None:
        given["scopes"] = frozenset(SCOPES) if arguments.scopes == "all" else _names(arguments.scopes)
    if arguments.chains is not None:
        given["chains"] = None if arguments.chains == _NONE else _names(arguments.chains)
    if arguments.expires is not None:
        given["expires"] = None if arguments.expires == _NONE else _time(arguments.expires)
    for limit in _LIMITS:
        if (value := getattr(arguments, limit)) is not None:
            given[limit] = None if value == _NONE else value
    return given


def _names(text: str) -> frozenset[str]:
    return frozenset(name.strip() for name in text.split(",") if name.strip())


def _time(text: str) -> dt.datetime:
    if re.fullmatch(r"\d+[dhms]", text):
        return dt.datetime.now(dt.UTC) + _duration(text, "--expires")
    try:
        found = dt.datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"--expires {text!r} is neither a date or time, nor a time from now such as 90d") from None
    return found.replace(tzinfo=found.tzinfo or dt.UTC)


def _duration(text: str, option: str) -> dt.timedelta:
    found = re.fullmatch(r"(\d{1,5})([dhms])", text)
    if found is None:
        raise ConfigError(f"{option} {text!r} is not a time such as 7d, 12h, 30m or 45s")
    return dt.timedelta(**{_UNITS[found[2]]: int(found[1])})


def _set_budgets(engine: "sa.Engine", key_id: str, arguments: argparse.Namespace) -> None:
    from hf_gateway.ledger.budgets import set_budget

    for period in _PERIODS:
        if (limit := getattr(arguments, f"per_{period}")) is not None:
            set_budget(engine, Budget(KEY_BUDGET + key_id, period, limit))  # type: ignore[arg-type]


def _budgets(engine: "sa.Engine") -> KeyBudgets:
    from hf_gateway.ledger.budget_pool import format_usd
    from hf_gateway.ledger.budgets import all_budgets

    found: KeyBudgets = {}
    for budget in all_budgets(engine):
        if budget.tenant.startswith(KEY_BUDGET):
            found.setdefault(budget.tenant.removeprefix(KEY_BUDGET), {})[budget.period] = format_usd(budget.limit)
    return found


def _with_budgets(key: "StoredKey", budgets: KeyBudgets) -> dict[str, Any]:
    own = {period: usd.removeprefix("$") for period, usd in budgets.get(key.id, {}).items()}
    return {**key.to_json(), **{f"per_{period}": own.get(period) for period in _PERIODS}}


def _warn_of_unknown_chains(arguments: argparse.Namespace, rights: KeyRights) -> None:
    """Warn of chains of a key that are not in the configuration that the command read: such a key may use nothing there."""
    if arguments.chains is None or rights.chains is None:
        return
    try:
        chains = read_config(arguments.config)[1].get("chains")
    except ConfigError:
        return  # `config check` says what is wrong; a key that was made is shown all the same
    known = set(chains) if isinstance(chains, dict) else set()
    for name in sorted(rights.chains - known) if known else ():
        console(stderr=True).print(
            f"the configuration here has no chain {name!r}{did_you_mean(name, known)}; "
            "the key may use it where there is one",
            markup=False,
        )


def _show_new(arguments: argparse.Namespace, text: str, key: "StoredKey") -> None:
    """Print a key that is shown once. Raises OSError if it cannot be: a full disk, a reader that has gone, no output at all."""
    if getattr(sys.stdout, "name", None) == os.devnull:  # what `main` opens in place of an output that is closed
        raise OSError("there is no standard output")
    if arguments.json:
        print_json({"key": text, **key.to_json()})
    else:
        # Alone on its line, so that it can be copied or cut out.
        console().print(text, markup=False)
    sys.stdout.flush()


def _tell_once(arguments: argparse.Namespace, key: "StoredKey") -> None:
    if not arguments.json:
        console(stderr=True).print(
            f"this is the only time that the key {key.id} is shown: what is stored cannot be turned back into it",
            markup=False,
        )


def _print_key(arguments: argparse.Namespace, key: "StoredKey", outcome: str, budgets: KeyBudgets) -> int:
    if arguments.json:
        print_json(_with_budgets(key, budgets))
    else:
        _print_keys([key], budgets)
        console().print(f"\n{outcome}", markup=False)
    return 0


def _print_keys(found: "list[StoredKey]", budgets: KeyBudgets) -> None:
    titles = ("id", "name", "tenant", "scopes", "chains", "limits", "state")
    table = Table(titles, fold=frozenset({"name", "scopes", "chains", "limits"}))
    now = dt.datetime.now(dt.UTC).timestamp()
    for key in found:
        rights = key.rights
        limits = [f"{getattr(rights, limit):,} {unit}" for limit, unit in _LIMITS.items() if getattr(rights, limit)]
        limits += [f"{usd} a {period}" for period, usd in budgets.get(key.id, {}).items()]
        cells = (
            key.id,
            rights.name,
            rights.tenant or "-",
            ", ".join(sorted(rights.scopes)),
            "all" if rights.chains is None else ", ".join(sorted(rights.chains)),
            "; ".join(limits) or "-",
            _state(key, now),
        )
        table.add(*map(literal, cells))
    console().print_table(table)


def _state(key: "StoredKey", now: float) -> str:
    if key.revoked is not None:
        return f"revoked {key.revoked:%Y-%m-%d}"
    if key.rights.expires is None:
        return "valid"
    return f"{'expired' if key.is_expired(now) else 'valid until'} {key.rights.expires:%Y-%m-%d %H:%M} UTC"


_ACTIONS: Mapping[str, str] = {
    "create": "make a key, and show it once",
    "list": "show the keys and what they allow; the keys themselves cannot be shown",
    "change": "change what a key allows",
    "rotate": "replace the secret part of a key, and show the new key once",
    "revoke": "end a key for good",
}
