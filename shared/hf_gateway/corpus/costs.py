"""What the calls of a worker cost, by the prices that the ledger would take."""

from decimal import Decimal

from hf_gateway.ledger import place
from hf_gateway.ledger.cost import cost_of, total
from hf_gateway.ledger.file_prices import read_file_prices
from hf_gateway.ledger.prices import PriceEntry, Prices
from hf_gateway.observing.observer import Observation
from hf_gateway.storage.files import data_home
from hf_gateway.values.logs import logger

log = logger(__name__)


def known_prices(config: str | None) -> Prices:
    """Return the prices of the config file and those of the ledger's database, if there is one.

    Args:
        config: path of the config file.

    Raises:
        ConfigError: the file is invalid.
    """
    return Prices([*_database_prices(), *read_file_prices(config)])


def _database_prices() -> list[PriceEntry]:
    url = place.from_environment()
    if url is None and not (data_home() / place.FILE_NAME).exists():
        return []
    try:
        from hf_gateway.ledger import models, store

        with store.open_ledger(url or place.check_url(place.default())) as engine:
            return models.entries(engine)
    except Exception as error:  # noqa: BLE001 - a cost that is unknown stops no job
        log.warning("the prices of the ledger cannot be read, so costs may be unknown: %s", error)
        return []


class CostCounter:
    """A watcher that adds up the costs of all calls of its process."""

    def __init__(self, prices: Prices) -> None:
        """prices: the price list."""
        self._prices = prices
        self._sum: Decimal | None = Decimal(0)

    def begin(self, observation: Observation) -> None:
        """Do nothing: what a call costs is known when it ends."""

    def end(self, observation: Observation) -> None:
        """Add the cost of a call's attempts; one that is unknown makes the sum unknown."""
        cost, _ = total(cost_of(tried, observation.task.name, self._prices) for tried in observation.attempts)
        self._sum = None if self._sum is None or cost is None else self._sum + cost

    def take(self) -> str | None:
        """Return the sum in USD since the last time; None if a cost is unknown."""
        found, self._sum = self._sum, Decimal(0)
        return None if found is None else f"{found.normalize():f}"
