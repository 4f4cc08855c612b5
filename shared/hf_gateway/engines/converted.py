"""Cache of converted models: converted once, where torch is installed, and run without torch afterwards.

An entry is a folder with the graph, the tokenizer as transformers uses it, and `entry.json`: a description of the
model, and the original's vectors of the canary texts. It is written under a temporary name and renamed, so that it is
either complete or absent.
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
"""Version of the entries' format and of the conversion; entries of another version are converted again."""

_SMALL_FILE_BYTES = 200_000
"""Size up to which a file is read completely each time."""
_SAMPLES = 32
"""Number of samples of a large file."""
_SAMPLE_BYTES = 4096
"""Bytes of a sample."""
_UNREAD = frozenset({"data_config.json"})
"""Files that do not affect a model and that downloads leave out."""
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
    """A converted model."""

    folder: Path
    """Folder of the entry."""
    max_tokens: int | None
    """Maximum tokens of a text; None without a limit."""
    reference: Fingerprint
    """The original's vectors of the canaries, as documents without a prompt."""

    @property
    def tokenizer(self) -> Path:
        """Path of the tokenizer.json."""
        return self.folder / "tokenizer.json"


def identity(files: ModelFiles) -> str:
    """Return a digest of a model's weights, settings and vocabularies.

    It depends on content alone, so it is the same on every machine and after every download. A large file is read
    completely once; later this machine recognises it by its size, modification time and samples of its bytes.
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
    """Return the folder of all entries: HF_GATEWAY_CONVERTED, or else `converted` below HF_GATEWAY_HOME."""
    named = os.environ.get("HF_GATEWAY_CONVERTED")
    return Path(named).expanduser() if named else home() / "converted"


def folder_of(key: str, engine: str) -> Path:
    """Return the folder of an entry, which need not exist.

    Args:
        key: identity of the model.
        engine: name of the engine.
    """
    return root() / f"{key}-{engine}-{VERSION}"


def is_converted(files: ModelFiles) -> bool:
    """Return whether a model was converted on this machine, for any engine."""
    return any(load(folder_of(identity(files), engine)) for engine in ("openvino", "onnxruntime"))


def load(folder: Path) -> ConvertedModel | None:
    """Return an entry; None if it is missing or broken: files missing, of another size, or changed."""
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
def temporary_entry(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder for a new entry, and remove it afterwards. One process at a time.

    Raises OSError.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.{os.urandom(4).hex()}")
    with interprocess_lock(folder.with_name(f".{folder.name}.lock")):
        _sweep(folder)
        temporary.mkdir()
        try:
            yield temporary
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def keep(
    temporary: Path, folder: Path, about: Mapping[str, Any], max_tokens: int | None, reference: Fingerprint
) -> ConvertedModel:
    """Complete the entry in `temporary` and move it to `folder`, unless another process was first.

    Args:
        temporary: folder with the new entry's files.
        folder: folder of the entry.
        about: description for people: the model, versions.
        max_tokens: maximum tokens of a text.
        reference: the original's vectors of the canaries.

    Raises:
        OSError: the entry cannot be written.
    """
    prints = {path.name: _sizes_and_samples(path) for path in sorted(temporary.iterdir())}
    data = {**about, "files": prints, "max_tokens": max_tokens, "reference": reference.to_dict()}
    (temporary / "entry.json").write_text(json.dumps(data, indent=1), encoding="utf-8")
    if folder.exists() and load(folder) is None:
        discard(folder)
    try:
        temporary.rename(folder)
    except OSError:
        if load(folder) is None:
            raise
    return ConvertedModel(folder, max_tokens, reference)


def discard(folder: Path) -> None:
    """Remove a broken entry, or one with wrong vectors. Processes that run it have it in memory."""
    doomed = folder.with_name(f".{folder.name}.{os.getpid()}.{os.urandom(4).hex()}")
    with contextlib.suppress(OSError):
        folder.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def _sizes_and_samples(path: Path) -> str:
    """Return a file's size and samples of its bytes; not its time, since an entry may be copied to another machine."""
    size = path.stat().st_size
    digest = hashlib.blake2b(digest_size=8)
    with path.open("rb") as file:
        for piece in range(_SAMPLES if size > _SAMPLE_BYTES else 1):
            file.seek(piece * (size - _SAMPLE_BYTES) // (_SAMPLES - 1) if size > _SAMPLE_BYTES else 0)
            digest.update(file.read(_SAMPLE_BYTES))
    return f"{size} {digest.hexdigest()}"


def _sweep(folder: Path) -> None:
    """Remove what processes left behind that died while writing this entry. Called under the lock."""
    for left in folder.parent.glob(f".{folder.name}.*"):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)


class Notes:
    """Stores results about a model's engines, such as measurements and failures, for the next process."""

    def __init__(self, key: str) -> None:
        """Set the folder; `key` is the model's identity."""
        self._folder = root() / "notes"
        self._key = key

    def read(self, *about: str) -> dict[str, Any] | None:
        """Return the result stored under the same words, such as engine, version and processor; None without one."""
        with contextlib.suppress(OSError, ValueError, RecursionError):
            found = json.loads(self._path(about).read_bytes())
            if isinstance(found, dict) and found.get("about") == list(about):
                return found
        return None

    def write(self, *about: str, **facts: Any) -> None:
        """Store a result; if nothing can be written, it is determined again next time."""
        try:
            write_atomically(self._path(about), json.dumps({"about": list(about), **facts}).encode())
        except OSError as error:
            log.info("a measurement of a model cannot be stored in %s: %s", self._folder, error)

    def _path(self, about: tuple[str, ...]) -> Path:
        named = hashlib.blake2b("\0".join([self._key, str(VERSION), *about]).encode(), digest_size=16).hexdigest()
        return self._folder / f"{named}.json"
