"""The cache of converted models: made once, by whoever has torch, and run without it ever after.

An entry is a folder with the graph, the tokenizer as transformers uses it, and `entry.json`: what was converted, and the
vectors that the original gave for the canary texts. It is made beside its place and renamed, so that it is whole or not there.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_gateway.engines.sources import ModelFiles, read_json
from hf_gateway.spaces.fingerprint import Fingerprint
from hf_gateway.storage.files import home, interprocess_lock, write_atomically
from hf_gateway.values.logs import logger

log = logger(__name__)

VERSION = 2
"""Of the form of entries, and of what converting does; entries of another one are made anew."""

_SMALL_FILE_BYTES = 200_000
"""Bytes up to which a file is read whole each time."""
_SAMPLES = 32
_SAMPLE_BYTES = 4096
_UNREAD = frozenset({"data_config.json"})
"""What is of no use to a model, and not everywhere: downloads leave it out."""
_READ = (
    "*.safetensors",
    "*config*.json",
    "modules.json",
    "token*.json",
    "vocab*",
    "merges.txt",
    "*.model",
)


@dataclass(frozen=True)
class ConvertedModel:
    """A converted model. reference: what the original gave for the canaries, as documents without a prompt."""

    folder: Path
    max_tokens: int | None
    reference: Fingerprint

    @property
    def tokenizer(self) -> Path:
        """The tokenizer.json."""
        return self.folder / "tokenizer.json"


def identity(files: ModelFiles) -> str:
    """Return a name for a model by what its files say: other weights, settings or vocabularies have another one.

    The same on every machine and after every download, since it goes by contents alone. A large file is read whole once;
    afterwards this machine knows it by size, time of change and samples of its bytes.
    """
    digest = hashlib.blake2b(digest_size=16)
    modules = read_json(files.path / "modules.json")
    inner = [str(module.get("path", "")) for module in modules or () if isinstance(module, dict)]
    folders = {files.path / name for name in ("", *inner)}
    found = {path for folder in folders for pattern in _READ for path in folder.glob(pattern)}
    for path in sorted(path for path in found if path.name not in _UNREAD):
        if path.is_file():
            digest.update(f"{path.relative_to(files.path).as_posix()}\0{content_of(path)}\0".encode())
    return digest.hexdigest()


def content_of(path: Path) -> str:
    """Return a digest of a file's bytes."""
    about = path.stat()
    if about.st_size <= _SMALL_FILE_BYTES:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    notes = Notes(f"{about.st_mtime_ns} {_sizes_and_samples(path)}")
    known = (notes.read("content") or {}).get("sha256")
    if isinstance(known, str):
        return known
    with path.open("rb") as file:
        made = hashlib.file_digest(file, "sha256").hexdigest()
    notes.write("content", sha256=made)
    return made


def root() -> Path:
    """Return the folder of all entries: HF_GATEWAY_CONVERTED, where an image or a team has one, or `converted` under our home."""
    named = os.environ.get("HF_GATEWAY_CONVERTED")
    return Path(named).expanduser() if named else home() / "converted"


def folder_of(key: str, engine: str) -> Path:
    """Return the folder of an entry, which need not be there."""
    return root() / f"{key}-{engine}-{VERSION}"


def is_converted(files: ModelFiles) -> bool:
    """Say whether a model was converted here, for any engine."""
    return any(load(folder_of(identity(files), engine)) for engine in ("openvino", "onnxruntime"))


def load(folder: Path) -> ConvertedModel | None:
    """Return an entry; None where there is none, or it is broken: files missing, of another size, or changed."""
    try:
        data = json.loads((folder / "entry.json").read_bytes())
        prints: Mapping[str, str] = data["files"]
        if not prints or any(_sizes_and_samples(folder / name) != known for name, known in prints.items()):
            return None
        limit = data["max_tokens"]
        return ConvertedModel(
            folder, limit if isinstance(limit, int) else None, Fingerprint.from_dict(data["reference"])
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


@contextlib.contextmanager
def making(folder: Path) -> Iterator[Path]:
    """Give a folder beside `folder` to make an entry in, and remove it in the end. One process at a time, where the system can.

    Raises OSError.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    passing = folder.with_name(f".{folder.name}.{os.getpid()}.{os.urandom(4).hex()}")
    with interprocess_lock(folder.with_name(f".{folder.name}.lock")):
        _sweep(folder)
        passing.mkdir()
        try:
            yield passing
        finally:
            shutil.rmtree(passing, ignore_errors=True)


def keep(
    passing: Path, folder: Path, about: Mapping[str, Any], max_tokens: int | None, reference: Fingerprint
) -> ConvertedModel:
    """Write down what was made in `passing` and put it at its place, unless somebody else was first. Raises OSError.

    about: for people who look: the model, versions.
    """
    prints = {path.name: _sizes_and_samples(path) for path in sorted(passing.iterdir())}
    data = {**about, "files": prints, "max_tokens": max_tokens, "reference": reference.to_dict()}
    (passing / "entry.json").write_text(json.dumps(data, indent=1), encoding="utf-8")
    if folder.exists() and load(folder) is None:
        discard(folder)
    try:
        passing.rename(folder)
    except OSError:
        if load(folder) is None:
            raise
    return ConvertedModel(folder, max_tokens, reference)


def discard(folder: Path) -> None:
    """Take an entry away that is broken, or gives other vectors than it should. Whoever runs it has it in memory."""
    doomed = folder.with_name(f".{folder.name}.{os.getpid()}.{os.urandom(4).hex()}")
    with contextlib.suppress(OSError):
        folder.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def _sizes_and_samples(path: Path) -> str:
    """A file's size and samples of its bytes; not its time, since an entry may be copied to another machine."""
    size = path.stat().st_size
    digest = hashlib.blake2b(digest_size=8)
    with path.open("rb") as file:
        for piece in range(_SAMPLES if size > _SAMPLE_BYTES else 1):
            file.seek(piece * (size - _SAMPLE_BYTES) // (_SAMPLES - 1) if size > _SAMPLE_BYTES else 0)
            digest.update(file.read(_SAMPLE_BYTES))
    return f"{size} {digest.hexdigest()}"


def _sweep(folder: Path) -> None:
    """Remove what processes left that died while they made this entry; nobody else makes it now."""
    for left in folder.parent.glob(f".{folder.name}.*"):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)


class Notes:
    """What was found out of a model's engines by measuring or by failing, so that the next process need not do it again."""

    def __init__(self, key: str) -> None:
        """key: the model's `identity`."""
        self._folder = root() / "notes"
        self._key = key

    def read(self, *about: str) -> dict[str, Any] | None:
        """Return what was written under the same words, such as the engine, its version and the processor; or None."""
        with contextlib.suppress(OSError, ValueError, RecursionError):
            found = json.loads(self._path(about).read_bytes())
            if isinstance(found, dict) and found.get("about") == list(about):
                return found
        return None

    def write(self, *about: str, **said: Any) -> None:
        """Keep it; where nothing can be written it is found out again."""
        try:
            write_atomically(self._path(about), json.dumps({"about": list(about), **said}).encode())
        except OSError as error:
            log.info("what was measured of a model cannot be kept under %s: %s", self._folder, error)

    def _path(self, about: tuple[str, ...]) -> Path:
        named = hashlib.blake2b("\0".join([self._key, str(VERSION), *about]).encode(), digest_size=16).hexdigest()
        return self._folder / f"{named}.json"
