"""Vectors of an earlier job, found again by the hashes of their texts, so that only new and changed texts are embedded."""

import json
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hf_gateway.corpus.job_settings import JobSettings
from hf_gateway.corpus.parts import HASH_BYTES, SUCCESS, read_hashes, read_vectors
from hf_gateway.corpus.plan import PLAN
from hf_gateway.errors import ConfigError, visible
from hf_gateway.retrieval.files import numpy
from hf_gateway.spaces.index_lock import IndexLock
from hf_gateway.values.vector_space import VectorSpace

INDEX = ".earlier-texts.npy"
"""The file in the job's folder with the place of each text of the earlier job."""
_ROW = [("first", "u8"), ("second", "u8"), ("part", "u4"), ("row", "u4")]
_OPEN_PARTS = 4
"""Parts whose vectors a worker keeps in memory."""


def earlier_job(folder: Path, job: JobSettings, space: VectorSpace) -> str:
    """Return the digest of the plan of a finished job whose vectors may be used.

    Args:
        folder: of the earlier job.
        job: of this job.
        space: of this job.

    Raises:
        ConfigError: the folder has no finished job, or one with other vectors.
        SpaceMismatch: it is of another space.
    """
    try:
        plan = json.loads((folder / PLAN).read_bytes())
        json.loads((folder / SUCCESS).read_bytes())
        digest, dtype = str(plan["digest"]), plan["facts"]["dtype"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{visible(str(folder))} has no finished job ({type(error).__name__}): nothing can be taken from it"
        ) from None
    if dtype != job.dtype:
        raise ConfigError(
            f"{visible(str(folder))} has vectors of {dtype}, and not of {job.dtype}: name the same --dtype"
        )
    lock = IndexLock.read(folder)
    if lock is None:
        raise ConfigError(f"{visible(str(folder))} has no space.json, so it is unknown what its vectors are")
    lock.check(space, None)
    return digest


def write_index(earlier: Path, out: Path, column: str) -> None:
    """Write the places of all texts of an earlier job, sorted by their hashes: 24 bytes of memory and disk a row.

    Args:
        earlier: the folder of the earlier job.
        out: the folder of this job.
        column: of the hashes: those of the texts, or of whole rows.

    Raises:
        ConfigError: a part of the earlier job cannot be read.
    """
    np = numpy()
    blocks = []
    for number, name in enumerate(_parts(earlier)):
        try:
            hashes = read_hashes(earlier, name, column)
        except (OSError, ValueError, KeyError) as error:
            raise ConfigError(f"{visible(str(earlier / name))} cannot be read: {error}") from None
        block = np.empty(len(hashes), _ROW)
        halves = np.frombuffer(b"".join(hashes), ">u8").reshape(-1, HASH_BYTES // 8)
        block["first"], block["second"] = halves[:, 0], halves[:, 1]
        block["part"], block["row"] = number, np.arange(len(hashes))
        blocks.append(block)
    index = np.concatenate(blocks) if blocks else np.empty(0, _ROW)
    index = index[np.argsort(index["first"], kind="stable")]
    passing = out / f"{INDEX}.passing"
    with passing.open("wb") as file:
        np.save(file, index, allow_pickle=False)
    passing.replace(out / INDEX)


def _parts(earlier: Path) -> list[str]:
    found: list[str] = json.loads((earlier / SUCCESS).read_bytes())["parts"]
    return found


class EarlierVectors:
    """The vectors of an earlier job."""

    def __init__(self, earlier: Path, out: Path) -> None:
        """Open the index that the job has written.

        Args:
            earlier: the folder of the earlier job.
            out: the folder of this job.
        """
        np = numpy()
        self._folder, self._names = earlier, _parts(earlier)
        self._index = np.load(out / INDEX, mmap_mode="r", allow_pickle=False)
        self._keys = np.ascontiguousarray(self._index["first"])  # 8 bytes a row, which each search would copy
        self._open: OrderedDict[int, Any] = OrderedDict()

    def find(self, hashes: Sequence[bytes]) -> dict[int, Any]:
        """Return the vectors of texts that the earlier job has, by their places.

        Args:
            hashes: of the texts.
        """
        wanted: dict[int, list[tuple[int, int]]] = {}
        for place, (part, row) in self.places(hashes).items():
            wanted.setdefault(part, []).append((place, row))
        return {
            place: vectors[row]
            for part, rows in sorted(wanted.items())
            for vectors in (self._vectors(part),)
            for place, row in rows
        }

    def places(self, hashes: Sequence[bytes]) -> dict[int, tuple[int, int]]:
        """Return the part and row of each hash that the earlier job has, by its place.

        Args:
            hashes: of the column that the index was made of.
        """
        np = numpy()
        if not len(self._index) or not hashes:
            return {}
        halves = np.frombuffer(b"".join(hashes), ">u8").reshape(-1, 2).astype("u8")
        starts = np.searchsorted(self._keys, halves[:, 0])
        wanted: dict[int, tuple[int, int]] = {}
        for place, (first, second) in enumerate(halves.tolist()):
            at = int(starts[place])
            while at < len(self._index) and int(self._index[at]["first"]) == first:
                if int(self._index[at]["second"]) == second:
                    found = self._index[at]
                    wanted[place] = (int(found["part"]), int(found["row"]))
                    break
                at += 1
        return wanted

    def _vectors(self, part: int) -> Any:
        if part not in self._open:
            self._open[part] = read_vectors(self._folder, self._names[part])
            if len(self._open) > _OPEN_PARTS:
                self._open.popitem(last=False)
        self._open.move_to_end(part)
        return self._open[part]
