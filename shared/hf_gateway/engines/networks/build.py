"""Builds the graph of a network from the folder of its files."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

from hf_gateway.engines.networks import bert, distilbert, gemma3, modernbert, mpnet, qwen3
from hf_gateway.engines.networks.config import Config, Weights
from hf_gateway.engines.networks.safetensors import read_tensors
from hf_gateway.engines.networks.writer import Node, Writer
from hf_gateway.errors import EngineFailed

Build = Callable[[Config, Weights, Writer], Node]


def _after_padding(build: Callable[..., Node], config: Config, weights: Weights, writer: Writer) -> Node:
    pad = config.values.get("pad_token_id", 1)
    if type(pad) is not int or pad < 0:
        raise EngineFailed(f"its config.json has pad_token_id={pad!r:.60}")
    return build(config, weights, writer, pad=pad)


@dataclass(frozen=True)
class Family:
    """Networks of one structure."""

    build: Build
    """Builds the graph."""
    prefix: str
    """Prefix of its tensors' names in files of a model with a head."""
    relative: bool = False
    """Whether positions count by their distance alone, so that a text has the same vectors with padding on either side."""


FAMILIES: Mapping[str, Family] = {
    "bert": Family(partial(bert.build, pad=None), "bert"),
    "distilbert": Family(distilbert.build, "distilbert"),
    "roberta": Family(partial(_after_padding, bert.build), "roberta"),
    "xlm-roberta": Family(partial(_after_padding, bert.build), "roberta"),
    "camembert": Family(partial(_after_padding, bert.build), "roberta"),
    "mpnet": Family(partial(_after_padding, mpnet.build), "mpnet"),
    "modernbert": Family(modernbert.build, "model", relative=True),
    "qwen3": Family(qwen3.build, "model", relative=True),
    "gemma3_text": Family(gemma3.build, "model", relative=True),
}
"""By `model_type`."""


def build_network(folder: Path, writer: Writer) -> Node:
    """Build the graph of a network; returns its token vectors, (r, t, d).

    Args:
        folder: folder with config.json and safetensors.
        writer: builds the graph.

    Raises:
        EngineFailed: a family or a setting that is not supported here, missing or unexpected tensors; by name.
    """
    config = Config(_config(folder))
    named = config.values.get("model_type")
    if not isinstance(named, str) or named not in FAMILIES:
        raise EngineFailed(f"graphs of the family {named!r:.60} are not built from weights here")
    family = FAMILIES[named]
    tensors, prefix = read_tensors(folder), f"{family.prefix}."
    if any(name.startswith(prefix) for name in tensors):
        start = len(prefix)
        tensors = {name[start:]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    # Old files have TensorFlow's names of a layer norm's scale and shift.
    tensors = {_torch_name(name): tensor for name, tensor in tensors.items()}
    return family.build(config, Weights(tensors, read=not isinstance(writer, _NoGraph)), writer)


class _NoGraph:
    """A `Writer` that writes nothing."""

    def __getattr__(self, name: str) -> Callable[..., Node]:
        """Accept any operation."""
        return lambda *_, **__: None


def build_refusal(folder: Path) -> EngineFailed | None:
    """Return why no graph can be built of a network's files, or None; takes milliseconds, since tensors are only mapped.

    Args:
        folder: folder with config.json and safetensors.
    """
    try:
        build_network(folder, cast("Writer", _NoGraph()))
    except EngineFailed as error:
        return error
    return None


def _torch_name(name: str) -> str:
    for old, new in ((".LayerNorm.gamma", ".LayerNorm.weight"), (".LayerNorm.beta", ".LayerNorm.bias")):
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise EngineFailed(f"{path} cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise EngineFailed(f"{path} is not a JSON object")
    return found
