"""What a running server holds: its settings, the chains in force, who may call, the requests under way."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from hf_gateway.runtime.deadlines import Deadlines
from hf_gateway.server.access.authenticator import KeyAuthenticator
from hf_gateway.server.access.database import ServerDatabase
from hf_gateway.server.access.origins import OriginRules
from hf_gateway.server.dispatch.call import Answer, Call
from hf_gateway.server.dispatch.chains import ChainTable
from hf_gateway.server.dispatch.limits import Limits
from hf_gateway.server.dispatch.metrics import ServerMetrics
from hf_gateway.server.dispatch.retention import Retention
from hf_gateway.server.dispatch.routing import RouteTable
from hf_gateway.server.dispatch.target_checks import TargetChecks
from hf_gateway.settings.config_file import router_url
from hf_gateway.settings.server import ServerSettings

if TYPE_CHECKING:
    from hf_gateway.ledger.models import PriceBook
    from hf_gateway.server.dispatch.lifecycle import Close, Reloader


@dataclass(eq=False)
class ServerState:
    """The state of one server process."""

    settings: ServerSettings
    """Its settings."""
    chains: ChainTable
    """The chains in force; replaced whole by a reload."""
    routes: RouteTable
    """The route table."""
    database: ServerDatabase
    """Keys, sessions, the ledger and budgets."""
    authenticator: KeyAuthenticator
    """Finds the caller of a request."""
    origins: OriginRules
    """From where requests may come."""
    config: str | None = None
    """The config file; None for the one in force."""
    guards: list[Callable[[Call], Answer | None]] = field(default_factory=list)
    """Called with each request before its caller is looked up; may raise Problem, answer by itself, or add headers."""
    unready: dict[str, str] = field(default_factory=dict)
    """Why the server is not ready, by what is missing; empty for ready."""
    notes: dict[str, str] = field(default_factory=dict)
    """What does not work as it is set although the server is ready, by what it is about."""
    in_flight: dict[str, Call] = field(default_factory=dict)
    """The requests under way, by their ids."""
    flags: Mapping[str, Any] = field(default_factory=dict)
    """Settings from the command's flags, which a reload does not change."""
    on_reload: "list[Callable[[ServerSettings], Callable[[], Close | None]]]" = field(default_factory=list)
    """Called with the new settings before they are in force; may raise ConfigError, and returns what puts them in force, which
    returns what closes the parts that were replaced."""
    ended: list[Callable[[Call, int, float], None]] = field(default_factory=list)
    """Called with each request that has ended, its HTTP status and its seconds."""
    deadlines: Deadlines = field(default_factory=Deadlines)
    """The limits of time of the requests."""
    metrics: ServerMetrics = field(default_factory=ServerMetrics)
    """Counts of the requests."""
    limits: Limits = field(init=False)
    """The limits of callers."""
    reloader: "Reloader" = field(init=False)
    """Reads the configuration again."""
    retention: Retention = field(init=False)
    """Removes old rows of the ledger."""
    health: "tuple[ChainTable, float, Sequence[Mapping[str, Any]]] | None" = None
    """What the targets of a table answered when they were last asked, and when that was."""
    target_checks: TargetChecks = field(default_factory=TargetChecks)
    """What single targets answered when they were last asked, for the page."""
    keeps_ledger: bool = False
    """Whether the calls of this process are kept in the database, which has them all before the process ends."""
    started: float = field(default_factory=time.time)
    """When it was built, in seconds since the epoch."""
    draining: bool = False
    """Whether the server is about to end: it accepts nothing new."""

    @cached_property
    def price_book(self) -> "PriceBook":
        """The prices of the database, by which the ledger costs calls; blocks at the first use."""
        from hf_gateway.ledger.models import PriceBook

        return PriceBook(self.database.engine(), router_url())

    @property
    def ready(self) -> bool:
        """Whether requests are welcome."""
        return not self.unready and not self.draining
