"""`hf-gateway hub`: search the Hub; show, check, download and test models; manage the metadata cache."""

import argparse
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hf_gateway.cli import hub_model_check, hub_publish
from hf_gateway.cli.output import Table, console, literal, print_json
from hf_gateway.errors import ConfigError, InvalidRequest, ModelNotFound, visible
from hf_gateway.values.wording import quantity

if TYPE_CHECKING:
    from hf_gateway.hub import Compatibility, HubConnector, ModelMetadata

TAKES_A_CHAIN = False
"""Its arguments name models on the Hub, not targets."""
_COLORS = {"fits": "green", "tight": "yellow", "too_big": "red", "unknown": "yellow"}
_CLASS_COLORS = {"permissive": "green", "copyleft": "green", "use-restricted": "yellow"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command and its subcommands."""
    commands = parser.add_subparsers(dest="action", metavar="COMMAND", required=True)
    for name, summary, add, _ in _ACTIONS:
        command = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        add(command)
        command.add_argument("--json", action="store_true", help="print JSON")
    hub_publish.add_publish(commands)
    hub_model_check.add_test_model(commands)


def run(arguments: argparse.Namespace) -> int:
    """Run a subcommand; return 0 on success, 1 if it failed or the model does not fit, 2 for wrong usage."""
    if arguments.action == "publish":
        return hub_publish.run(arguments)
    if arguments.action == "test-model":
        return hub_model_check.run(arguments)
    action = next(each for name, _, _, each in _ACTIONS if name == arguments.action)
    out = None if arguments.json else console()
    from hf_gateway.hub import HubConnector

    try:
        with HubConnector() as hub:
            return action(hub, arguments, out)
    except InvalidRequest as error:  # invalid model id or limit
        raise ConfigError(error.message) from None


def _model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="Hub id of the model")
    parser.add_argument("--refresh", action="store_true", help="ask the Hub even if the cache is fresh")


def _search_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("query", nargs="*", help="words in the model's id")
    parser.add_argument("--tag", action="append", default=[], metavar="TAG", help="only with this tag; may be repeated")
    parser.add_argument(
        "--sort", choices=["downloads", "likes", "trending", "updated"], default="downloads", help="descending order"
    )
    parser.add_argument("--limit", type=int, default=20, metavar="N", help="maximum number of models (20)")
    parser.add_argument("--offline", action="store_true", help="search the cache only")


def _check_arguments(parser: argparse.ArgumentParser) -> None:
    _model(parser)
    parser.add_argument("--library", metavar="NAME", help="the library that the model must be for")
    parser.add_argument("--context", type=int, metavar="TOKENS", help="context to estimate memory for (4096)")


def _download_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="Hub id of the model")
    parser.add_argument("--revision", default="main", help="branch, tag or commit (main)")
    parser.add_argument("--cache-dir", metavar="DIR", help="instead of the cache of all Hugging Face tools")
    parser.add_argument(
        "--format",
        action="append",
        choices=["safetensors", "onnx", "gguf", "pickle"],
        help="format of the weights; may be repeated (safetensors, or else ONNX)",
    )
    parser.add_argument(
        "--include", action="append", metavar="PATTERN", help="instead of a format: files whose path matches"
    )
    parser.add_argument("--code", action="store_true", help="download Python files too")


def _cache_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--clear", action="store_true", help="remove the metadata of all models")
    parser.add_argument("--remove", metavar="MODEL", help="remove the metadata of one model")


def _search(hub: "HubConnector", arguments: argparse.Namespace, out: Any) -> int:
    from hf_gateway.hub import Models

    query = " ".join(arguments.query)
    if arguments.offline:
        from hf_gateway.hub.queries import check_limit

        check_limit(arguments.limit)
        cached = hub.cache.search(query, arguments.tag, arguments.sort, arguments.limit)
        found = Models(cached, "cache", "--offline was given")
    else:
        found = hub.search_models(query, arguments.tag, arguments.sort, arguments.limit)
    if out is None:
        models = [_summary(hub, each) for each in found]
        print_json({"source": found.source, "reason": found.reason, "models": models})
        return 0
    if found.source == "cache":
        sys.stderr.write(f"from the cache: {visible(found.reason or '')}\n")
    if not found:
        out.print("no model found")
        return 0
    titles = ("model", "task", "downloads", "likes", "licence", "access", "updated")
    table = Table(titles, fold=frozenset({"model", "licence"}))
    for each in found:
        table.add(
            literal(each.id),
            literal(each.pipeline_tag or "-"),
            _count(each.downloads),
            _count(each.likes),
            literal(", ".join(each.license) or "-"),
            literal(f"gated ({each.gated})") if each.gated else ("private" if each.private else "open"),
            each.modified.date().isoformat() if each.modified else "-",
        )
    out.print_table(table)
    return 0


def _info(hub: "HubConnector", arguments: argparse.Namespace, out: Any) -> int:
    found = _required_metadata(hub, arguments)
    if out is None:
        print_json({**found.to_dict(), "age_hours": _hours(hub, found), "stale": found.stale})
        return 0
    from hf_gateway.hub.compatibility import format_bytes
    from hf_gateway.values.hub_model import age_in_words

    out.print(f"\n[bold]{literal(found.id)}[/bold]")
    rows: list[tuple[str, str]] = [
        ("task", found.pipeline_tag or "-"),
        ("library", found.library_name or "-"),
        ("licence", ", ".join(found.license) or "not named"),
        ("access", f"gated ({found.gated})" if found.gated else ("private" if found.private else "open")),
        ("size", f"{format_bytes(found.size)} in {quantity(len(found.files), 'file')}"),
        ("numbers", ", ".join(f"{count:,} {dtype}" for dtype, count in found.parameters.items()) or "-"),
        ("downloads", f"{found.downloads:,} in 30 days, {found.likes:,} likes"),
        ("providers", ", ".join(_provider(each) for each in found.providers) or "none"),
        ("updated", found.modified.date().isoformat() if found.modified else "-"),
        ("commit", found.sha or "-"),
        ("read", f"{age_in_words(found.age(hub.cache.now()))} ago"),
    ]
    for name, value in rows:
        out.print(f"  {name:<10} {literal(value)}")
    _warn_stale(out, found.stale)
    return 0


def _check(hub: "HubConnector", arguments: argparse.Namespace, out: Any) -> int:
    if arguments.refresh:
        _required_metadata(hub, arguments)
    found = hub.check_compatibility(arguments.model, arguments.library, arguments.context)
    licence = hub.check_license(arguments.model)
    if out is None:
        print_json({**found.to_dict(), "ok": found.ok, "license": licence.to_dict()})
    else:
        _show_check(out, found)
        _show_license(out, licence)
    return 0 if found.ok else 1


def _show_check(out: Any, found: "Compatibility") -> None:
    from hf_gateway.hub.compatibility import format_bytes

    out.print(f"\n[bold]{literal(found.model)}[/bold]  [{_COLORS[found.verdict]}]{found.verdict}[/]")
    for reason in found.reasons:
        out.print(f"  {literal(reason)}")
    needs, machine = found.needs, found.machine
    dtypes = ", ".join(f"{dtype} {format_bytes(count)}" for dtype, count in needs.by_dtype.items())
    rows = [
        (
            "weights",
            f"{format_bytes(needs.weights)}{f' ({dtypes})' if dtypes else ''}{f', {needs.format}' if needs.format else ''}",
        )
    ]
    if needs.kv_cache:
        rows.append(
            (
                "KV cache",
                f"{format_bytes(needs.kv_cache)} for {needs.context:,} tokens ({format_bytes(needs.kv_per_token)} per token)",
            )
        )
    rows += [
        ("download", f"{format_bytes(needs.download)} of {format_bytes(machine.disk)} free disk"),
        ("memory", f"{format_bytes(machine.available)} of {format_bytes(machine.memory)} available"),
        (
            "GPU",
            ", ".join(f"{gpu.name} {format_bytes(gpu.free)} of {format_bytes(gpu.total)} free" for gpu in machine.gpus)
            or "none",
        ),
    ]
    for name, value in rows:
        out.print(f"  {name:<10} {literal(value)}")
    for note in needs.notes:
        out.print(f"  [yellow]note[/yellow]       {literal(note)}")
    for problem in found.problems:
        out.print(f"  [yellow]problem[/yellow]    {literal(problem)}")
    out.print("\n  targets that can serve it")
    marks = {True: "[green]yes[/green]", False: "[red]no[/red]", None: "[yellow]perhaps[/yellow]"}
    table = Table(("", "target", "USD per million tokens", "why"), fold=frozenset({"target", "why"}))
    for each in found.targets:
        prices = [price for price in (each.price_in, each.price_out) if price is not None]
        shown = f"{each.price_in:g} in, {each.price_out:g} out" if len(prices) == 2 else "-"
        table.add(marks[each.serves], literal(each.target), shown, literal(each.why))
    out.print_table(table)
    _warn_stale(out, found.stale)


def _license(hub: "HubConnector", arguments: argparse.Namespace, out: Any) -> int:
    if arguments.refresh:
        _required_metadata(hub, arguments)
    found = hub.check_license(arguments.model)
    if out is None:
        print_json({"model": arguments.model, **found.to_dict()})
    else:
        _show_license(out, found)
    return 0 if found.is_known else 1


def _show_license(out: Any, found: Any) -> None:
    color = _CLASS_COLORS.get(found.license_class, "red")
    named = literal(found.identifier or "no licence")
    out.print(f"\n  licence    {named}  [{color}]{found.license_class}[/]")
    out.print(f"             {literal(found.meaning)}")


def _download(hub: "HubConnector", arguments: argparse.Namespace, out: Any) -> int:
    from hf_gateway.hub.compatibility import format_bytes

    found = hub.download_model(
        arguments.model,
        arguments.revision,
        arguments.cache_dir,
        formats=arguments.format,
        include=arguments.include,
        code=arguments.code,
    )
    if out is None:
        print_json(found.to_dict())
        return 0
    was_here = "all on disk already" if not found.new_bytes else f"{format_bytes(found.new_bytes)} downloaded"
    out.print(f"{quantity(len(found.files), 'file')}, {format_bytes(found.bytes)}, {was_here}", markup=False)
    out.print(literal(f"{found.revision} is commit {found.commit}"))
    if found.left_out:
        out.print(
            literal(f"left out, since pickles can run any code when they are loaded: {', '.join(found.left_out)}")
        )
        out.print("the model may need them; if the author is trusted: --format pickle, or --include with their names")
    out.print(visible(str(found.path)), markup=False)
    return 0


def _cache(hub: "HubConnector", arguments: argparse.Namespace, out: Any) -> int:
    from hf_gateway.hub.compatibility import format_bytes
    from hf_gateway.values.hub_model import age_in_words

    cache = hub.cache
    done: dict[str, Any] = {}
    if arguments.clear:
        done["cleared"] = cache.clear()
    elif arguments.remove is not None:
        if not cache.remove(arguments.remove):
            raise ModelNotFound(f"nothing is cached of {arguments.remove!r}")
        done["removed"] = arguments.remove
    kept = cache.get_all_cached()
    now = cache.now()
    fresh = sum(not each.is_expired(now=now) for each in kept)
    if out is None:
        models = [{"id": each.id, "age_hours": _hours(hub, each), "complete": each.complete} for each in kept]
        path, taken = str(cache.path), cache.size()
        print_json({"path": path, "bytes": taken, "models": models, "fresh": fresh, **done})
        return 0
    if "cleared" in done:
        out.print(f"removed {quantity(done['cleared'], 'model')}", markup=False)
    if "removed" in done:
        out.print(literal(f"removed {done['removed']}"))
    out.print(
        f"{quantity(len(kept), 'model')}, {fresh:,} of them fresh, {format_bytes(cache.size())} in {cache.path}",
        markup=False,
    )
    if kept:
        oldest = min(kept, key=lambda each: each.cached_at)
        out.print(literal(f"the oldest is {age_in_words(oldest.age(now))} old: {oldest.id}"))
    return 0


Action = Callable[["HubConnector", argparse.Namespace, Any], int]
_ACTIONS: tuple[tuple[str, str, Callable[[argparse.ArgumentParser], None], Action], ...] = (
    (
        "search",
        "find models by name, tags and order; searches the cache if the Hub cannot be reached",
        _search_arguments,
        _search,
    ),
    ("info", "show the Hub's metadata of a model", _model, _info),
    (
        "check",
        "check whether a model will run here, which targets can serve it, and what its licence means",
        _check_arguments,
        _check,
    ),
    ("license", "show a model's licence, and what it means for publishing an adapter", _model, _license),
    (
        "download",
        "download a model: safetensors or ONNX, resuming an interrupted download",
        _download_arguments,
        _download,
    ),
    ("cache", "show or clear the metadata cache", _cache_arguments, _cache),
)


def _required_metadata(hub: "HubConnector", arguments: argparse.Namespace) -> "ModelMetadata":
    found = hub.get_model_metadata(arguments.model, use_cache=not arguments.refresh)
    if found is None:
        raise ModelNotFound(
            f"there is no model {arguments.model!r} on {hub.endpoint}, or it is private and the token has no access to it"
        )
    return found


def _summary(hub: "HubConnector", found: "ModelMetadata") -> dict[str, Any]:
    fields = found.to_dict()
    names = ("id", "pipeline_tag", "library_name", "downloads", "likes", "trending", "license", "gated", "private")
    kept = {name: fields[name] for name in (*names, "tags", "modified")}
    return {**kept, "age_hours": _hours(hub, found), "stale": found.stale}


def _hours(hub: "HubConnector", found: "ModelMetadata") -> float:
    return round(max(0.0, found.age(hub.cache.now()).total_seconds()) / 3600, 3)


def _provider(row: Any) -> str:
    return f"{row.get('provider')} ({row.get('task')}, {row.get('status')})"


def _warn_stale(out: Any, stale: str | None) -> None:
    if stale:
        out.print(f"\n  [yellow]these metadata are {literal(stale)}[/yellow]")


def _count(number: int) -> str:
    return f"{number:,}"
