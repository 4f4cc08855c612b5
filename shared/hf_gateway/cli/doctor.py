"""`hf-gateway doctor`: what stands between each target and an answer, with the fix in one line; and what all of them share."""

import argparse
import dataclasses
import os
from collections.abc import Iterator, Mapping
from typing import Any

from hf_gateway.cli.environment_report import KINDS, caches, check_hub, print_environment, versions
from hf_gateway.cli.output import Table, console, literal, print_json
from hf_gateway.errors import GatewayError
from hf_gateway.gateway import Gateway
from hf_gateway.settings.base import Task
from hf_gateway.settings.chat import ChatSettings
from hf_gateway.settings.config_file import config_path, read_chain, read_config
from hf_gateway.settings.embedding import EmbedSettings
from hf_gateway.tasks.registry import SETTINGS, settings_of
from hf_gateway.tasks.status import TargetCheck
from hf_gateway.values.vector_space import canonical
from hf_gateway.verification.run import measured_before

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
CHAT_VARIABLES = ("HF_MODEL_ID", "HF_GATEWAY_CHAT_MODEL", "HF_GATEWAY_CHAT_TARGETS")

Settings = EmbedSettings | ChatSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    parser.add_argument("--chain", action="append", help="only this chain of the config file; may be repeated")
    parser.add_argument(
        "--task", choices=list(SETTINGS), help="only chains for this; what --model and --targets are for (embedding)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Check every chain; 0 when each has at least one target that answers."""
    out = None if arguments.json else console()
    reports = [_report(name, where, settings) for name, where, settings in _chains(arguments)]
    kinds = {each.status.target.partition(":")[0] for report in reports for each in report.checked}
    hub = check_hub([model for report in reports for model in report.models], needed=bool(kinds & KINDS))
    kept, installed = caches(), versions()
    if out is None:
        chains = [report.to_dict() for report in reports]
        shared = {"hub": hub.to_dict(), "caches": [dataclasses.asdict(cache) for cache in kept], "versions": installed}
        print_json({"chains": chains, **shared})
    else:
        for report in reports:
            _print_chain(out, report)
        print_environment(out, hub, kept, installed)
    return 0 if all(report.works for report in reports) else 1


@dataclasses.dataclass(frozen=True)
class ChainReport:
    """One chain and its targets.

    error: why it could not even be built; vectors: target → what was measured of them before; models: what it may want of the
    Hub.
    """

    name: str
    source: str
    task: Task
    model: str | None
    checked: list[TargetCheck]
    error: str | None = None
    vectors: Mapping[str, str] = dataclasses.field(default_factory=dict)
    models: tuple[str, ...] = ()

    @property
    def works(self) -> bool:
        """At least one target answers."""
        return any(each.answers for each in self.checked)

    def to_dict(self) -> dict[str, Any]:
        """Return it for machines."""
        targets = []
        for each in self.checked:
            found = dataclasses.asdict(each)
            targets.append(
                {**found.pop("status"), **found, "fix": _fix(each), "vectors": self.vectors.get(each.status.target)}
            )
        return {
            "chain": self.name,
            "source": self.source,
            "task": self.task,
            "model": self.model,
            "works": self.works,
            "error": self.error,
            "targets": targets,
        }


def _chains(arguments: argparse.Namespace) -> Iterator[tuple[str, str, Settings]]:
    if arguments.model or arguments.targets:
        given = {"model": arguments.model, "targets": arguments.targets, "config": arguments.config}
        yield "given", "the command line", settings_of(arguments.task or "embedding")(**given)
        return
    path, data = read_config(config_path(arguments.config))
    chains = data.get("chains", {})
    tasks: dict[str, Any] = {
        name: chain.get("task", "embedding") if isinstance(chain, dict) else "embedding"
        for name, chain in chains.items()
    }
    names = arguments.chain or [name for name, task in tasks.items() if arguments.task in (None, task)]
    for name in names:
        kind = settings_of(tasks.get(name, "embedding"))
        yield name, str(path), kind(**read_chain(name, kind, arguments.config))
    if names:
        return
    where = "the environment and the defaults"
    if arguments.task in (None, "embedding"):
        yield "default", where, EmbedSettings(model=DEFAULT_MODEL, config=arguments.config)
    if arguments.task == "chat" or (arguments.task is None and any(os.environ.get(name) for name in CHAT_VARIABLES)):
        yield "chat", where, ChatSettings(config=arguments.config)


def _report(name: str, source: str, settings: Settings) -> ChainReport:
    try:
        with Gateway.from_settings(settings) as gateway:
            asked = gateway.check()
            vectors = measured_before(gateway) if gateway.task == "embedding" else {}
            models = {target.model or gateway.model for target in gateway.targets if target.kind in KINDS}
            named = tuple(canonical(model) for model in models if model)
            return ChainReport(name, source, gateway.task, gateway.model, asked, vectors=vectors, models=named)
    except GatewayError as error:
        return ChainReport(name, source, settings.task, settings.model, [], str(error))


def _fix(checked: TargetCheck) -> str | None:
    if checked.answers:
        return None
    return checked.status.fix or checked.error


def _print_chain(out: Any, report: ChainReport) -> None:
    out.print(
        f"\n[bold]chain {literal(report.name)}[/bold] (from {literal(report.source)}), {report.task}, "
        f"model {literal(str(report.model or '-'))}"
    )
    if report.error:
        out.print(f"  [red]cannot be built:[/red] {literal(report.error, lines=True)}")
        return
    table = Table(("", "target", "key", "found in"))
    for each in report.checked:
        status = each.status
        mark = "[green]ok[/green]" if each.answers else "[red]no[/red]"
        table.add(mark, literal(status.target), status.needs_key, literal(status.key_source or "-"))
    out.print_table(table)
    for each in report.checked:
        status = each.status
        out.print(f"\n  [bold]{literal(status.target)}[/bold]")
        out.print(f"    key {status.needs_key}: {literal(status.key_reason)}")
        if vectors := report.vectors.get(status.target):
            out.print(f"    vectors {literal(vectors)}")
        if each.report.serves:
            more = f" and {len(each.report.serves) - 3} more" if len(each.report.serves) > 3 else ""
            out.print(f"    serves {literal(', '.join(each.report.serves[:3]))}{more}")
        if each.report.detail:
            out.print(f"    {literal(each.report.detail)}")
        if fix := _fix(each):
            out.print(f"    [yellow]fix:[/yellow] {literal(fix, lines=True)}")
    verdict = "[green]works[/green]" if report.works else "[red]no target answers[/red]"
    out.print(f"\n  {verdict}")
