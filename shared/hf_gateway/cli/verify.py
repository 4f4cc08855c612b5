"""`hf-gateway verify`: check whether targets and an index are one vector space; if not, show what differs and what to do."""

import argparse
import os
import shlex
from collections.abc import Sequence
from typing import Any

from hf_gateway.cli.output import Table, console, literal, print_json
from hf_gateway.errors import ConfigError
from hf_gateway.settings.base import NamedSettings
from hf_gateway.settings.config_file import config_path, read_config
from hf_gateway.settings.embedding import EmbedSettings
from hf_gateway.settings.sparse import SparseSettings
from hf_gateway.spaces.fingerprint import Fingerprint
from hf_gateway.tasks.registry import chains_for, find_task, task_of_chain
from hf_gateway.verification.report import IndexReport, Pair, Side, Verification, read_index, ways_out
from hf_gateway.verification.run import verify

Chain = tuple[str, str, NamedSettings]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--chain", metavar="NAME", help="a chain of the config file; by default all of them")
    parser.add_argument("--sparse", action="store_true", help="chains of sparse embeddings, instead of dense ones")
    parser.add_argument(
        "--accept", metavar="TARGET", help="accept this target's vectors as the same space, whatever they are"
    )
    parser.add_argument(
        "--index",
        metavar="PATH",
        help="folder of an index: show what it was built with, and whether the chain may open it",
    )


def run(arguments: argparse.Namespace) -> int:
    """Measure and compare; return 0 if all targets that answered are one space, 1 if something differs or no target answered."""
    out = None if arguments.json else console()
    if arguments.index and not (arguments.model or arguments.targets or arguments.chain):
        return _index_alone(out, arguments)
    chains = _chains(arguments)
    if arguments.accept and len(chains) > 1:
        names = "|".join(name for name, _, _ in chains)
        raise ConfigError(f"--accept is for one chain; say which: --chain {names}")
    documents: list[dict[str, Any]] = []
    code = 0
    for name, source, settings in chains:
        found = verify(settings)
        index = found.index(arguments.index) if arguments.index else None
        kept = found.accept(arguments.accept) if arguments.accept else None
        fine = kept is not None or (found.one_space and (index is None or index.allowed))
        code = code if fine else 1
        if out is None:
            documents.append(
                {
                    "chain": name,
                    "source": source,
                    **found.to_dict(),
                    "accept": {"target": arguments.accept, "space_id": kept.space.id} if kept else None,
                    "index": index.to_dict() if index else None,
                }
            )
        else:
            _print_verification(out, name, source, found, _command_line(arguments))
            if index is not None:
                _show_index(out, index)
            if kept is not None:
                _show_accepted(out, found, arguments.accept, kept)
    if out is None:
        print_json({"chains": documents})
    return code


def _chains(arguments: argparse.Namespace) -> list[Chain]:
    given = {"model": arguments.model, "targets": arguments.targets}
    kind = SparseSettings if arguments.sparse else EmbedSettings
    changes = {name: value for name, value in given.items() if value is not None}
    if arguments.chain:
        _refuse_other_task(kind, arguments.chain, arguments.config)
        settings = kind.from_config(arguments.chain, arguments.config, **changes)
        return [(arguments.chain, str(settings.config), settings)]
    if changes:
        return [("given", "the command line", kind(**changes, config=arguments.config))]
    path, data = read_config(config_path(arguments.config))
    names = chains_for(data.get("chains", {}), kind.task)
    if names:
        return [(name, str(path), kind.from_config(name, arguments.config)) for name in names]
    task = find_task(kind.task)
    named = (os.environ.get(variable) for variable in task.model_variable_names)
    model = next(filter(None, named), task.example_model)
    return [("default", "the environment and the defaults", kind(model=model, config=arguments.config))]


