"""Predicts from metadata whether a model will run on this machine, and which targets can serve it."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any, Literal

from hf_gateway.hub.machine import Machine
from hf_gateway.hub.needs import Needs, base_model, is_adapter
from hf_gateway.hub.selection import SAFE, formats, pickled, quantisations, usual_quantisation
from hf_gateway.values.hub_model import ModelFile, ModelMetadata
from hf_gateway.values.hub_task import HubTask, hub_tasks
from hf_gateway.wire.hf_router import CatalogueEntry, Offer

Verdict = Literal["fits", "tight", "too_big", "unknown"]
ROOMY_RATIO = 0.8
"""Share of the available memory up to which a model fits; above it the fit is tight."""
_SHOWN_FILES = 3
"""Number of files that a sentence names."""


@dataclass(frozen=True)
class Serving:
    """A target for a model."""

    target: str
    """The target as written in `targets=[...]`."""
    serves: bool | None
    """Whether it can serve the model; None if unknown."""
    why: str
    """The reason, in words."""
    price_in: float | None = None
    """USD per million input tokens; None if unknown."""
    price_out: float | None = None
    """USD per million output tokens; None if unknown."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return {
            "target": self.target,
            "serves": self.serves,
            "why": self.why,
            "usd_per_million_tokens": {"input": self.price_in, "output": self.price_out},
        }


@dataclass(frozen=True)
class Compatibility:
    """Whether and how a model can be used from this machine."""

    model: str
    """Hub id."""
    sha: str | None
    """Commit that the metadata describe."""
    task: str | None
    """Task of this package that the model is for; None for any other."""
    verdict: Verdict
    """Result for memory and disk."""
    reasons: tuple[str, ...]
    """The numbers behind the verdict, in words."""
    problems: tuple[str, ...]
    """What has to be done or decided before the model can be used."""
    needs: Needs
    """What the model needs."""
    machine: Machine
    """What this machine has."""
    targets: tuple[Serving, ...]
    """Targets, with whether they can serve the model."""
    remote_code: bool | None
    """Whether it runs Python from its repository; None if unknown."""
    pickles_only: bool | None
    """Whether its weights, or those of one of its folders, exist only in files that can run code; None if the files
    are unknown.
    """
    gated: Literal[False, "auto", "manual"] | None
    """How the Hub restricts access: not at all, automatically or by manual approval; None if unknown."""
    required_library: str | None = None
    """Library that the caller asked about."""
    library_matches: bool | None = None
    """Whether the model is for that library; None if there was no question or the metadata do not tell."""
    library_version: str | None = None
    """Installed version of that library; None if it is not installed."""
    stale: str | None = None
    """Why the metadata are old; None if they are fresh."""

    @property
    def ok(self) -> bool:
        """Whether the model fits, if only just, and is for the library that was asked for."""
        return self.verdict in ("fits", "tight") and self.library_matches is not False

    def __bool__(self) -> bool:
        """Return `ok`."""
        return self.ok

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return {
            "model": self.model,
            "sha": self.sha,
            "task": self.task,
            "verdict": self.verdict,
            "reasons": list(self.reasons),
            "problems": list(self.problems),
            "needs": self.needs.to_dict(),
            "machine": self.machine.to_dict(),
            "targets": [each.to_dict() for each in self.targets],
            "remote_code": self.remote_code,
            "pickles_only": self.pickles_only,
            "gated": self.gated,
            "required_library": self.required_library,
            "library_matches": self.library_matches,
            "library_version": self.library_version,
            "stale": self.stale,
        }


def check_model(
    metadata: ModelMetadata,
    needed: Needs,
    machine: Machine,
    entry: CatalogueEntry | None,
    *,
    required_library: str | None = None,
    here: int = 0,
) -> Compatibility:
    """Combine metadata, needs and machine. Pure, except that it looks up which packages are installed.

    Args:
        metadata: metadata of the model.
        needed: what the model needs.
        machine: what this machine has.
        entry: the router's entry for the model, if it has one.
        required_library: library that the model must be for.
        here: bytes of the download that are on the disk already.
    """
    verdict, reasons = compare_needs(needed, machine, here=here)
    adapter = is_adapter(metadata)
    if adapter and verdict != "too_big":
        base = base_model(metadata)
        verdict, reasons = (
            "unknown",
            [f"it is an adapter of {base or 'an unnamed model'}, which has to fit too"],
        )
    task = next((each for each in hub_tasks() if each.is_for(metadata)), None)
    remote_code = _remote_code(metadata)
    offered = formats(metadata.files)
    pickles = pickled(metadata.files) if needed.format != "gguf" else []  # a GGUF file is the whole model
    pickles_only = bool(pickles) if offered else None
    matches = _matches(metadata, required_library) if required_library else None
    installed = _installed(required_library) if required_library else None
    problems = []
    if metadata.disabled:
        problems.append("the Hub has disabled the model")
    if metadata.gated:
        problems.append(f"gated ({metadata.gated}): accept its licence at https://huggingface.co/{metadata.id} first")
    if metadata.private:
        problems.append("private: only a token that may read it can download it")
    if remote_code:
        problems.append("runs Python code from its repository: read it, and pin the revision before it is trusted")
    if offered == ["pickle"]:
        problems.append("the weights are in pickles only, which can run any code when they are loaded")
    elif pickles:
        problems.append(
            f"some weights are in pickles only, which can run any code when they are loaded: {_name_files(pickles)}; "
            "a download leaves them out"
        )
    if adapter:
        base = base_model(metadata)
        problems.append(
            f"it is an adapter and needs its base model: check {base}"
            if base
            else "it is an adapter without a named base model"
        )
    if matches is False:
        problems.append(f"the model is for {metadata.library_name or 'an unnamed library'}, not {required_library}")
    if required_library and installed is None:
        problems.append(f"{required_library} is not installed here")
    return Compatibility(
        metadata.id,
        metadata.sha,
        task.name if task else None,
        verdict,
        tuple(reasons),
        tuple(problems),
        needed,
        machine,
        tuple(_targets(metadata, task, verdict, entry, remote_code=bool(remote_code))),
        remote_code,
        pickles_only,
        metadata.gated,
        required_library,
        matches,
        installed,
        metadata.stale,
    )


