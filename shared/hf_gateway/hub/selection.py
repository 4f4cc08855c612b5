"""Selects files of a repository: the weights in one format, and the small files that are needed to use them."""

import fnmatch
import re
from collections.abc import Mapping, Sequence
from typing import Literal

from hf_gateway.hub.errors import HubArgumentError, UnsafeFiles
from hf_gateway.values.hub_model import ModelFile

Format = Literal["safetensors", "onnx", "gguf", "pickle"]
FORMATS: Mapping[Format, tuple[str, ...]] = {
    "safetensors": ("*.safetensors",),
    "onnx": ("*.onnx", "*.onnx_data", "*.onnx.data"),
    "gguf": ("*.gguf",),
    "pickle": ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.h5", "*.msgpack"),
}
"""Patterns for the files of each format, in order of preference. h5 and msgpack are not pickles, but nothing here loads them."""
SAFE: tuple[Format, ...] = ("safetensors", "onnx")
"""Formats that are downloaded by default; GGUF is as safe, but nothing in this process reads it."""
_SMALL = ("*.json", "*.txt", "*.model", "*.jinja", "*.vocab")
"""Small files that are needed to use the weights; `engines/sources.py` downloads the same."""
_TORCH = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_COPIES = ("original", "metal")
"""Folders with a copy of the weights above them for the authors' own programs (Llama, gpt-oss)."""
_PIPELINE = "model_index.json"
"""The file that makes a repository a pipeline of diffusers, whose parts are in folders."""
_NOT_THE_MODEL = (
    "*checkpoint-*/*",
    "openvino/*",
    "coreml/*",
    "*.mlpackage/*",
    "data_config.json",
    "training_args*",
    "optimizer*",
    "rng_state*",
    "scheduler.pt",
)
_USUAL_QUANTISATIONS = ("Q4_K_M", "Q4_0", "Q8_0")
_QUANTISATION = re.compile(
    r"(?:^|[-._])((?:UD-)?(?:I?Q\d\w*|F16|BF16|F32|MXFP4\w*|TQ\d\w*))(?:-\d{5}-of-\d{5})?\.gguf$", re.IGNORECASE
)


def formats(files: Sequence[ModelFile]) -> list[Format]:
    """Return the formats of the weights, in order of preference."""
    return [each for each in FORMATS if any(holds_format(file, each) for file in files)]


def pickled(files: Sequence[ModelFile]) -> list[ModelFile]:
    """Return the weights that exist as pickles only: those in folders without weights in another format.

    A model may have modules in folders, each with its own weights; a single module in a pickle makes the pickle
    necessary. Copies of other weights are not counted.
    """
    folders: dict[str, list[ModelFile]] = {}
    for file in files:
        folders.setdefault(_folder(file), []).append(file)
    whole = formats(folders.get("", ()))
    exported = "onnx" in formats(folders.get("onnx", ()))  # a copy of the model in the root
    found: list[ModelFile] = []
    for folder, inside in folders.items():
        if formats(inside) != ["pickle"] or (not folder and exported) or (folder in _COPIES and whole):
            continue
        # In a folder of its own, weights for TensorFlow or JAX are copies too.
        found += [file for file in weights(inside, ["pickle"]) if not (folder and whole) or _any(_name(file), _TORCH)]
    return found


def holds_format(file: ModelFile, kind: Format) -> bool:
    """Return whether a file contains weights of a format.

    Args:
        file: the file.
        kind: the format.
    """
    return (
        _any(_name(file), FORMATS[kind])
        and not _any(file.path, _NOT_THE_MODEL)
        and not _any(_name(file), _NOT_THE_MODEL)
    )


def quantisations(files: Sequence[ModelFile]) -> dict[str, int | None]:
    """Return the bytes of each GGUF quantisation by its name in Ollama, the smallest first; None for an unknown size."""
    found: dict[str, int | None] = {}
    for file in files:
        if name := _quantisation(file):
            size = found.get(name, 0)
            found[name] = None if size is None or file.size is None else size + file.size
    return dict(sorted(found.items(), key=lambda each: each[1] or 0))


def usual_quantisation(files: Sequence[ModelFile]) -> str | None:
    """Return the default quantisation, four bits as in Ollama, or else the smallest; None without GGUF files."""
    found = quantisations(files)
    return next((name for name in _USUAL_QUANTISATIONS if name in found), next(iter(found), None))