def _refuse_other_task(kind: type[NamedSettings], chain: str, config: str | None) -> None:
    """Raise ConfigError for a chain of the config file that is for another task."""
    _, data = read_config(config_path(config))
    task = find_task(task_of_chain(data.get("chains", {}).get(chain)))
    if task.settings is not kind:
        raise ConfigError(
            f"the chain {chain!r} is for {task.hub.title}; verify compares vectors of embeddings, with --sparse of sparse "
            f"ones, and `hf-gateway doctor --chain {chain}` checks the targets of any chain"
        )


def _command_line(arguments: argparse.Namespace) -> str:
    """Return this command line, without its action."""
    words = ["hf-gateway", "verify"]
    for name in ("chain", "model", "targets", "config"):
        if value := getattr(arguments, name):
            words += [f"--{name}", value]
    words += ["--sparse"] if arguments.sparse else []
    return shlex.join(words)


def _index_alone(out: Any, arguments: argparse.Namespace) -> int:
    if arguments.accept:
        raise ConfigError("--accept is for a chain; give --chain, or --model and --targets")
    found = read_index(arguments.index)
    if out is None:
        print_json({"chains": [], "index": found.to_dict()})
    else:
        _show_index(out, found)
    return 0 if found.lock is not None else 1


def _print_verification(out: Any, name: str, source: str, found: Verification, again: str) -> None:
    out.print(
        f"\n[bold]chain {literal(name)}[/bold] (from {literal(source)}), model {literal(str(found.model or '-'))}\n"
    )
    if found.declared:
        out.print(f"  [yellow]cannot be built as it is:[/yellow] {literal(found.declared, lines=True)}\n")
    marks = _marks(found)
    for side in (*found.targets, *found.others):
        out.print(f"  {marks[id(side)]}  [bold]{literal(side.name)}[/bold]: {literal(_side_words(side), lines=True)}")
    if found.pairs:
        out.print()
        out.print_table(_table(found.pairs, marks))
    _show_differences(out, found, marks, again)
    for hint in found.hints:
        out.print(f"\n  {literal(hint)}")
    out.print(f"\n  {_verdict(found)}")


def _marks(found: Verification) -> dict[int, str]:
    """Return a short mark for each side of the table: a number for targets, a letter for the others."""
    marks = {id(side): str(number) for number, side in enumerate(found.targets, 1)}
    for kind, letter in (("fingerprint", "F"), ("files", "M")):
        sides = [side for side in found.others if side.kind == kind]
        marks |= {id(side): f"{letter}{number}" if number > 1 else letter for number, side in enumerate(sides, 1)}
    return marks


def _side_words(side: Side) -> str:
    if side.error is not None:
        return f"{'gave an unusable answer' if side.answered else 'could not be asked'}: {side.error.message}"
    parts = [side.said]
    parts += [f"reports another space itself: {fault}" for fault in side.faults]
    parts += ["accepted on purpose"] if side.accepted else []
    return "; ".join(parts)


def _table(pairs: Sequence[Pair], marks: dict[int, str]) -> Table:
    numbers = ("documents", "queries", "lengths")
    table = Table(("pair", *numbers, "verdict"), right=frozenset(numbers))
    colours = {"same": "green", "different": "red", "could not be asked": "yellow"}
    for pair in pairs:
        found = pair.comparison
        worst = found.worst if found else {}
        cosines = [f"{worst[role]:.4f}" if role in worst else "-" for role in ("document", "query")]
        lengths = f"{found.norm:.1%}" if found and worst else "-"
        colour = "yellow" if pair.accepted else colours[pair.verdict]
        verdict = f"[{colour}]{pair.verdict}{', accepted' if pair.accepted else ''}[/{colour}]"
        table.add(f"{marks[id(pair.left)]} and {marks[id(pair.right)]}", *cosines, lengths, verdict)
    return table


