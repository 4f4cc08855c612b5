"""The public addresses in the package's metadata, from the one constant in which the documentation's address stands."""

import ast
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

VERSION_FILE = "shared/hf_gateway/_version.py"
PAGES = {"Documentation": "/", "Changelog": "/CHANGELOG/", "Security": "/SECURITY/", "Errors": "/errors/"}
"""Label → the page of the documentation's site."""


def documentation_url(root: Path) -> str:
    """Return `DOCUMENTATION_URL`, which is read and not imported: what the package needs is not installed yet.

    Args:
        root: the folder with pyproject.toml.
    """
    for node in ast.parse((root / VERSION_FILE).read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["DOCUMENTATION_URL"]:
            return str(ast.literal_eval(node.value))
    raise ValueError(f"{VERSION_FILE} has no DOCUMENTATION_URL")


class CustomMetadataHook(MetadataHookInterface):
    """Fills `[project.urls]`; while there is no public address there are none."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Add the addresses to the fields of `[project]`."""
        address = documentation_url(Path(self.root))
        if address:
            metadata["urls"] = {label: address + page for label, page in PAGES.items()}
