"""The machine and the versions that a result was measured with, without anything that names this machine."""

import os
import platform
import re
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
_PACKAGES = (
    "hf-gateway", "openvino", "onnxruntime", "torch", "transformers", "sentence-transformers", "tokenizers", "numpy", "httpx",
    "aiohttp", "orjson", "openai", "huggingface_hub", "langchain-core", "llama-index-core",
)  # fmt: skip


def machine() -> dict[str, str]:
    """Return the processor, its cores and flags, the memory and the system."""
    info = _read("/proc/cpuinfo")
    model = re.search(r"model name\s*:\s*(.+)", info)
    flags = re.search(r"flags\s*:\s*(.+)", info)
    known = set(flags.group(1).split()) if flags else set()
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 0
    memory = re.search(r"MemTotal:\s*(\d+) kB", _read("/proc/meminfo"))
    return {
        "processor": model.group(1) if model else platform.processor() or platform.machine(),
        "cores": str(usable),
        "flags": " ".join(flag for flag in _FLAGS if flag in known) or "not known",
        "memory": f"{int(memory.group(1)) / 2**20:.0f} GiB" if memory else "not known",
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
    }


def versions() -> dict[str, str]:
    """Return the versions of our own environment that matter; the peers' are in their requirements files."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def pinned(name: str) -> list[str]:
    """Return the lines of a requirements file."""
    lines = _read(str(Path(__file__).resolve().parents[1] / f"requirements-{name}.txt")).splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def load() -> str:
    """Return how many processes wanted the processor during the last minute: a loaded machine measures badly."""
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "not known"


def today() -> str:
    """Return the date."""
    return datetime.now(UTC).date().isoformat()


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""