def choose_files(
    files: Sequence[ModelFile], wanted: Sequence[Format] | None = None, *, code: bool = False
) -> list[ModelFile]:
    """Return the files of a model: its weights in one format, or in all that are `wanted`, and the small files.

    Args:
        files: all files of the repository.
        wanted: formats of the weights; None for safetensors, or else ONNX.
        code: whether to include Python files.

    Raises:
        UnsafeFiles: the weights exist as pickles or GGUF only, and `wanted` is None.
        HubArgumentError: there are no weights in a wanted format.
    """
    offered = formats(files)
    if wanted is None:
        kinds = [each for each in offered if each in SAFE][:1]
        if not kinds and "pickle" in offered:
            raise UnsafeFiles(
                "the weights are in pickles only, which can run any code when they are loaded; if the author is trusted, "
                "ask for them by name: formats=['pickle'] or --format pickle"
            )
        if not kinds and "gguf" in offered:
            raise UnsafeFiles(
                "the weights are in GGUF files only, which this process cannot run; ask for them by name (formats=['gguf'] or "
                "--format gguf), or let Ollama pull them"
            )
    else:
        kinds = list(wanted)
        if lacking := [each for each in kinds if each not in offered]:
            raise HubArgumentError(
                f"there are no weights in {' or '.join(lacking)}; "
                + (
                    f"there are some in {', '.join(offered)}"
                    if offered
                    else "the repository has no weights in any format"
                )
            )
    chosen = weights(files, kinds)
    small = (*_SMALL, *(("*.py",) if code else ()))
    others = [
        file
        for file in files
        if _any(_name(file), small)
        and not any(_any(_name(file), FORMATS[each]) for each in FORMATS)
        and not _any(file.path, _NOT_THE_MODEL)
        and not (file.path.startswith("onnx/") and "onnx" not in kinds)
    ]
    kept = {file.path for file in (*chosen, *others)}
    return [file for file in files if file.path in kept]


def weights(files: Sequence[ModelFile], kinds: Sequence[Format]) -> list[ModelFile]:
    """Return the files with weights of some formats, without copies of the same model.

    Args:
        files: all files of the repository.
        kinds: the formats.
    """
    found: list[ModelFile] = []
    for kind in kinds:
        held = [file for file in files if holds_format(file, kind)]
        if any(not _folder(file) for file in held):
            held = [file for file in held if _folder(file) not in _COPIES]
        if kind == "safetensors" and any(_any(_name(file), ("model*.safetensors",)) for file in held):
            held = [file for file in held if not _name(file).startswith("consolidated")]  # a copy in one file
        if kind == "onnx" and (plain := [file for file in held if _name(file).startswith("model.onnx")]):
            held = plain  # the others are quantised or optimised for one kind of processor
        if kind == "pickle":
            torch = {_folder(file) for file in held if _any(_name(file), _TORCH)}
            # Next to the weights for torch are copies of them for TensorFlow or JAX.
            held = [file for file in held if _folder(file) not in torch or _any(_name(file), _TORCH)]
        if any(file.path == _PIPELINE for file in files):
            held = _parts_of_pipeline(held)
        if kind == "gguf" and (usual := usual_quantisation(files)) is not None:
            held = [file for file in held if _quantisation(file) == usual]
        found += held
    return found


def _parts_of_pipeline(held: Sequence[ModelFile]) -> list[ModelFile]:
    """Return the weights that a pipeline of diffusers loads.

    Those in the root are a copy in one file, and those with one more dot (`model.fp16.safetensors`) are variants.
    """
    plain = {_folder(file) for file in held if _name(file).count(".") == 1}
    return [file for file in held if _folder(file) and (_name(file).count(".") == 1 or _folder(file) not in plain)]


def match_patterns(files: Sequence[ModelFile], patterns: Sequence[str]) -> list[ModelFile]:
    """Return the files whose path matches a pattern.

    Args:
        files: the files.
        patterns: patterns such as `*.json`.
    """
    return [file for file in files if _any(file.path, tuple(patterns))]


def _quantisation(file: ModelFile) -> str | None:
    found = _QUANTISATION.search(_name(file))
    return None if found is None or "mmproj" in _name(file).lower() else found[1].upper()


def _name(file: ModelFile) -> str:
    return file.path.rpartition("/")[2]


def _folder(file: ModelFile) -> str:
    return file.path.rpartition("/")[0]


def _any(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
