"""`hf-gateway db`: the server's database, which is that of the ledger: upgrade its tables, check them, remove old rows."""

import argparse
import datetime as dt
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from hf_gateway.cli.database_url import configured_url
from hf_gateway.cli.output import check_text, print_json
from hf_gateway.errors import ConfigError, GatewayError, visible
from hf_gateway.ledger import place
from hf_gateway.ledger.times import parse_time
from hf_gateway.values.wording import quantity

if TYPE_CHECKING:
    import sqlalchemy as sa

TAKES_A_CHAIN = False
"""Its arguments name a database, not targets."""
_ACTIONS = {
    "upgrade": "create the tables or upgrade them; on PostgreSQL, one process at a time",
    "check": "check whether the tables are those of this version",
    "prune": "remove old rows of the ledger for good; budgets keep what was spent",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command and its subcommands."""
    commands = parser.add_subparsers(dest="action", metavar="COMMAND", required=True)
    for name, summary in _ACTIONS.items():
        command = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        if name == "prune":
            command.add_argument(
                "--older-than", required=True, metavar="AGE", help="90d, 24h, or a date (UTC): rows from before it"
            )
            command.add_argument("--tenant", help="only the rows of this tenant, and its sums by day")
            command.add_argument("--dry-run", action="store_true", help="count the rows, and remove none")
        command.add_argument("--config", metavar="FILE", help="the hf-gateway.toml that the server reads")
        command.add_argument("--database", metavar="URL", help="URL of the server's database ([server] database)")
        command.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Run a subcommand; return 0 on success, 1 if the tables are not those of this version, 2 for wrong usage."""
    check_text({"--tenant": getattr(arguments, "tenant", None)})
    url = configured_url(arguments.database, "--database", arguments.config)
    return {"upgrade": _upgrade, "check": _check, "prune": _prune}[arguments.action](url, arguments)


@contextmanager
def _engine(url: str) -> Iterator["sa.Engine"]:
    """Yield an engine. Raises GatewayError if the database fails."""
    from sqlalchemy.exc import SQLAlchemyError

    from hf_gateway.ledger import store

    engine = store.open_engine(url)
    try:
        yield engine
    except SQLAlchemyError as error:
        raise GatewayError(
            f"the database {place.shown_url(url)} cannot be used: {place.database_words(error)}"
        ) from None
    finally:
        engine.dispose()


def _revision(url: str) -> str | None:
    """Return the revision of the tables; None for none. Makes no file."""
    from hf_gateway.ledger import store

    if (file := place.file_of(url)) is not None and not file.exists():
        return None
    with _engine(url) as engine:
        return store.revision(engine)


def _upgrade(url: str, arguments: argparse.Namespace) -> int:
    from hf_gateway.ledger import store

    with _engine(url) as engine:
        changed = store.upgrade(engine)
    state = "created or upgraded" if changed else "up to date already"
    if arguments.json:
        print_json({"database": place.shown_url(url), "changed": changed, "revision": store.HEAD})
    else:
        sys.stdout.write(f"the tables in {place.shown_url(url)} are {state} (revision {store.HEAD})\n")
    return 0


def _check(url: str, arguments: argparse.Namespace) -> int:
    from hf_gateway.ledger import store

    found = _revision(url)
    good = found == store.HEAD
    if arguments.json:
        print_json({"database": place.shown_url(url), "revision": found, "needed": store.HEAD, "ok": good})
    elif good:
        sys.stdout.write(f"the tables in {place.shown_url(url)} are those of this version (revision {found})\n")
    else:
        sys.stderr.write(f"{store.other_revision(url, found)}\n")
    return 0 if good else 1


def _prune(url: str, arguments: argparse.Namespace) -> int:
    now = dt.datetime.now(dt.UTC)
    before = parse_time(arguments.older_than, now, "--older-than")
    if before > now:
        raise ConfigError(f"--older-than {arguments.older_than} is in the future")
    from hf_gateway.ledger import store
    from hf_gateway.ledger.pruning import OldRows, count_old, prune

    if (found := _revision(url)) != store.HEAD:
        raise GatewayError(store.other_revision(url, found))
    old = OldRows(before, arguments.tenant)
    with _engine(url) as engine:
        count = count_old(engine, old) if arguments.dry_run else prune(engine, old)
    if arguments.json:
        print_json(
            {
                "database": place.shown_url(url),
                "before": before.isoformat(),
                "tenant": arguments.tenant,
                "rows": count,
                "removed": not arguments.dry_run,
            }
        )
        return 0
    whose = "" if arguments.tenant is None else f" of {visible(arguments.tenant)}, with their sums by day,"
    done = "would be removed" if arguments.dry_run else "removed"
    sys.stdout.write(f"{quantity(count, 'row')}{whose} from before {before:%Y-%m-%d %H:%M} UTC {done}\n")
    return 0
