"""Writes what is made in the chart: the schema of hf-gateway.toml in values.schema.json, and the README's table of values.

`python -m tests.deploy.chart_files` writes them; test_values.py compares them.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

import yaml  # type: ignore[import-untyped]

from tests.deploy.tools import CHART, ROOT

TOML_SCHEMA = ROOT / "shared" / "hf_gateway" / "configuration" / "hf-gateway.schema.json"
SCHEMA, VALUES, README = CHART / "values.schema.json", CHART / "values.yaml", CHART / "README.md"
BEGIN, END = "<!-- made by python -m tests.deploy.chart_files -->\n", "<!-- end -->\n"
WHOLE = ("updateStrategy", "resources", "podSecurityContext", "securityContext")
"""Values that have one row each, whatever stands below them."""
_LINE = re.compile(r"(?P<indent> *)(?P<key>[\w.-]+):(?: (?P<value>.*))?$")


def schema_text() -> str:
    """Return values.schema.json with the definitions of hf-gateway.toml under names of their own."""
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    toml = json.loads(TOML_SCHEMA.read_text(encoding="utf-8"))
    own = {name: value for name, value in toml.items() if name in ("type", "additionalProperties", "properties")}
    definitions = {"toml": own, **{f"toml_{name}": value for name, value in toml["$defs"].items()}}
    schema["$defs"] = _renamed(definitions)
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _renamed(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: each.replace("#/$defs/", "#/$defs/toml_") if name == "$ref" else _renamed(each)
            for name, each in value.items()
        }
    return [_renamed(each) for each in value] if isinstance(value, list) else value


def readme_text() -> str:
    """Return the README with the table of all values."""
    before, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    table = "\n".join(["", "| value | default | |", "|---|---|---|", *_rows()])
    return before + BEGIN + table + "\n" + END + rest.partition(END)[2]


def _rows() -> Iterator[str]:
    values = yaml.safe_load(VALUES.read_text(encoding="utf-8"))
    about = ""
    path: list[str] = []
    for line in VALUES.read_text(encoding="utf-8").splitlines():
        if line.strip().startswith("# -- "):
            about = line.strip().removeprefix("# -- ")
        elif (found := _LINE.match(line)) is not None:
            depth = len(found["indent"]) // 2
            path = [*path[:depth], found["key"]]
            if (found["value"] or about or path[0] in WHOLE) and not _is_below_a_value(values, path):
                yield f"| `{'.'.join(path)}` | {_shown(values, path)} | {about} |"
            about = ""


def _is_below_a_value(values: Any, path: list[str]) -> bool:
    """Return whether a line is a part of a default that its parent's row shows, such as a security context."""
    return path[0] in WHOLE and len(path) > 1


def _shown(values: Any, path: list[str]) -> str:
    for key in path:
        values = values[key]
    if (
        isinstance(values, dict)
        and values
        and any(isinstance(each, dict) for each in values.values())
        and len(path) < 2
    ):
        return "see values.yaml"
    return f"`{json.dumps(values)}`"


def main() -> None:
    """Write both files."""
    schema, readme = schema_text(), readme_text()
    SCHEMA.write_text(schema, encoding="utf-8")
    README.write_text(readme, encoding="utf-8")


if __name__ == "__main__":
    main()
