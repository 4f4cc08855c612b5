"""What installed packages add to hf-gateway by entry points; ours are registered the same way."""

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any


@cache
def _every_entry_point() -> Any:
    # It reads a file of every installed distribution, so it is asked once for all groups; its type depends on Python's version.
    return entry_points()


@cache
def installed(group: str) -> dict[str, EntryPoint]:
    """Return the entry points of a group by name, sorted, since their order is up to the installer.

    Of two of one name ours wins, so that no package can take `hf` over.
    """
    found: dict[str, EntryPoint] = {}
    for entry in _every_entry_point().select(group=group):
        if entry.name not in found or entry.value.startswith("hf_gateway."):
            found[entry.name] = entry
    return dict(sorted(found.items()))
