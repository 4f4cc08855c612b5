"""Decides which engines are tried for a model, in which order, and in which precision torch runs, without loading anything."""

import importlib.util
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from hf_gateway.errors import ConfigError, did_you_mean

ENGINES = ("openvino", "onnxruntime", "sentence_transformers")
"""Module names of those that run networks, the fastest on a CPU first."""
STATIC = "static"
"""Module name of the engine for tables of token vectors."""
EMBEDDING_ENGINES = (STATIC, *ENGINES)
"""Module names of all engines for embeddings."""
OPTIONS = frozenset({"engine", "device", "dtype", "weights", "batch_size", "trust_remote_code"})
"""Options that every embedding engine receives."""
PACKAGES: Mapping[str, tuple[str, ...]] = {
    "openvino": ("openvino", "tokenizers", "numpy"),
    "onnxruntime": ("onnxruntime", "tokenizers", "numpy"),
    "sentence_transformers": ("sentence_transformers",),
    STATIC: ("tokenizers", "numpy"),
}
"""Packages that each engine needs."""
CLASSIFIER_PACKAGES = ("torch", "transformers")
"""Packages that run models for labels on torch."""

_NAMES = {"openvino": "openvino", "onnxruntime": "onnxruntime", "torch": "sentence_transformers", STATIC: STATIC}
_ALIASES = {"sentence-transformers": "torch", "sentence_transformers": "torch", "onnx": "onnxruntime"}

Installed = Callable[[str], bool]


def installed(package: str) -> bool:
    """Return whether a package can be imported, without importing it."""
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):  # blocked in sys.modules
        return False


DTYPES: Mapping[str, str] = {
    "fp32": "float32",
    "float": "float32",
    "fp16": "float16",
    "half": "float16",
    "bf16": "bfloat16",
    "double": "float64",
    "float32": "float32",
    "float16": "float16",
    "bfloat16": "bfloat16",
    "float64": "float64",
}
"""Names of number types, this package's and torch's, to torch's attribute names."""


def check_options(options: Mapping[str, Any]) -> None:
    """Validate a local target's options without torch. Raises ConfigError."""
    if (named := options.get("engine")) is not None:
        _engine(named)
    device = options.get("device")
    if device is not None and not (isinstance(device, str) and re.fullmatch(r"[a-z]+(:\d{1,4})?", device)):
        raise ConfigError(f"the option device is a name such as 'cpu', 'cuda' or 'cuda:1', not {device!r}")
    dtype = options.get("dtype")
    if dtype is not None and not (isinstance(dtype, str) and dtype in (*DTYPES, "auto")):
        raise ConfigError(f"unknown dtype {dtype!r}{did_you_mean(str(dtype), {*DTYPES, 'auto'})}")
    weights = options.get("weights")
    if weights not in (None, "int8"):
        raise ConfigError(
            f"the option weights is 'int8', or omitted for weights as they are in the files, not {weights!r}"
        )
    rows = options.get("batch_size")
    if rows is not None and (not isinstance(rows, int) or isinstance(rows, bool) or rows < 1):
        raise ConfigError(f"the option batch_size is a number of texts, at least 1, not {rows!r}")
    trusted = options.get("trust_remote_code")
    if trusted is not None and not isinstance(trusted, bool):
        raise ConfigError(f"the option trust_remote_code is true or false, not {trusted!r}")


def _engine(named: Any) -> str:
    name = _ALIASES.get(str(named), str(named))
    if name not in _NAMES:
        raise ConfigError(f"unknown engine {named!r}{did_you_mean(str(named), set(_NAMES))}")
    return _NAMES[name]


def engine_order(options: Mapping[str, Any], *, cuda: bool, static: bool = False) -> tuple[str, ...]:
    """Return the engines to try: the one that the option `engine` names, torch alone for a device other than the CPU, else all.

    Args:
        options: the target's options.
        cuda: whether torch can use an NVIDIA or AMD GPU, on which it is the fastest.
        static: whether the model is a table of token vectors, which has an engine of its own.

    Raises:
        ConfigError: unknown engine.
    """
    named = options.get("engine")
    if named is not None:
        return (_engine(named),)
    if static:
        return (STATIC,)
    device = str(options.get("device") or ("cuda" if cuda else "cpu"))
    if device == "cpu":
        return ENGINES
    if options.get("device"):
        return ("sentence_transformers",)
    return ("sentence_transformers", *(name for name in ENGINES if name != "sentence_transformers"))


@cache
def cuda_is_here() -> bool:
    """Return whether torch has a GPU. torch is imported only if its build and a driver make that likely."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1") or not built_for_gpu():
        return False
    if sys.platform == "linux" and not any(Path(name).exists() for name in _DRIVERS):
        return False
    import torch

    return bool(torch.cuda.is_available())


_DRIVERS = ("/dev/nvidiactl", "/dev/nvidia0", "/proc/driver/nvidia/version", "/dev/dxg", "/dev/kfd")
"""Files that exist if there is a GPU: NVIDIA's, NVIDIA's under WSL, AMD's."""


def built_for_gpu(version_file: Path | None = None) -> bool:
    """Return whether torch was built for CUDA or ROCm, by its version file; False without torch."""
    if version_file is None:
        if not installed("torch") or (spec := importlib.util.find_spec("torch")) is None or not spec.origin:
            return False
        version_file = Path(spec.origin).with_name("version.py")
    try:
        text = version_file.read_text(encoding="utf-8")
    except OSError:
        return False
    return bool(re.search(r"^(?:cuda|hip)\b[^=\n]*=\s*['\"]", text, re.MULTILINE))


@dataclass(frozen=True)
class TorchPlan:
    """How torch runs a model."""

    half: Literal["bfloat16", "float16"] | None
    """16-bit type that is used if it gives the same vectors; None for float32 only."""
    forced: str | None
    """Type that is used without that check."""
    tokens: int
    """Maximum tokens of a batch, padding included."""
    attention: Literal["flash_attention_2"] | None = None
    """Attention implementation for transformers; None for its default."""


CPU_BATCH_TOKENS = 4096
"""Tokens of a batch on a CPU."""
GPU_BATCH_TOKENS = 65536
"""Tokens of a batch that keep a GPU busy; activations of a large model take a few GB."""


def torch_plan(dtype: Any, device: str, *, bf16: bool, flash: bool) -> TorchPlan:
    """Decide how torch runs on a device.

    Args:
        dtype: the option, in this package's or torch's names; None for "auto".
        device: name such as "cpu" or "cuda:0".
        bf16: whether the device supports bfloat16 natively.
        flash: whether flash-attn is installed, with which a GPU needs no padding.
    """
    gpu = device.startswith("cuda")
    tokens = GPU_BATCH_TOKENS if gpu else CPU_BATCH_TOKENS
    if dtype not in (None, "auto"):
        forced = DTYPES[str(dtype)]
        halved = forced in ("bfloat16", "float16")
        return TorchPlan(None, forced, tokens, "flash_attention_2" if gpu and flash and halved else None)
    if gpu:
        return TorchPlan("bfloat16" if bf16 else "float16", None, tokens, "flash_attention_2" if flash else None)
    return TorchPlan("bfloat16" if bf16 and device == "cpu" else None, None, tokens)
