"""The kinds of target that are installed, found by the entry-point group `hf_gateway.backends`."""

from importlib.metadata import EntryPoint

from hf_gateway.values.entry_points import installed

GROUP = "hf_gateway.backends"


def registered() -> dict[str, EntryPoint]:
    """Return every installed kind, by name."""
    return installed(GROUP)
