"""The index lock: an index, which is a folder, records the vector space it was made with and is never opened with another.

`space.json` in the folder contains the space and the canaries' vectors, so that the index can be moved to another machine and
still be distinguished from one whose vectors have the same name and dimension only.
"""

import dataclasses
import datetime as dt
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from hf_gateway._version import __version__
from hf_gateway.errors import ConfigError, SpaceMismatch
from hf_gateway.spaces.fingerprint import VERSION as CANARIES_VERSION
from hf_gateway.spaces.fingerprint import Comparison, Fingerprint, Rows, compare
from hf_gateway.storage.files import create_atomically, interprocess_lock, write_atomically
from hf_gateway.values.logs import logger
from hf_gateway.values.vector_space import VectorSpace

log = logger(__name__)

VERSION = 1
"""Of the file's form."""
NAME = "space.json"
"""The file's name in the index's folder."""


@dataclass(frozen=True)
class IndexLock:
    """The record of what the index in a folder was made with."""

    path: Path
    """The folder."""
    space: VectorSpace | None
    """None while a chain that may answer in several spaces has returned no vector yet."""
    created: str = field(default_factory=lambda: dt.datetime.now(dt.UTC).isoformat(timespec="seconds"))
    """When it was locked, in ISO 8601."""
    by: str = f"hf-gateway {__version__}"
    """The version of hf-gateway that locked it."""
    fingerprint: Fingerprint | None = None
    """The canaries' vectors in the space, if they were measured."""

    @classmethod
    def read(cls, path: str | Path) -> Self | None:
        """Return the lock of the index in a folder; None if there is no lock.

        Raises:
            ConfigError: the file cannot be read, is damaged, or was written by a newer hf-gateway. It is not changed.
        """
        folder = Path(path)
        file = folder / NAME
        try:
            data = json.loads(file.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise ConfigError(
                f"{file} cannot be read, so it is unknown what the index was made with: {error}"
            ) from error
        except (ValueError, RecursionError) as error:
            raise _invalid_file(file, f"invalid JSON: {error}") from None
        version = data.get("version") if isinstance(data, dict) else None
        if isinstance(version, int) and version > VERSION:
            raise ConfigError(
                f"{file} has form {version}, written by {data.get('by', 'a newer hf-gateway')}; this is hf-gateway "
                f"{__version__}, which knows form {VERSION}: upgrade with `pip install -U hf-gateway`"
            )
        try:
            return cls._of(folder, data)
        except (ValueError, KeyError, TypeError, AttributeError, ConfigError) as error:
            raise _invalid_file(file, f"{type(error).__name__}: {error}") from None

    @classmethod
    def _of(cls, folder: Path, data: Mapping[str, Any]) -> Self:
        if data["version"] != VERSION:
            raise ValueError(f"there is no form {data['version']!r}")
        for name, kind in (("created", str), ("by", str)):
            if not isinstance(data[name], kind):
                raise TypeError(f"{name} is {data[name]!r}")
        measured = data["fingerprint"]
        if measured is not None and measured["version"] != CANARIES_VERSION:
            measured = None  # of other texts, which cannot be compared with anything here
        return cls(
            folder,
            _space_of(data["space"]),
            data["created"],
            data["by"],
            None if measured is None else Fingerprint.from_dict(measured),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the content of `space.json`."""
        return {
            "version": VERSION,
            "space": None if self.space is None else self.space.to_dict(),
            "created": self.created,
            "by": self.by,
            "fingerprint": None if self.fingerprint is None else self.fingerprint.to_dict(),
        }

    def check(self, space: VectorSpace, fingerprint: Fingerprint | None = None, *, cut: bool = False) -> None:
        """Compare with the space and the vectors of a chain that is to open the index.

        Args:
            space: the chain's space.
            fingerprint: its vectors, if they were measured.
            cut: whether texts may be truncated, so that the long canary is compared.

        Raises:
            SpaceMismatch: a field that is known on both sides differs, or the vectors do although no field does.
        """
        if self.space is not None and (differences := self.space.differences(space)):
            lines = "".join(f"\n  - {difference}" for difference in differences)
            now = space.model if differences[0].field == "model" else "the same model in another way"
            raise SpaceMismatch(
                f"the index in {self.path} was made with {self.space.model} (locked {self.created} by {self.by}), and would "
                f"now be opened with {now}. What was, and what would be:{lines}\n  {self._ways_out()}"
            )
        if self.fingerprint is None or fingerprint is None:
            return
        comparison = _best_comparison(self.fingerprint, fingerprint, cut)
        if not comparison.same:
            raise SpaceMismatch(self._other_vectors(fingerprint, comparison))

    def write(self, *, cut: bool = False) -> "IndexLock":
        """Write the lock into its folder, or complete the lock that is there; returns the lock in force.

        Of several processes that lock a new folder at once the first one wins, and the others are compared with its lock. Known
        fields of a lock are never removed.

        cut: whether texts may be truncated, so that the long canary is compared.

        Raises:
            SpaceMismatch: the folder is locked to another space.
            ConfigError: the file cannot be written, or the existing one cannot be read.
        """
        if self.space is None:
            raise ConfigError(f"the space of the index in {self.path} is not known yet, so it cannot be locked")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unwritable(error) from error
        with interprocess_lock(self.path / f".{NAME}.lock", remove=True):
            known = self.read(self.path)
            if known is None:
                try:
                    create_atomically(self.path / NAME, self._bytes())
                except OSError as error:
                    raise self._unwritable(error) from error
                known = self.read(self.path) or self
            known.check(self.space, self.fingerprint, cut=cut)
            grown = known._grown(self.space, self.fingerprint)
            if grown is not known:
                try:
                    write_atomically(self.path / NAME, grown._bytes())
                except OSError as error:  # a read-only index can be used all the same
                    log.info("what is now known of the space cannot be added to %s: %s", self.path / NAME, error)
                    return known
        return grown

    def _grown(self, space: VectorSpace, fingerprint: Fingerprint | None) -> Self:
        """Fill unknown fields; the model's own files take precedence over a server. Returns itself if nothing changes."""
        merged = space if self.space is None else self.space.merged(space)
        kept = self.fingerprint
        if kept is None:
            kept = fingerprint
        elif fingerprint is not None and compare(kept.rows, fingerprint.rows, cut=False).same:
            if (kept.authority, fingerprint.authority) == ("server", "files"):
                kept = dataclasses.replace(
                    fingerprint, accepted={**kept.accepted, **fingerprint.accepted}
                ).completed_with(kept.rows)
            else:
                kept = kept.completed_with(fingerprint.rows)
        if merged == self.space and kept is self.fingerprint:
            return self
        return dataclasses.replace(self, space=merged, fingerprint=kept)

    def _bytes(self) -> bytes:
        return (json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n").encode()

    def _unwritable(self, error: OSError) -> ConfigError:
        return ConfigError(
            f"the index in {self.path} cannot be locked, since {NAME} cannot be written there: {error}; "
            "make the folder writable, or lock the index where it is made"
        )

    def _other_vectors(self, fingerprint: Fingerprint, comparison: Comparison) -> str:
        assert self.fingerprint is not None
        worst = ", ".join(f"{role} {cosine:.4f}" for role, cosine in comparison.worst.items())
        return (
            f"the index in {self.path} was made with other vectors than would now be used, though nothing in their names "
            f"differs ({fingerprint.space.model})" + (f"; worst cosine: {worst}" if worst else "") + "\n"
            f"  - the index's: {_origin_of(self.fingerprint)}\n"
            f"  - now: {_origin_of(fingerprint)}\n"
            f"  - probably {comparison.causes[0]}\n"
            f"  {_verdict(self.fingerprint, fingerprint)}\n  {self._ways_out()}"
        )

    def _ways_out(self) -> str:
        model = "the model" if self.space is None else self.space.model
        return (
            f"Ways out: use {model} as the index was made; rebuild the index into another folder; or, if the two are truly "
            f"the same, delete {self.path / NAME} and lock it again with adopt=True"
        )


def warn_unlocked(folder: str | Path) -> bool:
    """Return whether an index that is to be opened without a lock has no lock, and warn of the consequence."""
    if (Path(folder) / NAME).exists():
        return False
    log.warning(
        "the index in %s is opened without a lock, so a query may be embedded in another vector space than the index was made "
        "with, and nothing would say so; if it was made with this embedder, open it once with adopt=True, which locks it",
        folder,
    )
    return True


def is_used(folder: Path) -> bool:
    """Return whether the folder contains anything but a lock that is being written."""
    try:
        return any(not entry.name.startswith(f".{NAME}.") for entry in folder.iterdir())
    except FileNotFoundError:
        return False
    except OSError as error:
        raise ConfigError(f"the index in {folder} cannot be opened: {error}") from error


def needs_adoption(folder: str | Path) -> bool:
    """Return whether there are files in a folder and no lock. Raises ConfigError."""
    return is_used(Path(folder)) and IndexLock.read(folder) is None


def warn_uncompared(folder: str | Path) -> None:
    """Warn that an index without a lock was locked on the caller's word, since it has no texts with vectors to compare."""
    log.warning(
        "the index in %s is locked as you say, since no text with its vector was found in it to compare; is it the right "
        "collection, and are its vectors kept in this folder?",
        folder,
    )


def _best_comparison(one: Fingerprint, other: Fingerprint, cut: bool) -> Comparison:
    """Compare two fingerprints, including the measurements accepted for either; the first agreement counts."""
    first = compare(one.rows, other.rows, cut=cut)
    if first.same:
        return first
    pairs: list[tuple[Rows, Rows]] = [(rows, other.rows) for rows in one.accepted.values()]
    pairs += [(one.rows, rows) for rows in other.accepted.values()]
    return next((found for left, right in pairs if (found := compare(left, right, cut=cut)).same), first)


def _origin_of(fingerprint: Fingerprint) -> str:
    if fingerprint.authority == "files":
        return f"the model's own files at {fingerprint.source}, measured {fingerprint.taken}"
    return f"the server {fingerprint.source}, which cannot be verified, measured {fingerprint.taken}"


def _verdict(index: Fingerprint, now: Fingerprint) -> str:
    if (index.authority, now.authority) == ("server", "files"):
        return "The model's own files decide what a name means: the index holds the vectors of something else, so rebuild it."
    if (index.authority, now.authority) == ("files", "server"):
        return "The index was made with the model's own files, so it is the server that does something else."
    return "Neither can be shown to be the right one; what counts is that they do not belong together."


_TYPES: Mapping[str, type] = {"dimension": int, "normalized": bool, "max_tokens": int}


def _space_of(data: Any) -> VectorSpace:
    """Parse a space from a file. Raises ConfigError, TypeError."""
    space = VectorSpace.from_dict(data)
    for name, value in space.to_dict().items():
        if type(value) is not _TYPES.get(name, str):
            raise TypeError(f"the space's {name} is {value!r}")
    return space


def _invalid_file(file: Path, why: str) -> ConfigError:
    return ConfigError(
        f"{file} is damaged ({why}), so it is unknown what the index was made with. It was left as it is: restore it from a "
        "backup, or rebuild the index into a new folder; if you do know that the index was made with the model you are using, "
        "delete the file and lock the folder with adopt=True"
    )
