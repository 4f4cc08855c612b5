"""`hf-gateway doctor`: check every target of every chain, and the environment that they share, with a fix for each problem."""

import argparse
import dataclasses
import os
from collections.abc import Iterator, Mapping
from typing import Any

from hf_gateway.cli.environment_report import caches, check_hub, home_faults, print_environment, versions
from hf_gateway.cli.output import Table, console, literal, print_json
from hf_gateway.errors import GatewayError
from hf_gateway.gateway import Gateway
from hf_gateway.settings.base import NamedSettings
from hf_gateway.settings.config_file import config_path, read_chain, read_config
from hf_gateway.tasks.registry import DEFAULT_TASK, chains_for, find_task, task_names, task_of_chain
from hf_gateway.tasks.status import TargetCheck
from hf_gateway.values.kinds import kind_of
from hf_gateway.values.vector_space import canonical
from hf_gateway.verification.run import measured_before


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--chain", action="append", help="only this chain of the config file; may be repeated")
    parser.add_argument(
        "--task",
        choices=task_names(),
        help="only chains for this task; with --model or --targets, their task (embedding)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Check all chains; return 0 if each has at least one target that answers."""
    out = None if arguments.json else console()
    reports = [_report(name, where, settings) for name, where, settings in _chains(arguments)]
    kinds = {each.status.target.partition(":")[0] for report in reports for each in report.checked}
    hub = check_hub(
        [model for report in reports for model in report.models], needed=any(kind_of(kind).uses_hub for kind in kinds)
    )
    kept, installed = caches(), versions()
    if out is None:
        chains = [report.to_dict() for report in reports]
        kept_json = [dataclasses.asdict(cache) for cache in kept]
        shared = {"hub": hub.to_dict(), "caches": kept_json, "folder_faults": home_faults(), "versions": installed}
        print_json({"chains": chains, **shared})
    else:
        for report in reports:
            _print_chain(out, report)
        print_environment(out, hub, kept, installed)
    return 0 if all(report.works for report in reports) else 1


@dataclasses.dataclass(frozen=True)
class ChainReport:
    """A chain and its targets."""

    name: str
    """Name of the chain."""
    source: str
    """Where it is configured."""
    task: str
    """Task of the chain."""
    model: str | None
    """Model of the chain, if it has one."""
    checked: list[TargetCheck]
    """Results for its targets."""
    error: str | None = None
    """Why the chain could not be built."""
    vectors: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Earlier measurement of a target's vectors, by target."""
    models: tuple[str, ...] = ()
    """Models that its targets may load from the Hub."""

    @property
    def works(self) -> bool:
        """Whether at least one target answers."""
        return any(each.answers for each in self.checked)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        targets = []
        for each in self.checked:
            found = dataclasses.asdict(each)
            targets.append(
                {**found.pop("status"), **found, "fix": each.fix, "vectors": self.vectors.get(each.status.target)}
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


def _chains(arguments: argparse.Namespace) -> Iterator[tuple[str, str, NamedSettings]]:
    if arguments.model or arguments.targets:
        given = {"model": arguments.model, "targets": arguments.targets, "config": arguments.config}
        yield "given", "the command line", find_task(arguments.task or DEFAULT_TASK).settings(**given)
        return
    path, data = read_config(config_path(arguments.config))
    chains = data.get("chains", {})
    names = arguments.chain or chains_for(chains, arguments.task)
    for name in names:
        kind = find_task(task_of_chain(chains.get(name))).settings
        yield name, str(path), kind(**read_chain(name, kind, arguments.config))
    if names:
        return
    tasks = [find_task(name) for name in ([arguments.task] if arguments.task else task_names())]
    for task in sorted(tasks, key=lambda each: each.hub.precedence):
        if arguments.task or task.example_model or any(os.environ.get(name) for name in task.variables):
            settings = task.settings(model=task.example_model, config=arguments.config)
            yield "default" if task.example_model else task.name, "the environment and the defaults", settings


def _report(name: str, source: str, settings: NamedSettings) -> ChainReport:
    try:
        with Gateway.from_settings(settings) as gateway:
            checked = gateway.check()
            vectors = measured_before(gateway)
            models = {target.model or gateway.model for target in gateway.targets if kind_of(target.kind).uses_hub}
            named = tuple(canonical(model) for model in models if model)
            return ChainReport(name, source, gateway.task, gateway.model, checked, vectors=vectors, models=named)
    except GatewayError as error:
        return ChainReport(name, source, settings.task, settings.model, [], str(error))


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
        if fix := each.fix:
            out.print(f"    [yellow]fix:[/yellow] {literal(fix, lines=True)}")
    verdict = "[green]works[/green]" if report.works else "[red]no target answers[/red]"
    out.print(f"\n  {verdict}")
