"""The ledger: a record of every call and its cost in a database.

Enabled with HF_GATEWAY_LEDGER (1, or an SQLAlchemy URL) or by `enable`. Importing this module imports no third-party
package.
"""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from hf_gateway.errors import ConfigError
from hf_gateway.keys.policy import read_switch
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
    """Record all calls of this process; repeated calls return the same ledger.

    Args:
        url: `sqlite:///…` or `postgresql+psycopg://…`; None for HF_GATEWAY_LEDGER, or else a SQLite file in the
            user's data folder.
        content: whether prompts and answers are recorded too; None for HF_GATEWAY_LEDGER_CONTENT, or else False.

    Example:
        ```python
        from hf_gateway import Gateway, ledger, observe

        kept = ledger.enable("sqlite:///calls.sqlite")
        with observe.tagged(tenant="acme"):
            Gateway(targets=["hash"]).embed(["a text"])
        kept.flush()
        ```

    Raises:
        ConfigError: invalid URL, missing package, or the process has a ledger with another URL already.
    """
    global _enabled
    from hf_gateway.ledger.spill import Spill
    from hf_gateway.ledger.watcher import Ledger
    from hf_gateway.ledger.writer import Writer

    wanted = place.check_url(url) if url is not None else place.from_environment() or place.check_url(place.default())
    if content is None:
        content = read_switch(CONTENT_VARIABLE)
    # Imported here although it takes tenths of a second: in a thread of a busy program it would take seconds.
    from hf_gateway.ledger import models, store  # noqa: F401

    with _lock:
        if _enabled is None:
            _enabled = Ledger(wanted, Writer(wanted, Spill(waiting_room(wanted))), content=content)
            _enabled.writer.start()
        elif _enabled.url != wanted:
            raise ConfigError(
                f"the ledger of this process is in {place.shown_url(_enabled.url)} already; call "
                f"hf_gateway.ledger.disable() before enabling it in {place.shown_url(wanted)}"
            )
        observer.register(_enabled)
        return _enabled


def disable(timeout: float = 5.0) -> bool:
    """Stop recording; return whether the database has all calls until now. `timeout` is in seconds."""
    global _enabled
    with _lock:
        kept, _enabled = _enabled, None
    if kept is None:
        return True
    observer.unregister(kept)
    return kept.close(timeout)


def enable_budgets(url: str | None = None) -> None:
    """Enforce the budgets in a ledger's database, as set with `hf-gateway budgets set`, for all calls of this process.

    HF_GATEWAY_LEDGER enables this too, unless HF_GATEWAY_BUDGETS is 0. Costs nothing while no budget is set. `url` is
    as for `enable`. Raises ConfigError.
    """
    from hf_gateway.ledger import budget_watch

    if budget_watch.mode() != "off":
        budget_watch.enable(url)


def disable_budgets() -> None:
    """Stop enforcing budgets."""
    from hf_gateway.ledger import budget_watch

    budget_watch.disable()


def enabled() -> "Ledger | None":
    """Return the ledger of this process; None if it is disabled."""
    return _enabled


def waiting_room(url: str) -> Path:
    """Return the folder for rows that are not in the database yet; its name does not depend on the password."""
    name = place.shown_url(url) + "?" + url.partition("?")[2]
    return data_home() / "ledger-waiting" / hashlib.sha256(name.encode()).hexdigest()[:16]
