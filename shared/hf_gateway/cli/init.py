"""`hf-gateway init`: write an hf-gateway.toml for what is at hand, after three questions, and check it."""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hf_gateway.cli.output import Console, console, literal
from hf_gateway.configuration.discovery import DEFAULT_PORTS, FoundServer, find_servers
from hf_gateway.errors import ConfigError, visible
from hf_gateway.settings.config_file import FILE_NAME
from hf_gateway.tasks.base import FirstChain, Task
from hf_gateway.tasks.registry import find_task, task_names

TAKES_A_CHAIN = False
_HOSTED = FoundServer("hf", "Hugging Face's hosted providers", {})
_IN_PROCESS = FoundServer("local", "this process", {})


@dataclass(frozen=True)
class _Chain:
    task: Task
    first: FirstChain
    model: str
    places: tuple[FoundServer, ...]
    others: tuple[FoundServer, ...]
    """Chosen places that serve another model."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("file", nargs="?", default=FILE_NAME, metavar="FILE", help=f"the file to write ({FILE_NAME})")
    parser.add_argument("--yes", action="store_true", help="take the default answers, and ask nothing")
    parser.add_argument("--force", action="store_true", help="replace a file that exists")
    parser.add_argument(
        "--ports",
        type=_ports,
        default=DEFAULT_PORTS,
        metavar="N,N",
        help=f"ports of this machine that are asked for models ({','.join(map(str, DEFAULT_PORTS))})",
    )


def run(arguments: argparse.Namespace) -> int:
    """Ask, write and check; return 0 if each chain has a target that answers, else 1."""
    from hf_gateway.cli import doctor
    from hf_gateway.configuration.check import findings
    from hf_gateway.storage.files import create_atomically, write_atomically

    path = Path(arguments.file)
    shown = visible(str(path))
    if path.is_file() and not arguments.force:
        raise ConfigError(f"{shown} exists; name another file, or replace it with --force")
    if not path.parent.is_dir():
        raise ConfigError(f"{shown} cannot be written: there is no folder {visible(str(path.parent))}; make it first")
    if path.is_dir():
        raise ConfigError(
            f"{shown} is a folder; name the file that is to be written in it, such as {shown}/{FILE_NAME}"
        )
    if not arguments.yes and not sys.stdin.isatty():
        raise ConfigError("there is no terminal to ask in; --yes takes the default answers")
    out = console()
    chains = _Questions(out, find_servers(arguments.ports), ask=not arguments.yes).chains()
    data = _toml_of(chains).encode()
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / FILE_NAME
        draft.write_bytes(data)
        if problems := findings(draft):
            raise ConfigError("; ".join(each.message for each in problems) + "; nothing was written")
    try:
        (write_atomically if arguments.force else create_atomically)(path, data)
        written = path.read_bytes() == data
    except OSError as error:
        raise ConfigError(f"{shown} cannot be written: {error.strerror or error}") from None
    if not written:
        raise ConfigError(
            f"{shown} has been made meanwhile, and was kept; name another file, or replace it with --force"
        )
    out.print(f"wrote {literal(path)}; it holds no key")
    checked = argparse.Namespace(model=None, targets=None, config=str(path), chain=None, task=None, json=False)
    code = doctor.run(checked)
    out.print(_next_steps(chains, path))
    return code


def _ports(text: str) -> tuple[int, ...]:
    try:
        ports = tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        ports = (0,)
    if any(not 0 < port < 65536 for port in ports):
        raise argparse.ArgumentTypeError("a port is a number from 1 to 65535; several are separated by commas")
    return ports


class _Questions:
    """Asks what the chains are to be."""

    def __init__(self, out: Console, servers: Sequence[FoundServer], *, ask: bool) -> None:
        """Set what was found.

        Args:
            out: where the questions are printed.
            servers: the servers of this machine.
            ask: whether to ask; otherwise the defaults are taken.
        """
        self._out = out
        self._servers = servers
        self._ask = ask
        self._key_source = _key_source()

    def chains(self) -> list[_Chain]:
        """Ask for the purpose, and for each task for the places and the model."""
        tasks = sorted(map(find_task, task_names()), key=lambda task: task.hub.precedence)
        offered = [(task, task.first_chain) for task in tasks if task.first_chain is not None]
        for server in self._servers:
            models = [name for task, _ in offered for name in server.models.get(task.name, ())]
            self._out.print(f"found {literal(server.title)}: {literal(', '.join(models) or 'no model for this')}")
        if not self._servers:
            self._out.print("found no server of models on this machine")
        at_hand = [
            number
            for number, (task, _) in enumerate(offered)
            if self._key_source or _runs_in_process(task) or any(task.name in server.models for server in self._servers)
        ]
        purposes = [first.purpose for _, first in offered]
        usual = len(offered) if len(at_hand) == len(offered) else at_hand[0]
        (chosen,) = self._choose("What is it for?", [*purposes, "all of them"], [usual], several=False)
        return [self._chain(*each) for each in (offered if chosen == len(offered) else [offered[chosen]])]

    def _chain(self, task: Task, first: FirstChain) -> _Chain:
        found = [server for server in self._servers if task.name in server.models]
        places = [*found, *([_IN_PROCESS] if _runs_in_process(task) else []), _HOSTED]
        key = f"with the key of {self._key_source}" if self._key_source else "needs a token: hf-gateway login"
        titles = [f"{each.title} ({key})" if each is _HOSTED else each.title for each in places]
        usual = [number for number, each in enumerate(places) if each is not _HOSTED or self._key_source]
        chosen = [
            places[number]
            for number in self._choose(
                f"Where may the model for {task.title} run? Several numbers, in order of preference:",
                titles,
                usual or [len(places) - 1],
                several=True,
            )
        ]
        models = list(dict.fromkeys(name for each in chosen for name in each.models.get(task.name, ())))
        if not models or _IN_PROCESS in chosen or _HOSTED in chosen:
            models = list(dict.fromkeys([*models, first.model]))
        model = self._choose_model(task.title, models)
        serving = tuple(each for each in chosen if not each.models or model in each.models.get(task.name, ()))
        if not serving:
            raise ConfigError(
                f"{model} is served by none of the places that you chose: choose this process or the hosted providers as well, "
                "or one of the models that were found"
            )
        return _Chain(task, first, model, serving, tuple(each for each in chosen if each not in serving))

    def _choose(self, question: str, options: Sequence[str], usual: Sequence[int], *, several: bool) -> list[int]:
        if not self._ask:
            return list(usual)
        shown = ",".join(str(number + 1) for number in usual)
        self._out.print(f"\n{question}")
        for number, option in enumerate(options, 1):
            self._out.print(f"  {number}  {literal(option)}")
        while True:
            answer = self._read(f"[{shown}] ")
            numbers = [part.strip() for part in answer.split(",")] if answer else shown.split(",")
            fits = all(part.isascii() and part.isdigit() and 0 < int(part) <= len(options) for part in numbers)
            if fits and (several or len(numbers) == 1):
                return list(dict.fromkeys(int(part) - 1 for part in numbers))
            wanted = "numbers from the list, separated by commas" if several else "a number from the list"
            self._out.print(f"{literal(answer)} is not {wanted}")

    def _choose_model(self, title: str, models: Sequence[str]) -> str:
        if not self._ask:
            return models[0]
        self._out.print(f"\nWhich model for {title}? A number, or the Hub id of another one:")
        for number, name in enumerate(models, 1):
            self._out.print(f"  {number}  {literal(name)}")
        answer = self._read("[1] ") or "1"
        if answer.isascii() and answer.isdigit():
            if not 0 < int(answer) <= len(models):
                raise ConfigError(f"there is no model number {answer}")
            return models[int(answer) - 1]
        return answer

    def _read(self, prompt: str) -> str:
        self._out.print(prompt, markup=False, end="")
        sys.stdout.flush()
        line = sys.stdin.readline()
        if not line:
            raise ConfigError("the answers ended; nothing was written")
        return line.strip()


def _runs_in_process(task: Task) -> bool:
    return task.default_targets == _IN_PROCESS.target


def _key_source() -> str | None:
    """Return where the key for Hugging Face was found; None without one."""
    from hf_gateway.keys.credentials import HUB, find_credential

    found = find_credential(HUB)
    return None if found is None else found.source


def _toml_of(chains: Sequence[_Chain]) -> str:
    lines = [
        "# Written by `hf-gateway init`. `hf-gateway config check` checks it, `hf-gateway doctor` asks its targets;",
        "# docs/configuration.md has all settings. Keys do not belong here: HF_TOKEN, or `hf-gateway login`.",
    ]
    for chain in chains:
        lines += [
            "",
            "# One model, and the places where it can be had, in order of preference.",
            f"[chains.{chain.first.name}]",
            *([] if chain.task.implied else [f'task = "{chain.task.name}"']),
            f"model = {_quoted(chain.model)}",
            "targets = [",
            *(f"  {_quoted(place.target)},  # {visible(place.title)}" for place in chain.places),
            "]",
            f"# {chain.first.setting}",
        ]
        for place in chain.others:
            names = ", ".join(place.models.get(chain.task.name, ()))
            lines.append(
                f"# {visible(place.target)} serves another model, {visible(names)}: it needs a chain of its own."
            )
    lines += ["", "# For `hf-gateway serve`.", "# [server]", "# port = 8080", ""]
    return "\n".join(lines)


def _quoted(text: str) -> str:
    """Return a basic string of TOML, which JSON's strings are, too."""
    return json.dumps(text, ensure_ascii=False)


def _next_steps(chains: Sequence[_Chain], path: Path) -> str:
    elsewhere = "" if path == Path(FILE_NAME) else f" --config {literal(path)}"
    steps = [f"  in Python: {literal(chain.first.use)}" for chain in chains]
    return "\n".join(["next:", *steps, f"  over HTTP: hf-gateway serve{elsewhere}"])