def compare_needs(needed: Needs, machine: Machine, *, here: int = 0) -> tuple[Verdict, list[str]]:
    """Compare what a model needs with what the machine has.

    Args:
        needed: what the model needs.
        machine: what this machine has.
        here: bytes of the download that are on the disk already.

    Returns:
        The verdict, and the numbers behind it in words.
    """
    if needed.weights is None:
        return "unknown", ["the size of the weights is unknown"]
    total = needed.total if needed.total is not None else needed.weights
    reasons = []
    verdict: Verdict = "unknown"
    for gpu in sorted(machine.gpus, key=lambda each: -each.free)[:1]:
        verdict = _fits(total, gpu.free, gpu.total)
        reasons.append(
            f"{verdict}: needs {format_bytes(total)} of the {format_bytes(gpu.free)} free on the GPU ({gpu.name})"
        )
    if verdict not in ("fits", "tight"):
        on_cpu = needed.total_on_cpu if needed.total_on_cpu is not None else total
        verdict, reason = _in_memory(on_cpu, machine)
        if on_cpu > total:
            reason += (
                f"; in float32, as chat runs without a GPU: with dtype='bfloat16' it would be {format_bytes(total)}"
            )
        reasons.append(reason)
    if needed.total is None and verdict != "too_big":
        # Room for the weights does not tell about the key-value cache; too little room for them does.
        verdict, reasons = "unknown", ["the size of the key-value cache is unknown; there is room for the weights"]
    if needed.download is not None and machine.disk is not None and needed.download - here > machine.disk:
        verdict = "too_big"
        left = f"what is missing of the download is {format_bytes(needed.download - here)}"
        what = left if here else f"the download is {format_bytes(needed.download)}"
        reasons.append(f"too_big: {what}, and the disk has {format_bytes(machine.disk)} free")
    return verdict, reasons


def _in_memory(total: int, machine: Machine) -> tuple[Verdict, str]:
    if machine.memory is None:
        return "unknown", f"needs {format_bytes(total)}; the memory of this machine is unknown"
    available = machine.available if machine.available is not None else machine.memory
    verdict = _fits(total, available, machine.memory)
    if verdict == "tight" and total > available:
        return verdict, (
            f"tight: needs {format_bytes(total)}, and {format_bytes(available)} of {format_bytes(machine.memory)} memory "
            "are available now"
        )
    return (
        verdict,
        (
            f"{verdict}: needs {format_bytes(total)} of {format_bytes(available)} available memory "
            f"({format_bytes(machine.memory)} in all)"
        ),
    )


def _fits(total: int, available: int, whole: int) -> Verdict:
    if total <= ROOMY_RATIO * available:
        return "fits"
    # Other programs may free the memory that they hold; more than the machine has cannot become free.
    return "tight" if total <= max(available, ROOMY_RATIO * whole) else "too_big"


def format_bytes(count: int | None) -> str:
    """Return a size such as `2.4 GB`, in powers of ten as the Hub shows them; `?` for None."""
    if count is None:
        return "?"
    value, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 999.5:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if unit in ("B", "kB") or value >= 100 else f"{value:.1f} {unit}"


def _targets(
    metadata: ModelMetadata,
    task: HubTask | None,
    verdict: Verdict,
    entry: CatalogueEntry | None,
    *,
    remote_code: bool,
) -> list[Serving]:
    return [
        _local(metadata, task, verdict, remote_code=remote_code),
        *_hosted(metadata, task, entry),
        _ollama(metadata, task),
        *_own_servers(metadata, task),
    ]


