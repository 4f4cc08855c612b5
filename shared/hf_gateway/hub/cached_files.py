"""The cache of model files that all Hugging Face tools share.

The layout is the one that huggingface_hub documents: blobs by digest, snapshots by commit that link to them, and refs
that name the commit of a branch.
"""

import json
import os
import sys
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from hf_gateway.hub import names
from hf_gateway.hub.contents import Malformed, tensors_in
from hf_gateway.values.hub_model import ModelFile


def default_cache() -> Path:
    """Return the cache's folder by the rules of huggingface_hub, or its own constant if it is imported already."""
    constants = sys.modules.get("huggingface_hub.constants")
    if constants is not None:
        return Path(constants.HF_HUB_CACHE)
    configured = os.environ.get("HF_HUB_CACHE", os.environ.get("HUGGINGFACE_HUB_CACHE"))
    if configured is None:
        caches = os.environ.get("XDG_CACHE_HOME", os.path.join("~", ".cache"))  # noqa: PTH118 - "~" is expanded below
        configured = os.path.join(os.environ.get("HF_HOME", os.path.join(caches, "huggingface")), "hub")  # noqa: PTH118
    return Path(os.path.expandvars(configured)).expanduser()


def repository(cache_dir: Path, model: str) -> Path:
    """Return the folder of a model in the cache.

    Args:
        cache_dir: folder of the cache.
        model: Hub id.
    """
    return cache_dir / f"models--{model.replace('/', '--')}"


def recorded_commit(cache_dir: Path, model: str, revision: str) -> str | None:
    """Return the commit that a revision pointed to at its last download, by this or another tool.

    Args:
        cache_dir: folder of the cache.
        model: Hub id.
        revision: branch or tag.

    Returns:
        The full hash; None without a valid record.
    """
    try:
        commit = (repository(cache_dir, model) / "refs" / revision).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return commit if names.is_commit(commit) else None


def is_whole(path: Path, size: int | None) -> bool:
    """Return whether a file exists in its expected size: a full disk or a power cut leaves shorter files.

    Args:
        path: the file.
        size: size in bytes; None if unknown, and then any size will do.
    """
    try:
        return path.stat().st_size == size if size is not None else path.exists()
    except OSError:
        return False


def files_of_commit(cache_dir: Path, model: str, commit: str) -> tuple[ModelFile, ...]:
    """Return the cached files of a commit, whichever tool downloaded them.

    Args:
        cache_dir: folder of the cache.
        model: Hub id.
        commit: full hash of the commit.
    """
    snapshot = repository(cache_dir, model) / "snapshots" / commit
    found = (path for path in snapshot.rglob("*") if path.is_file())
    return tuple(ModelFile(path.relative_to(snapshot).as_posix(), path.stat().st_size) for path in sorted(found))


def damage(folder: Path, paths: Iterable[str]) -> str | None:
    """Return what is wrong with a model's config and tensors on disk; of tensors, only the headers are read.

    Args:
        folder: folder of the files.
        paths: expected files, relative to it.

    Returns:
        The first problem in words; None if there is no problem.
    """
    known = set(paths)
    for path in sorted(known):
        try:
            if path.endswith(".safetensors") and (reason := _cut_off(folder / path, *_state(folder / path))):
                return f"{path}: {reason}"
            if path == "config.json":
                json.loads((folder / path).read_bytes())
            if path.endswith(".safetensors.index.json") and (lacking := _lacking(folder, path, known)):
                return f"{path} names {lacking}, which is not there"
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            return f"{path} cannot be read: {error}"
    return None


def _lacking(folder: Path, index: str, known: set[str]) -> str | None:
    """Return a shard that an index lists and that is missing; None if all are missing, since other weights are used then."""
    at = index.rpartition("/")[0]
    shards = set(json.loads((folder / index).read_bytes())["weight_map"].values())
    unknown = sorted(each for each in shards if f"{at}/{each}".removeprefix("/") not in known)
    return unknown[0] if unknown and len(unknown) < len(shards) else None


def _state(path: Path) -> tuple[int, int]:
    state = path.stat()
    return state.st_size, state.st_mtime_ns


@lru_cache(4096)
def _cut_off(path: Path, size: int, changed_ns: int) -> str | None:  # noqa: ARG001 - they tell files apart
    try:
        tensors_in(path)
    except Malformed as error:
        return str(error)
    return None
