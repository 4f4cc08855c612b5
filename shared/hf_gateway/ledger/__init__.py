"""The ledger: what every call was and what it cost, kept in a database that its owner can query.

Switched on by HF_GATEWAY_LEDGER (1, or an SQLAlchemy URL) or by `enable`. Importing this imports no third-party package.
"""

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from hf_gateway.errors import ConfigError
from hf_gateway.keys.policy import parse_flag
from hf_gateway.ledger import place
from hf_gateway.observing import observer
from hf_gateway.storage.files import data_home
from hf_gateway.values.forks import fork_lock

if TYPE_CHECKING:
    from hf_gateway.ledger.watcher import Ledger

CONTENT_VARIABLE = "HF_GATEWAY_LEDGER_CONTENT"

_lock = fork_lock()
_enabled: "Ledger | None" = None


def enable(url: str | None = None, *, content: bool | None = None) -> "Ledger":
    """Write down every call of this process from now on; returns the ledger, the same one however often this is called.

    url: `sqlite:///…` or `postgresql+psycopg://…`; None for what HF_GATEWAY_LEDGER says, and without that for a SQLite file
    in the user's data folder. content: whether prompts and answers are kept, too; None for what HF_GATEWAY_LEDGER_CONTENT
    says, and without that they are not.

    Example:
        ```python
        from hf_gateway import Gateway, ledger, observe

        kept = ledger.enable("sqlite:///calls.sqlite")
        with observe.tagged(tenant="acme"):
            Gateway(targets=["hash"]).embed(["a text"])
        kept.flush()
        ```

    Raises:
        ConfigError: a URL that is none, a package that is missing, or a ledger that is kept somewhere else already.
    """
    global _enabled
    from hf_gateway.ledger.spill import Spill
    from hf_gateway.ledger.watcher import Ledger
    from hf_gateway.ledger.writer import Writer

    wanted = place.check_url(url) if url is not None else place.from_environment() or place.check_url(place.default())
    if content is None:
        content = parse_flag(os.environ.get(CONTENT_VARIABLE, ""))
    # Here and now, though it takes tenths of a second: beside a busy program a thread would import for seconds.
    from hf_gateway.ledger import models, store  # noqa: F401

    with _lock:
        if _enabled is None:
            _enabled = Ledger(wanted, Writer(wanted, Spill(waiting_room(wanted))), content=content)
            _enabled.writer.start()
        elif _enabled.url != wanted:
            raise ConfigError(
                f"the ledger of this process is kept in {place.shown_url(_enabled.url)} already; call "
                f"hf_gateway.ledger.disable() before it is kept in {place.shown_url(wanted)}"
            )
        observer.register(_enabled)
        return _enabled


def disable(timeout: float = 5.0) -> bool:
    """Write down no more calls; returns whether the database has all until now. timeout: seconds for that."""
    global _enabled
    with _lock:
        kept, _enabled = _enabled, None
    if kept is None:
        return True
    observer.unregister(kept)
    return kept.close(timeout)


def enable_budgets(url: str | None = None) -> None:
    """Keep every call of this process within the budgets that `hf-gateway budgets set` has put into a ledger's database.

    url: as for `enable`. HF_GATEWAY_LEDGER switches this on, too, unless HF_GATEWAY_BUDGETS is 0. Costs nothing where no budget
    is set. Raises ConfigError.
    """
    from hf_gateway.ledger import budget_watch

    if os.environ.get(budget_watch.VARIABLE, "").strip().lower() not in ("0", "off", "no", "false"):
        budget_watch.enable(url)


def disable_budgets() -> None:
    """Let calls through whatever they cost."""
    from hf_gateway.ledger import budget_watch

    budget_watch.disable()


def enabled() -> "Ledger | None":
    """Return the ledger of this process; None where it is off."""
    return _enabled


def waiting_room(url: str) -> Path:
    """Return the folder of the files in which rows wait for a database; the password is no part of what it is called after."""
    name = place.shown_url(url) + "?" + url.partition("?")[2]
    return data_home() / "ledger-waiting" / hashlib.sha256(name.encode()).hexdigest()[:16]
