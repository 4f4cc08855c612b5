"""The configuration in force: the file, the environment over it, the defaults under it; each value with where it is from.

No key is shown: of `env:NAME` and `file:/PATH` the name, of a URL no password, and of everything else that is or may be a key
`***`.
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from hf_gateway.configuration.chains import configured_chains, refuse_unknown_chains
from hf_gateway.configuration.variables import variables
from hf_gateway.keys.policy import read_switch
from hf_gateway.ledger.file_prices import read_file_prices
from hf_gateway.ledger.place import shown_url as shown_database
from hf_gateway.settings.base import NamedSettings
from hf_gateway.settings.config_file import REQUIRE_KEY_VARIABLE, key_policy_overrides, open_config
from hf_gateway.settings.keys import KeysSection
from hf_gateway.settings.ledger import SECTION as LEDGER
from hf_gateway.settings.ledger import LedgerSection
from hf_gateway.settings.server import PREFIX, SECTION, ServerSettings, settings_of_environment
from hf_gateway.settings.toml_file import ConfigFile
from hf_gateway.settings.toml_lines import Place
from hf_gateway.tasks.registry import chosen_targets, find_task
from hf_gateway.values.redaction import HIDDEN, may_name_key, shown_url
from hf_gateway.values.target import Target

DEFAULT = "default"
_KEY = re.compile(r"\b(?:hfg?_|sk[_-]|gh[pousr]_|xox[a-z]-)\w[\w-]{6,}")


@dataclass(frozen=True)
class Setting:
    """A setting in force."""

    name: str
    """Its name in its table."""
    value: Any
    """Its value as JSON types, without keys."""
    source: str
    """`FILE:LINE`, the name of a variable, or "default"."""


@dataclass(frozen=True)
class Table:
    """A table of the configuration."""

    path: tuple[str | int, ...]
    """The keys that lead to it; a number for one of several tables in double brackets."""
    settings: list[Setting] = field(default_factory=list)
    """Its settings, in the order of the classes."""


def effective(path: str | Path | None = None) -> list[Table]:
    """Return the tables of the configuration in force.

    Args:
        path: the file; by default the one in force.

    Raises:
        ConfigError: the configuration is invalid; with file and line, or with the variable's name.
    """
    file = open_config(path)
    key_policy_overrides(path)
    read_file_prices(path)
    chains = dict(configured_chains(path))
    ledger = LedgerSection.load(path)
    server = ServerSettings.load(path)
    refuse_unknown_chains(server, {name: settings.task for name, settings in chains.items()}, path)
    return [
        *(_of_chain(name, settings, file) for name, settings in chains.items()),
        *_of_keys(file),
        *_of_prices(file),
        *_of_ledger(ledger, file),
        *_of_server(server, file),
        _of_environment(os.environ),
    ]


def _source(file: ConfigFile | None, place: Place) -> str | None:
    return f"{file.path}:{file.line(place)}" if file is not None and file.has(place) else None


def _of_chain(name: str, settings: NamedSettings, file: ConfigFile | None) -> Table:
    task = find_task(settings.task)
    model, targets = chosen_targets(settings)
    named = next((each for each in task.model_variable_names if os.environ.get(each)), DEFAULT)
    given = (file.data if file is not None else {}).get("chains", {}).get(name, {})
    values = {"task": task.name, "model": model, "targets": [_target(target) for target in targets]}
    values |= {each: getattr(settings, each) for each in settings.file_names() if each not in values}
    others = {"model": named if settings.model is None else DEFAULT}
    others["targets"] = task.targets_variable if os.environ.get(task.targets_variable) else DEFAULT
    others["check_space"] = "HF_GATEWAY_CHECK_SPACE" if os.environ.get("HF_GATEWAY_CHECK_SPACE") else DEFAULT
    order = ["task", "model", "targets", *(each for each in type(settings).model_fields if each in values)]
    made = Table(("chains", name))
    for each in dict.fromkeys(order):
        # A key has been read already, and its variable is known from the file alone.
        value = given.get(each) if each == "api_key" else values[each]
        if value is not None:
            source = _source(file, ("chains", name, each)) or others.get(each, DEFAULT)
            made.settings.append(Setting(each, redacted(each, value), source))
    return made


def _target(target: Target) -> str | dict[str, Any]:
    """Return the short form if it says everything, otherwise the fields."""
    fields = target.to_dict()
    if not set(fields) & {"credential", "options", "space"} and len(fields) <= 2:
        return target.label
    if target.credential is not None:
        fields["credential"] = str(target.credential)
    return fields


def _of_keys(file: ConfigFile | None) -> Iterator[Table]:
    keys = KeysSection.model_validate((file.data if file is not None else {}).get("keys", {}))
    made = Table(("keys",))
    required = read_switch(REQUIRE_KEY_VARIABLE)
    source = REQUIRE_KEY_VARIABLE if required else _source(file, ("keys", "require_for_hosted")) or DEFAULT
    made.settings.append(Setting("require_for_hosted", required or keys.require_for_hosted, source))
    yield made
    for name in ("models", "env"):
        if table := getattr(keys, name):
            yield _of_names(("keys", name), table, file)


def _of_names(path: tuple[str | int, ...], values: Mapping[str, Any], file: ConfigFile | None) -> Table:
    """Return a table that the file alone can have."""
    named = [
        Setting(name, redacted(name, value), _source(file, (*path, name)) or DEFAULT) for name, value in values.items()
    ]
    return Table(path, named)


def _of_prices(file: ConfigFile | None) -> Iterator[Table]:
    for model, tables in (file.data if file is not None else {}).get("prices", {}).items():
        for number, table in enumerate(tables if isinstance(tables, list) else [tables]):
            yield _of_names(("prices", model, number) if isinstance(tables, list) else ("prices", model), table, file)


def _of_ledger(ledger: LedgerSection, file: ConfigFile | None) -> Iterator[Table]:
    if values := ledger.model_dump(exclude_none=True):
        yield _of_names((LEDGER,), values, file)


def _of_server(server: ServerSettings, file: ConfigFile | None) -> Iterator[Table]:
    by_variable = settings_of_environment(os.environ)
    values = {name: getattr(server, name) for name in type(server).model_fields if name != "defaults"}
    values |= {f"default_{task}": chain for task, chain in server.defaults.items()}
    made, below = Table((SECTION,)), []
    for name, value in values.items():
        if isinstance(value, BaseModel | dict):
            below += list(_tables_below((SECTION, name), value, file))
        elif value is not None:
            variable = f"{PREFIX}{name.upper()}" if name in by_variable else None
            source = variable or _source(file, (SECTION, name)) or DEFAULT
            made.settings.append(Setting(name, redacted(name, value), source))
    yield made
    yield from below


def _tables_below(path: tuple[str, ...], value: Any, file: ConfigFile | None) -> Iterator[Table]:
    values = dict(value)  # of a model its fields
    tables = {name: inner for name, inner in values.items() if isinstance(inner, BaseModel)}
    plain = {name: inner for name, inner in values.items() if name not in tables and inner is not None}
    if plain:
        yield _of_names(path, plain, file)
    for name, inner in tables.items():
        yield from _tables_below((*path, name), inner, file)


def _of_environment(environment: Mapping[str, str]) -> Table:
    made = Table(("environment",))
    for variable in variables():
        if value := environment.get(variable.name, "").strip():
            text = HIDDEN if variable.secret else redacted(variable.name, value)
            made.settings.append(Setting(variable.name, text, variable.name))
    return made


def redacted(name: str, value: Any) -> Any:
    """Return a value as JSON types without keys.

    Args:
        name: of the setting.
        value: its value.
    """
    if isinstance(value, Mapping):
        return {str(each): redacted(str(each), inner) for each, inner in value.items()}
    if isinstance(value, tuple | list | set | frozenset):
        return [redacted(name, each) for each in value]
    if isinstance(value, Target):
        return redacted(name, _target(value))
    if value is None or isinstance(value, bool | int | float):
        return value
    text = str(value)
    if name == "credential" or may_name_key(name):
        return text if re.fullmatch(r"env:\w+|file:/[ -~]+", text) else HIDDEN
    return _without_key(text)


def _without_key(text: str) -> str:
    before, mark, _ = text.partition("://")
    if mark:
        kind, _, scheme = before.rpartition(":")
        url = text.removeprefix(f"{kind}:") if kind else text
        hidden = shown_url(url)
        # Databases have other schemes, and their own rules of what a password is.
        text = shown_database(url) if hidden == HIDDEN and re.fullmatch(r"[a-z][a-z0-9+]*", scheme) else hidden
        return f"{kind}:{text}" if kind else text
    return _KEY.sub(HIDDEN, text)
