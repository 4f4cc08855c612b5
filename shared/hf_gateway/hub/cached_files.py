"""What lies in the cache that all Hugging Face tools share, whichever of them put it there.

The layout is the one that huggingface_hub documents: blobs by digest, snapshots by commit that link to them, refs that name the
commit that a branch was.
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
    """Return the folder of the cache, by the rules of huggingface_hub; by its own word where it is imported already."""
    constants = sys.modules.get("huggingface_hub.constants")
    if constants is not None:
        return Path(constants.HF_HUB_CACHE)
    told = os.environ.get("HF_HUB_CACHE", os.environ.get("HUGGINGFACE_HUB_CACHE"))
    if told is None:
        caches = os.environ.get("XDG_CACHE_HOME", os.path.join("~", ".cache"))  # noqa: PTH118 - "~" is expanded below
        told = os.path.join(os.environ.get("HF_HOME", os.path.join(caches, "huggingface")), "hub")  # noqa: PTH118
    return Path(os.path.expandvars(told)).expanduser()


def repository(cache_dir: Path, model: str) -> Path:
    """Return the folder of a model in the Hub's cache."""
    return cache_dir / f"models--{model.replace('/', '--')}"


def recorded_commit(cache_dir: Path, model: str, revision: str) -> str | None:
    """Return the commit that a revision was when it was downloaded last, by this or another tool; None without such a record."""
    try:
        commit = (repository(cache_dir, model) / "refs" / revision).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return commit if names.is_commit(commit) else None


def is_whole(path: Path, size: int | None) -> bool:
    """Return whether a file is there in its size: a full disk and a power cut leave files that are shorter."""
    try:
        return path.stat().st_size == size if size is not None else path.exists()
    except OSError:
        return False


def files_of_commit(cache_dir: Path, model: str, commit: str) -> tuple[ModelFile, ...]:
    """Return the files of a commit that are in the cache, whichever tool put them there."""
    snapshot = repository(cache_dir, model) / "snapshots" / commit
    found = (path for path in snapshot.rglob("*") if path.is_file())
    return tuple(ModelFile(path.relative_to(snapshot).as_posix(), path.stat().st_size) for path in sorted(found))


def damage(folder: Path, paths: Iterable[str]) -> str | None:
    """Return what is wrong with a model's config and tensors on this disk, None for nothing; of tensors, headers are read.

    Args:
        folder: where the files are.
        paths: the files that there should be, relative to it.
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
    """Return a shard that an index names and that is not known; where none is, other weights are what is wanted."""
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
