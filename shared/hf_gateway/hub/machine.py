"""Resources of this machine: memory within its limits, disk, GPUs."""

import os
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_UNLIMITED_BYTES = 2**60
"""Bytes; the value that cgroup v1 writes for "no limit" is far above."""
_SMI_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Gpu:
    """A GPU."""

    name: str
    """Name of the device."""
    total: int
    """Bytes of its memory."""
    free: int
    """Bytes of its memory that are free."""


@dataclass(frozen=True)
class Machine:
    """Resources in bytes; None where they cannot be determined."""

    memory: int | None
    """Maximum that a process may use, the container's limit included."""
    available: int | None
    """Part of it that is not in use."""
    disk: int | None
    """Free disk space in the downloads' folder."""
    gpus: tuple[Gpu, ...] = ()
    """The GPUs."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return asdict(self)


def this_machine(downloads: Path) -> Machine:
    """Inspect this machine. Reads files and may run `nvidia-smi`, so it must not be called on an event loop."""
    memory, available = memory_of(Path("/"))
    return Machine(memory, available, free_disk(downloads), gpus())


def free_disk(folder: Path) -> int | None:
    """Return the free bytes on the disk of a folder, which need not exist; None if unknown."""
    for each in (folder, *folder.parents):
        try:
            return shutil.disk_usage(each).free
        except OSError:
            continue
    return None


def memory_of(root: Path) -> tuple[int | None, int | None]:
    """Return the memory that a process may use and the available part of it, in bytes. `root` is the parent of /proc and /sys."""
    total, available = _meminfo(root / "proc/meminfo")
    if total is None:
        total = _physical()
    for limit, used in _cgroups(root):
        total = limit if total is None else min(total, limit)
        left = max(0, limit - used)
        available = left if available is None else min(available, left)
    return total, available


def gpus() -> tuple[Gpu, ...]:
    """Return the GPUs that torch reports, if it is imported already, or else `nvidia-smi`; torch is never imported for this."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        found = []
        for number in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(number)
            found.append(Gpu(str(torch.cuda.get_device_name(number)), int(total), int(free)))
        return tuple(found)
    command = shutil.which("nvidia-smi")
    if command is None:
        return ()
    try:
        done = subprocess.run(  # noqa: S603 - a fixed command, found on the path
            [command, "--query-gpu=name,memory.total,memory.free", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=_SMI_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return parse_smi(done.stdout) if done.returncode == 0 else ()


def parse_smi(text: str) -> tuple[Gpu, ...]:
    """Parse lines of `name, total, free` in MiB, one per GPU; lines of another form (`[N/A]`) are skipped."""
    found = []
    for line in text.splitlines():
        name, *sizes = [part.strip() for part in line.rsplit(",", 2)]
        if len(sizes) == 2 and all(size.isdigit() for size in sizes):
            found.append(Gpu(name, int(sizes[0]) << 20, int(sizes[1]) << 20))
    return tuple(found)


def _meminfo(path: Path) -> tuple[int | None, int | None]:
    found: dict[str, int] = {}
    for line in _read_file(path).splitlines():
        name, _, value = line.partition(":")
        number = value.split()[:1]
        if number and number[0].isdigit():
            found[name] = int(number[0]) * 1024
    return found.get("MemTotal"), found.get("MemAvailable")


def _cgroups(root: Path) -> list[tuple[int, int]]:
    """Return (limit, usage) of each control group of this process that has a limit; a limit applies to all groups below it."""
    found = []
    for line in _read_file(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            base, names = root / "sys/fs/cgroup", ("memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            base, names = root / "sys/fs/cgroup/memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            continue
        inside = [part for part in path.split("/") if part not in ("", "..")]
        # In a container the path is often the host's, and the container's own group is at the top.
        for depth in range(len(inside) + 1):
            folder = base.joinpath(*inside[:depth])
            limit = _number(folder / names[0])
            if limit is not None and limit < _UNLIMITED_BYTES:
                used = (_number(folder / names[1]) or 0) - _droppable(folder / "memory.stat")
                found.append((limit, max(0, used)))
    return found


def _droppable(stat: Path) -> int:
    """Return the bytes of the page cache that the kernel can reclaim."""
    for line in _read_file(stat).splitlines():
        name, _, value = line.partition(" ")
        if name in ("inactive_file", "total_inactive_file") and value.strip().isdigit():
            return int(value)
    return 0


def _number(path: Path) -> int | None:
    text = _read_file(path).strip()
    return int(text) if text.isdigit() else None


def _read_file(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def _physical() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None
