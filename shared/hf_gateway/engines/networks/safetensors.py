"""Reads tensors from safetensors files, mapped into memory rather than copied.

Source: the format's description at huggingface.co/docs/safetensors: 8 bytes with the length of a header, the header as JSON, then
the numbers, little-endian.
"""

import json
import mmap
import os
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from hf_gateway.engines.networks.numbers import as_float32
from hf_gateway.errors import EngineFailed

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

MAX_HEADER_BYTES = 100_000_000
"""The format's own limit of a header."""
DTYPES: Mapping[str, str] = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "I64": "<i8",
    "I32": "<i4",
    "I8": "i1",
}
"""numpy's names of the number types that are read; bfloat16, which numpy lacks, as its 16 bits."""


@dataclass(frozen=True)
class Tensor:
    """A tensor in a file."""

    name: str
    """Its name."""
    dtype: str
    """The format's name of its number type, such as "BF16"."""
    values: "Array"
    """Its numbers, read-only, mapped from the file; those of BF16 as 16-bit integers."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its dimensions."""
        return tuple(self.values.shape)

    def require_known(self) -> None:
        """Raise EngineFailed for a number type that is not read, of which `values` has zeros."""
        if self.dtype not in DTYPES:
            raise EngineFailed(
                f"the tensor {self.name!r} has the number type {self.dtype:.20}, which is not one of {', '.join(DTYPES)}"
            )

    def float32(self) -> "Array":
        """Return the numbers as float32; a copy unless they are float32 in the file. Raises EngineFailed for integers."""
        self.require_known()
        if self.dtype.startswith("I"):
            raise EngineFailed(f"the tensor {self.name!r} has integers ({self.dtype}), not weights")
        return as_float32(self.values)

    def numbers(self) -> "Array":
        """Return the numbers as float32; those of a table in 16 bits as they are, not copied. Raises EngineFailed."""
        if self.dtype in ("F16", "BF16") and self.values.ndim > 1:
            return self.values
        return self.float32()


class MappedFiles:
    """The files whose numbers a loaded graph reads where they lie."""

    def __init__(self) -> None:
        self._files: list[tuple[Path, int, tuple[int, int]]] = []
        self._maps: list[mmap.mmap] = []
        self._is_read = False

    def add(self, path: Path, file: BinaryIO, mapped: mmap.mmap) -> None:
        """Add a file.

        Args:
            path: its path, for errors.
            file: the open file, which may be closed afterwards.
            mapped: its map.
        """
        descriptor = os.dup(file.fileno())
        weakref.finalize(self, os.close, descriptor)
        self._files.append((path, descriptor, _stamp(descriptor)))
        self._maps.append(mapped)

    def check(self) -> None:
        """Raise EngineFailed for a file that was written to since.

        A graph would compute with the new numbers, and the process would end at a page that is no longer in the file. One that
        was replaced by another file of its name is still there.
        """
        for path, descriptor, stamp in self._files:
            if _stamp(descriptor) != stamp:
                raise EngineFailed(
                    f"{path} was written to after it was loaded: open the model again, and put new weights in the place of "
                    "old ones by a rename"
                )

    def forget_pages(self) -> None:
        """Take the pages out of this process's memory after the first use; they are read again where they are needed again."""
        if self._is_read:
            return
        self._is_read = True
        for each in self._maps:
            if hasattr(each, "madvise"):  # not on Windows
                each.madvise(mmap.MADV_DONTNEED)


def _stamp(descriptor: int) -> tuple[int, int]:
    about = os.fstat(descriptor)
    return about.st_mtime_ns, about.st_size


def read_tensors(folder: Path, maps: MappedFiles | None = None) -> dict[str, Tensor]:
    """Map the tensors of a model: of `model.safetensors`, or of the files that its index names.

    Args:
        folder: folder of the network's files.
        maps: receives the files.

    Raises:
        EngineFailed: no such files, or damaged ones; with the file's name.
    """
    index = folder / "model.safetensors.index.json"
    names = ["model.safetensors"]
    if not (folder / names[0]).is_file() and index.is_file():
        names = _files_of(index)
    found: dict[str, Tensor] = {}
    for name in names:
        for tensor in _tensors_of(folder / name, maps):
            if tensor.name in found:
                raise EngineFailed(f"{folder / name}: the tensor {tensor.name!r} is in two files")
            found[tensor.name] = tensor
    return found


def _files_of(index: Path) -> list[str]:
    try:
        named = json.loads(index.read_bytes())["weight_map"].values()
        files = sorted(set(named))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise EngineFailed(f"{index} cannot be read: {type(error).__name__}: {error}") from None
    if bad := [name for name in files if not isinstance(name, str) or Path(name).name != name]:
        raise EngineFailed(f"{index} names the file {bad[0]!r}, which is not in its folder")
    return files


def _tensors_of(path: Path, maps: MappedFiles | None) -> Iterator[Tensor]:
    import numpy as np

    try:
        if path.exists() and not path.is_file():
            raise ValueError("not a file")
        mapped = memoryview(_mapped(path, maps))
        size = int.from_bytes(mapped[:8], "little")
        if not 0 < size <= min(MAX_HEADER_BYTES, len(mapped) - 8):
            raise ValueError(f"a header of {size} bytes")
        header = json.loads(bytes(mapped[8 : 8 + size]))
        numbers = mapped[8 + size :]
        for name, about in header.items():
            if name == "__metadata__":
                continue
            begin, end = about["data_offsets"]
            shape = tuple(about["shape"])
            if not all(type(each) is int and each >= 0 for each in (begin, end, *shape)) or end > len(numbers):
                raise ValueError(f"the tensor {name!r} has a place or shape that cannot be")
            if (kind := about["dtype"]) not in DTYPES:
                yield Tensor(name, str(kind), np.broadcast_to(np.uint8(0), shape))
                continue
            flat = np.frombuffer(numbers[begin:end], DTYPES[kind])
            # The format does not ask for aligned numbers, but runtimes do.
            yield Tensor(name, kind, np.require(flat, requirements="A").reshape(shape))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise EngineFailed(f"{path} cannot be read: {error}") from None


def _mapped(path: Path, maps: MappedFiles | None) -> mmap.mmap:
    with path.open("rb") as file:
        made = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        if maps is not None:
            maps.add(path, file, made)
    return made
