"""`hf-gateway config`: check the configuration, show what is in force, print the JSON schema of hf-gateway.toml."""

import argparse
import dataclasses
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from hf_gateway.cli.output import console, literal, print_json

TAKES_A_CHAIN = False
"""Its arguments name a file, not targets."""
_MAX_WIDTH_CHARS = 70
"""Up to this length settings are filled up with blanks, so that their sources stand below one another."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands and their arguments."""
    commands = parser.add_subparsers(dest="action", metavar="COMMAND", required=True)
    for name, summary in _SUMMARIES.items():
        command = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        if name != "schema":
            command.add_argument("file", nargs="?", metavar="FILE", help="the file; by default the one in force")
            command.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Run a subcommand; return 0 on success, 1 if the configuration has problems."""
    return _ACTIONS[arguments.action](arguments)


def _check(arguments: argparse.Namespace) -> int:
    from hf_gateway.configuration.check import findings
    from hf_gateway.server.access.setting_checks import access_problems
    from hf_gateway.settings.config_file import FILE_NAME, config_path

    path = config_path(arguments.file)
    found = findings(arguments.file, [access_problems])
    if arguments.json:
        file = None if path is None else str(path)
        print_json({"file": file, "ok": not found, "errors": [each.to_dict() for each in found]})
        return 1 if found else 0
    out = console()
    for each in found:
        out.print(literal(str(each), lines=True))
    if found:
        out.print(f"{len(found)} {'error' if len(found) == 1 else 'errors'}")
    elif path is None:
        out.print(f"there is no {FILE_NAME}; the environment has no errors")
    else:
        out.print(f"{literal(path)}: no errors")
    return 1 if found else 0


def _show(arguments: argparse.Namespace) -> int:
    from hf_gateway.configuration.effective import effective

    tables = effective(arguments.file)
    if arguments.json:
        print_json(
            {
                "tables": [
                    {"table": list(table.path), "settings": [dataclasses.asdict(setting) for setting in table.settings]}
                    for table in tables
                ]
            }
        )
        return 0
    out = console()
    for table in tables:
        if not table.settings:
            continue
        lines = [(f"{_key(setting.name)} = {_toml(setting.value)}", setting.source) for setting in table.settings]
        width = min(max(len(line) for line, _ in lines), _MAX_WIDTH_CHARS)
        out.print(f"{_header(table.path)}", markup=False)
        for line, source in lines:
            out.print(f"{line:<{width}}  # {source}", markup=False)
        out.print()
    return 0


def _schema(_: argparse.Namespace) -> int:
    from hf_gateway.configuration.schema import file_schema

    print_json(file_schema())
    return 0


def _header(path: tuple[str | int, ...]) -> str:
    names = ".".join(_key(part) for part in path if isinstance(part, str))
    return f"[[{names}]]" if isinstance(path[-1], int) else f"[{names}]"


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name, ensure_ascii=False)


def _toml(value: Any) -> str:
    """Return a value as TOML writes it."""
    if isinstance(value, dict):
        inner = ", ".join(f"{_key(name)} = {_toml(each)}" for name, each in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value, ensure_ascii=False)


_SUMMARIES: Mapping[str, str] = {
    "check": "check the file, the environment over it and every chain, without a network; print each error with its line",
    "schema": "print the JSON schema of hf-gateway.toml, for editors",
    "show": "show the settings in force, and where each is from; keys are not shown",
}
_ACTIONS: Mapping[str, Callable[[argparse.Namespace], int]] = {"check": _check, "schema": _schema, "show": _show}
