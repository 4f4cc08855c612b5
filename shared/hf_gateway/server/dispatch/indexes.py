"""The indexes of `[server.indexes]`: opened before the server starts, each by a chain for embeddings of its space."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hf_gateway.errors import ConfigError, SpaceMismatch
from hf_gateway.retrieval.index import PassageIndex

if TYPE_CHECKING:
    from hf_gateway.server.dispatch.chain import Chain


@dataclass(frozen=True)
class ServedIndex:
    """One index, ready to be searched."""

    name: str
    """Its name in the configuration."""
    index: PassageIndex
    """The index."""
    chain: "Chain"
    """The chain that embeds its queries."""


def open_indexes(paths: Mapping[str, Path], chains: Sequence["Chain"]) -> dict[str, ServedIndex]:
    """Open indexes by their names.

    Args:
        paths: the folder of each.
        chains: for embeddings; the first one of an index's space embeds its queries.

    Raises:
        ConfigError: an index is missing or damaged, or made in a space that no chain has.
    """
    return {name: _opened(name, folder, chains) for name, folder in paths.items()}


def _opened(name: str, folder: Path, chains: Sequence["Chain"]) -> ServedIndex:
    place = f"[server.indexes] {name}"
    if not chains:
        raise ConfigError(f"{place}: the configuration has no chain for embeddings, which would embed its queries")
    refused: SpaceMismatch | None = None
    for chain in _fitting_first(folder, chains):
        try:
            return ServedIndex(name, PassageIndex.open(folder, chain.gateway), chain)
        except ConfigError as error:
            raise ConfigError(f"{place}: {error.message}") from None
        except SpaceMismatch as error:
            refused = refused or error
    assert refused is not None
    raise ConfigError(f"{place}: {refused.message}")


def _fitting_first(folder: Path, chains: Sequence["Chain"]) -> Iterator["Chain"]:
    """Yield the chains, and those first of which nothing is known that differs from the index."""
    fitting = [chain for chain in chains if PassageIndex.fits(folder, chain.gateway)]
    yield from fitting
    yield from (chain for chain in chains if chain not in fitting)
