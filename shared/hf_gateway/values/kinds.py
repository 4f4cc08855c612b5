"""The kinds of target that are installed, found by the entry-point group `hf_gateway.backends`."""

from functools import cache
from importlib.metadata import EntryPoint, entry_points

GROUP = "hf_gateway.backends"


@cache
def registered() -> dict[str, EntryPoint]:
    """Return every kind that is installed; of two of one name ours wins, so that no package can take `hf` over."""
    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=GROUP):
        if entry.name not in found or entry.value.startswith("hf_gateway."):
            found[entry.name] = entry
    return found
