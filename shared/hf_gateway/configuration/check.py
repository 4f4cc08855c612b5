"""What is wrong with the configuration: every problem of the file, of the environment over it, and of the chains once built.

Nothing is sent, no model is loaded and no database is opened.
"""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hf_gateway import activation
from hf_gateway.configuration.chains import build_problems, configured_chains
from hf_gateway.errors import ConfigError
from hf_gateway.gateway import Gateway
from hf_gateway.http.transport import HttpTransport, trusted_certificates
from hf_gateway.keys.policy import read_switch
from hf_gateway.ledger import CONTENT_VARIABLE, budget_watch
from hf_gateway.ledger import place as ledger_place
from hf_gateway.ledger.file_prices import price_problems
from hf_gateway.settings.config_file import (
    REQUIRE_KEY_VARIABLE,
    chain_problems,
    config_path,
    env_key_rules,
    hub_url,
    keys_problems,
    own_config_path,
    router_url,
    section_problems,
)
from hf_gateway.settings.env_keys import EnvKeyRules
from hf_gateway.settings.fields import parse_targets
from hf_gateway.settings.ledger import ledger_problems
from hf_gateway.settings.problems import Problem
from hf_gateway.settings.server import (
    PREFIX,
    SECTION,
    ServerSettings,
    name_problems,
    server_problems,
    settings_of_environment,
    variable_faults,
)
from hf_gateway.settings.spaces import CHECK_VARIABLE
from hf_gateway.settings.toml_file import ConfigFile, Unreadable
from hf_gateway.tasks.registry import find_task, task_names, task_of_chain


@dataclass(frozen=True)
class Finding:
    """A problem of the configuration, and where it is."""

    message: str
    """What is wrong, and what to do."""
    file: Path | None = None
    """The file; None for a variable of the environment."""
    line: int | None = None
    """The line, counted from 1."""
    setting: str = ""
    """The setting, as dotted keys; or the name of the variable."""

    def __str__(self) -> str:
        """Return it in one line, as compilers do."""
        if self.file is None:
            return f"{self.setting}: {self.message}"
        return f"{self.file}{'' if self.line is None else f':{self.line}'}: {self.message}"

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        file = None if self.file is None else str(self.file)
        return {"file": file, "line": self.line, "setting": self.setting, "message": self.message}


ServerCheck = Callable[[ServerSettings], Iterable[Problem]]
"""A check of the server's settings beyond their types, which the server itself makes."""


def findings(path: str | Path | None = None, server_checks: Sequence[ServerCheck] = ()) -> list[Finding]:
    """Return what is wrong with the configuration, in the order of the file's lines; the environment's comes last.

    Args:
        path: the file; by default the one in force.
        server_checks: the server's own checks.

    Raises:
        ConfigError: there is no such file.
    """
    environment = list(_of_environment(os.environ))
    found = config_path(path)
    file = None if found is None else ConfigFile.try_to_read(found)
    if isinstance(file, Unreadable):
        return [_unreadable(file), *environment]
    inside: list[Finding] = []
    own: list[Finding] = []
    if file is not None:
        rules, own = _rules(file, path)
        inside = [_in(file, problem) for problem in _of_file(file, rules, path, can_build=not environment and not own)]
    elif not environment:
        inside = list(_of_default_chains())
    if not environment and not any(each.setting.partition(".")[0] == SECTION for each in inside):
        inside += _of_server(file, path, server_checks)
    return [*sorted(inside, key=lambda each: each.line or 0), *own, *environment]


def _of_server(file: ConfigFile | None, path: str | Path | None, checks: Sequence[ServerCheck]) -> Iterator[Finding]:
    """Yield what is wrong with the server's settings, of which the file's and the environment's are right by themselves."""
    if file is not None and list(section_problems(file)):
        return
    settings = ServerSettings.load(path)
    chains = {} if file is None else file.data.get("chains", {})
    tasks = {name: task_of_chain(table) for name, table in chains.items()} if isinstance(chains, dict) else {}
    if not tasks:  # the server makes some of its own
        tasks = {name: wanted.task for name, wanted in configured_chains(path)}
    found = [problem for check in checks for problem in check(settings)]
    found += name_problems(settings, tasks)
    overriding = settings_of_environment()
    for problem in found:
        name = str(problem.place[1])
        if name in overriding or file is None:
            yield Finding(problem.message, setting=f"{PREFIX}{name.upper()}")
        else:
            yield _in(file, problem)


