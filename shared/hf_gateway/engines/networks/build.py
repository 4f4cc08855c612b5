"""Builds the graph of a network from the folder of its files."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

from hf_gateway.engines.networks import bert, distilbert, modernbert, mpnet
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


FAMILIES: dict[str, tuple[Build, str]] = {
    "bert": (partial(bert.build, pad=None), "bert"),
    "distilbert": (distilbert.build, "distilbert"),
    "roberta": (partial(_after_padding, bert.build), "roberta"),
    "xlm-roberta": (partial(_after_padding, bert.build), "roberta"),
    "camembert": (partial(_after_padding, bert.build), "roberta"),
    "mpnet": (partial(_after_padding, mpnet.build), "mpnet"),
    "modernbert": (modernbert.build, "model"),
}
"""For each `model_type`: what builds its graph, and the prefix of its tensors' names in files of a model with a head."""


def build_network(folder: Path, writer: Writer) -> Node:
    """Build the graph of a network; returns its token vectors, (r, t, d).

    Args:
        folder: folder with config.json and safetensors.
        writer: builds the graph.

    Raises:
        EngineFailed: a family or a setting that is not supported here, missing or unexpected tensors; by name.
    """
    config = Config(_config(folder))
    family = config.values.get("model_type")
    if not isinstance(family, str) or family not in FAMILIES:
        raise EngineFailed(f"graphs of the family {family!r:.60} are not built from weights here")
    build, prefix = FAMILIES[family]
    tensors = read_tensors(folder)
    if any(name.startswith(f"{prefix}.") for name in tensors):
        start = len(prefix) + 1
        tensors = {name[start:]: tensor for name, tensor in tensors.items() if name.startswith(f"{prefix}.")}
    # Old files have TensorFlow's names of a layer norm's scale and shift.
    tensors = {_torch_name(name): tensor for name, tensor in tensors.items()}
    return build(config, Weights(tensors, read=not isinstance(writer, _NoGraph)), writer)


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
