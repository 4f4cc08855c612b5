"""CPUs that this process may use, and their instruction sets."""

import math
import os
import platform
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

_sharing = 1
"""Processes that divide the CPUs between them."""


def share(processes: int) -> None:
    """Take a share of the CPUs from now on: models loaded later start as many threads less.

    With the threads of all CPUs in each of them, processes that compute the same would get into each other's way.

    Args:
        processes: how many there are, this one included.
    """
    global _sharing
    _sharing = max(1, processes)


def usable(root: Path = Path("/")) -> int:
    """Return the number of CPUs that this process may keep busy: by its affinity, its container's CPU quota, and its share.

    A quota of 1.5 CPUs counts as 2, since one thread could not use it up. `root` is the parent of /proc and /sys.
    """
    allowed = _affinity()
    quota = quota_of(root)
    return max(1, (min(allowed, math.ceil(quota)) if quota is not None else allowed) // _sharing)


def restricted(root: Path = Path("/")) -> int | None:
    """Return `usable()` if it is less than the machine's CPUs, which runtimes do not detect by themselves; else None."""
    count = usable(root)
    return count if count < (os.cpu_count() or 1) else None


def quota_of(root: Path = Path("/")) -> float | None:
    """Return the CPU quota of this process's cgroups, v1 or v2, in CPUs; None without a limit."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    limits: list[float] = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            limits += _limits_along(root / "sys/fs/cgroup", path, _cgroup_v2_quota)
        elif "cpu" in controllers.split(","):
            mounts = [root / "sys/fs/cgroup" / name for name in (controllers, "cpu")]
            mount = next((each for each in mounts if each.is_dir()), mounts[-1])
            limits += _limits_along(mount, path, _cgroup_v1_quota)
    return min(limits, default=None)


@cache
def has_bf16() -> bool:
    """Return whether the CPU supports bfloat16 natively; otherwise it would be slower than float32."""
    return not _BF16.isdisjoint(_flags())


@cache
def signature() -> str:
    """Return the kind of CPU and its vector and matrix instructions, which determine how results are rounded."""
    kinds = ("avx", "amx", "fma", "sse4", "bf16", "fp16", "asimd", "sve", "sme", "i8mm", "neon")
    known = sorted(flag for flag in _flags() if flag.startswith(kinds) or flag in _BF16)
    return " ".join([platform.machine(), *(known or [platform.processor()])])


_BF16 = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""Names in /proc/cpuinfo: Intel and AMD, Intel's tiles, ARM."""


def flags_in(cpuinfo: str) -> frozenset[str]:
    """Return the flags of the first CPU in the text of /proc/cpuinfo."""
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", cpuinfo, re.MULTILINE)
    return frozenset(found[1].split()) if found else frozenset()


def _flags() -> frozenset[str]:
    try:
        return flags_in(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return frozenset()


def _affinity() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        return os.cpu_count() or 1


def _limits_along(mount: Path, path: str, limit: Callable[[Path], float | None]) -> list[float]:
    """Return the limits of a group and its parents. In a container the path may be the host's, and may not exist."""
    group = mount / path.strip("/")
    folders = [mount] if ".." in path else [group, *group.parents]
    return [
        found
        for folder in folders
        if folder == mount or mount in folder.parents
        if (found := limit(folder)) is not None
    ]


def _cgroup_v2_quota(folder: Path) -> float | None:
    quota, _, period = _read_text(folder / "cpu.max").partition(" ")
    return _ratio(quota, period)


def _cgroup_v1_quota(folder: Path) -> float | None:
    return _ratio(_read_text(folder / "cpu.cfs_quota_us"), _read_text(folder / "cpu.cfs_period_us"))


def _ratio(quota: str, period: str) -> float | None:
    """Return the quota in CPUs; None for `max`, or -1 in v1, which mean no limit."""
    if not quota.isdigit() or not period.isdigit() or not int(period):
        return None
    return int(quota) / int(period) or None


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