def _of_file(
    file: ConfigFile, rules: EnvKeyRules | None, path: str | Path | None, *, can_build: bool
) -> Iterator[Problem]:
    """Yield what is wrong with a file, besides what the server checks.

    Args:
        file: the file.
        rules: what it may read of the environment; None for everything.
        path: how the user named it, if at all.
        can_build: whether nothing outside is wrong, which every chain would show again.
    """
    keys = list(keys_problems(file))
    sections = list(section_problems(file))
    yield from (*sections, *keys, *price_problems(file), *ledger_problems(file), *server_problems(file))
    chains = file.data.get("chains", {})
    for name in chains if isinstance(chains, dict) else ():
        yield from _of_chain(file, name, rules, path, can_build=can_build and not keys and not sections)


def _unreadable(file: Unreadable) -> Finding:
    return Finding(file.message, file.path, file.line)


def _in(file: ConfigFile, problem: Problem) -> Finding:
    setting = ".".join(map(str, problem.place))
    return Finding(problem.message, file.path, file.line(problem.place), setting)


def _of_environment(environment: Mapping[str, str]) -> Iterator[Finding]:
    for variable, message in variable_faults(environment):
        yield Finding(message, setting=variable)
    checks: dict[str, Callable[[], object]] = {
        "HUGGINGFACE_BASE_URL": lambda: router_url(environment),
        "HF_ENDPOINT": lambda: hub_url(environment),
        "HF_GATEWAY_HTTP": HttpTransport,
        "SSL_CERT_FILE": trusted_certificates,
        ledger_place.VARIABLE: lambda: ledger_place.from_environment(environment),
        budget_watch.VARIABLE: lambda: budget_watch.mode(environment),
    }
    for switch in (REQUIRE_KEY_VARIABLE, CONTENT_VARIABLE, CHECK_VARIABLE):
        checks[switch] = partial(read_switch, switch, environment)
    for name in task_names():
        variable = find_task(name).targets_variable
        checks[variable] = partial(parse_targets, environment.get(variable))
    for variable, check in checks.items():
        if environment.get(variable, "").strip():
            try:
                check()
            except ConfigError as error:
                yield Finding(error.message, setting=variable)


def _of_default_chains() -> Iterator[Finding]:
    """Yield why chains cannot be built that there are without a file."""
    for _, settings in configured_chains():
        try:
            with activation.paused(), contextlib.closing(Gateway.from_settings(settings)):
                pass
        except ConfigError as error:
            yield Finding(error.message, setting=find_task(settings.task).targets_variable)


def _rules(file: ConfigFile, path: str | Path | None) -> tuple[EnvKeyRules | None, list[Finding]]:
    """Return what the file may read of the environment, and what is wrong with the user's own file, which says so."""
    try:
        return env_key_rules(file, path), []
    except ConfigError:
        own = own_config_path()
        users = ConfigFile.try_to_read(own) if own.is_file() else None
        if isinstance(users, Unreadable):
            return None, [_unreadable(users)]
        # Otherwise an address in the environment is wrong, which is found there.
        return None, [] if users is None else [_in(users, problem) for problem in keys_problems(users)]


def _of_chain(
    file: ConfigFile, name: str, rules: EnvKeyRules | None, path: str | Path | None, *, can_build: bool
) -> Iterator[Problem]:
    table = file.data["chains"][name]
    try:
        task = find_task(task_of_chain(table))
    except ConfigError as error:
        yield Problem(("chains", name, "task"), error.message)
        return
    found = list(chain_problems(file, name, task.settings, rules))
    yield from found
    if found or not can_build:
        return
    settings = task.settings.from_config(name, path)
    with activation.paused():
        try:
            Gateway.from_settings(settings).close()
        except ConfigError as error:
            yield from (problem.below(("chains", name)) for problem in build_problems(settings, error))