def _local(metadata: ModelMetadata, task: HubTask | None, verdict: Verdict, *, remote_code: bool) -> Serving:
    target = f"local:{metadata.id}"
    if task is None:
        ours = " nor ".join(each.title for each in hub_tasks())
        return Serving(target, False, f"its task is {metadata.pipeline_tag or 'not named'}, neither {ours}")
    if not _files_are_known(metadata):
        return Serving(target, None, "the list of its files is not known yet")
    if not any(each in SAFE for each in formats(metadata.files)):
        return Serving(target, False, "there are neither safetensors nor ONNX files")
    # Files in folders of a chat model are not loaded; the modules of an embedding model are.
    if pickles := [file for file in pickled(metadata.files) if task.loads_folders or "/" not in file.path]:
        return Serving(target, False, f"some of its weights are in pickles only: {_name_files(pickles)}")
    if remote_code:
        return Serving(
            target, False, "it needs code from its repository, which is not run unless it is trusted on purpose"
        )
    if is_adapter(metadata):
        return Serving(target, None, f"it is an adapter, and needs {base_model(metadata) or 'its base model'} too")
    if task.needs_safetensors and "safetensors" not in formats(metadata.files):
        return Serving(target, False, f"{task.title} in this process needs safetensors")
    if verdict == "too_big":
        return Serving(target, False, "it is too big for this machine")
    extra = _missing_extra(task)
    if extra:
        return Serving(target, None, f"it could once the engine is installed: pip install 'hf-gateway[{extra}]'")
    return Serving(target, True if verdict in ("fits", "tight") else None, f"in this process, {verdict}")


def _missing_extra(task: HubTask) -> str | None:
    return None if any(all(find_spec(name) for name in packages) for packages in task.engines) else task.extra


def _hosted(metadata: ModelMetadata, task: HubTask | None, entry: CatalogueEntry | None) -> list[Serving]:
    found = []
    offers = {offer.provider: offer for offer in entry.providers} if entry else {}
    known = [task] if task else hub_tasks()
    named = set()
    for row in metadata.providers:
        provider = str(row.get("provider"))
        served = next((each for each in known if str(row.get("task")) in each.provider_tags), None)
        named.add(provider)
        if served is None:
            found.append(Serving(f"hf:{provider}", False, f"serves it for {row.get('task')} only"))
        elif row.get("status") != "live":
            found.append(Serving(f"hf:{provider}", False, f"its status there is {row.get('status')}"))
        elif served.providers is not None and provider not in served.providers:
            found.append(Serving(f"hf:{provider}", False, f"its protocol for {served.title} is not supported"))
        else:
            found.append(_hosted_at_price(f"hf:{provider}", offers.get(provider)))
    if task is not None and task.in_catalogue:
        found += [
            _hosted_at_price(f"hf:{name}", offer) for name, offer in offers.items() if offer.live and name not in named
        ]
    return found or [Serving("hf", False, "no Inference Provider serves it")]


def _hosted_at_price(target: str, offer: Offer | None) -> Serving:
    if offer is None or (offer.price_in is None and offer.price_out is None):
        return Serving(target, True, "hosted, with an HF token; price unknown")
    return Serving(target, True, "hosted, with an HF token", offer.price_in, offer.price_out)


def _ollama(metadata: ModelMetadata, task: HubTask | None) -> Serving:
    if task is not None and not task.in_ollama:
        return Serving("ollama", False, f"Ollama does not serve models for {task.title}")
    sizes = quantisations(metadata.files)
    if not _files_are_known(metadata):
        return Serving("ollama", None, "the list of its files is not known yet; Ollama needs GGUF files")
    if not sizes and "gguf" not in formats(metadata.files):
        return Serving("ollama", False, "Ollama pulls GGUF files from the Hub, and the model has no such files")
    name = f"hf.co/{metadata.id}" + (f":{usual}" if (usual := usual_quantisation(metadata.files)) else "")
    listed = ", ".join(f"{quantisation} {format_bytes(count)}" for quantisation, count in sizes.items())
    return Serving(f"ollama:{name}", True, f"after `ollama pull {name}`" + (f"; there are {listed}" if listed else ""))


def _own_servers(metadata: ModelMetadata, task: HubTask | None) -> list[Serving]:
    return [
        Serving(server.target, True, f"your own {server.name} can load it")
        for server in (task.own_servers if task else ())
        if server.tag in metadata.tags
    ]


def _files_are_known(metadata: ModelMetadata) -> bool:
    """Return whether the metadata include the model's files; results of a search do not."""
    return metadata.complete or bool(metadata.files)


def _name_files(files: Sequence[ModelFile]) -> str:
    more = f" and {len(files) - _SHOWN_FILES} more" if len(files) > _SHOWN_FILES else ""
    return ", ".join(file.path for file in files[:_SHOWN_FILES]) + more


def _remote_code(metadata: ModelMetadata) -> bool | None:
    if "custom_code" in metadata.tags or metadata.config.get("auto_map"):
        return True
    return False if metadata.config or metadata.gguf else None


def _matches(metadata: ModelMetadata, library: str) -> bool | None:
    tagged = {_normalized_name(each) for each in (metadata.library_name, *metadata.tags) if each}
    if not metadata.library_name and not metadata.tags:
        return None
    return _normalized_name(library) in tagged


def _normalized_name(name: str) -> str:
    return name.lower().replace("_", "-")


def _installed(library: str) -> str | None:
    try:
        return version(library)
    except (PackageNotFoundError, ValueError):
        return None