def _show_differences(out: Any, found: Verification, marks: dict[int, str], again: str) -> None:
    """Print the probable causes for each side that differs, the same causes only once."""
    shown: set[tuple[int, tuple[str, ...]]] = set()
    for pair in found.pairs:
        causes = pair.comparison.causes if pair.comparison else ()
        key = (id(pair.right), causes)
        for note in pair.notes:
            out.print(f"\n  {marks[id(pair.left)]} and {marks[id(pair.right)]}: {literal(note)}")
        if not causes or key in shown:
            continue
        shown.add(key)
        lefts = [each.left for each in found.pairs if each.right is pair.right and each.causes_are(causes)]
        names = ", ".join(f"{marks[id(left)]} {left.name}" for left in lefts)
        out.print(
            f"\n  [bold]{marks[id(pair.right)]} {literal(pair.right.name)}[/bold] differs from {literal(names)}; probably:"
        )
        for cause in causes:
            out.print(f"    - {literal(cause)}")
            out.print(f"      [yellow]fix:[/yellow] {literal(ways_out(cause, pair.left.space))}")
        if pair.right.kind == "target" and pair.right.rows is not None and not pair.accepted:
            accept = f"{again} --accept {shlex.quote(pair.right.name)}"
            out.print(f"    if that is intended: {literal(accept)}")
        if pair.right.kind == "fingerprint":
            out.print(
                "    the stored fingerprint is at fault: delete its file, and the next target that answers is measured again"
            )


def _verdict(found: Verification) -> str:
    answered = [side for side in found.targets if side.answered]
    if not answered:
        return "[red]no target answered[/red]"
    silent = len(found.targets) - len(answered)
    more = f"; {silent} could not be asked" if silent else ""
    if not found.one_space:
        return f"[red]not one vector space[/red]{more}"
    if not any(pair.verdict != "could not be asked" for pair in found.pairs):
        return f"[yellow]there is nothing to compare it with yet[/yellow]{more}"
    accepted = "; what differs was accepted" if any(pair.accepted for pair in found.pairs) else ""
    return f"[green]one vector space[/green]{accepted}{more}"


def _show_accepted(out: Any, found: Verification, label: str, kept: Fingerprint) -> None:
    out.print(f"\n  [green]accepted:[/green] {literal(label)} for {literal(kept.space.id)}")
    out.print(f"    kept in {literal(str(found.store.path(kept.space)))}")
    out.print("    From now on its vectors are used beside those of the other targets of this space, by all chains of")
    out.print(
        "    this user, as long as they stay what they are now. If they differ, searches over both give wrong results:"
    )
    out.print("    use it for an index of its own. Only this target was accepted, and no locked index was changed.")


def _show_index(out: Any, found: IndexReport) -> None:
    out.print(f"\n[bold]index {literal(str(found.path))}[/bold]\n")
    lock = found.lock
    if lock is None:
        out.print("  it is not recorded what it was built with (space.json is missing)")
        out.print(
            "  open it once with adopt=True: load_faiss, open_chroma, open_lancedb (LangChain) and load_index (LlamaIndex)"
        )
        out.print(
            "  embed some of its texts again, compare the vectors, and lock it if they are the same; otherwise rebuild it"
        )
        out.print(f"  of another store, if you know: embeddings.lock_index({str(found.path)!r}, adopt=True)")
        return
    out.print(f"  built with {literal(lock.space.model if lock.space else 'an unknown space')}")
    for name, value in (lock.space.to_dict() if lock.space else {}).items():
        if name != "model":
            out.print(f"    {name}: {literal(repr(value))}")
    out.print(f"  locked {literal(lock.created)} by {literal(lock.by)}")
    if made := lock.fingerprint:
        out.print(f"  its vectors: {literal(made.source)}, measured {literal(made.taken)}")
    for label, refusal in found.refusals.items():
        if refusal is None:
            out.print(f"  [green]may be opened[/green] by {literal(label)}")
        else:
            out.print(f"  [red]may not be opened[/red] by {literal(label)}: {literal(refusal, lines=True)}")
