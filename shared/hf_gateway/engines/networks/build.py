"""Builds the graph of a network from the folder of its files."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, cast

from hf_gateway.engines.networks import bert, distilbert, gemma3, gte, modernbert, mpnet, nomic_bert, qwen3
from hf_gateway.engines.networks.config import Config, TensorMissing, Weights
from hf_gateway.engines.networks.safetensors import Tensor, read_tensors
from hf_gateway.engines.networks.writer import Node, Writer
from hf_gateway.errors import EngineFailed

Build = Callable[[Config, Weights, Writer], Node]
ReadTensors = Callable[[Path], Mapping[str, Tensor]]


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
    prefixes: tuple[str, ...]
    """Prefixes of its tensors' names in files of a model with a head."""
    relative: bool = False
    """Whether positions count by their distance alone, so that a text has the same vectors with padding on either side."""
    own_code: bool = False
    """Whether its files on the Hub name code of their own, whose place the graph takes."""
    standard: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict
    """Gives a configuration the names of settings that `build` reads."""


FAMILIES: Mapping[str, Family] = {
    "bert": Family(partial(bert.build, pad=None), ("bert",)),
    "distilbert": Family(distilbert.build, ("distilbert",)),
    "roberta": Family(partial(_after_padding, bert.build), ("roberta",)),
    "xlm-roberta": Family(partial(_after_padding, bert.build), ("roberta",)),
    "camembert": Family(partial(_after_padding, bert.build), ("roberta",)),
    "mpnet": Family(partial(_after_padding, mpnet.build), ("mpnet",)),
    "modernbert": Family(modernbert.build, ("model",), relative=True),
    "qwen3": Family(qwen3.build, ("model",), relative=True),
    "gemma3_text": Family(gemma3.build, ("model",), relative=True),
    "nomic_bert": Family(
        nomic_bert.build, ("nomic_bert", "bert"), relative=True, own_code=True, standard=nomic_bert.standard
    ),
    "gte": Family(partial(gte.build, base=160_000.0), ("gte", "new"), relative=True, own_code=True),
    "new": Family(partial(gte.build, base=10_000.0), ("new",), relative=True, own_code=True),
}
"""By `model_type`."""


def build_network(folder: Path, writer: Writer, read: ReadTensors = read_tensors) -> Node:
    """Build the graph of a network; returns its token vectors, (r, t, d).

    Args:
        folder: folder with config.json and safetensors.
        writer: builds the graph.
        read: reads the tensors of the folder.

    Raises:
        EngineFailed: a family or a setting that is not supported here, missing or unexpected tensors; by name.
    """
    config = read_config(folder)
    family = family_of(config)
    tensors = read(folder)
    if prefix := _prefix(tensors, family):
        tensors = {name: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    return FAMILIES[family].build(config, weights_of(tensors, family, writer), writer)


def read_config(folder: Path) -> Config:
    """Return the configuration of a network, with the names of settings that `build` reads.

    Raises EngineFailed for a file that is missing or damaged.
    """
    path = folder / "config.json"
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise EngineFailed(f"{path} cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise EngineFailed(f"{path} is not a JSON object")
    named = found.get("model_type")
    family = FAMILIES.get(named) if isinstance(named, str) else None
    return Config(family.standard(found) if family else found)


def family_of(config: Config) -> str:
    """Return the family of a network. Raises EngineFailed for one that is not in `FAMILIES`."""
    family = config.values.get("model_type")
    if not isinstance(family, str) or family not in FAMILIES:
        raise EngineFailed(f"graphs of the family {family!r:.60} are not built from weights here")
    return family


def weights_of(tensors: Mapping[str, Tensor], family: str, writer: Writer) -> Weights:
    """Return tensors by torch's names without the prefix that a model with a head puts before those of its network.

    Args:
        tensors: by their names in the files.
        family: the family of the network.
        writer: builds the graph.

    Raises:
        EngineFailed: two tensors have one name.
    """
    prefix = _prefix(tensors, family)
    found = {_torch_name(name.removeprefix(prefix)): tensor for name, tensor in tensors.items()}
    if len(found) < len(tensors):
        raise EngineFailed("its files have two tensors of the same name")
    return Weights(found, read=not isinstance(writer, _NoGraph))


def _prefix(tensors: Mapping[str, Tensor], family: str) -> str:
    """Return the prefix of the names of the network's own tensors, with its dot; "" without one."""
    prefixes = (f"{each}." for each in FAMILIES[family].prefixes)
    return next((each for each in prefixes if any(name.startswith(each) for name in tensors)), "")


class _NoGraph:
    """A `Writer` that writes nothing."""

    def __getattr__(self, name: str) -> Callable[..., Node]:
        """Accept any operation."""
        return lambda *_, **__: None


class BuildGraph(Protocol):
    """Builds a graph, as `build_network` does."""

    def __call__(self, folder: Path, writer: Writer, read: ReadTensors = ...) -> Node:
        """Build the graph.

        Args:
            folder: folder with config.json and safetensors.
            writer: builds the graph.
            read: reads the tensors of the folder.
        """


def settings_refusal(folder: Path, build: BuildGraph = build_network) -> EngineFailed | None:
    """Return why no graph can be built by config.json alone, or None: what the settings say, before weights are downloaded.

    Args:
        folder: folder with config.json.
        build: builds the graph.
    """
    try:
        build(folder, cast("Writer", _NoGraph()), lambda _: {})
    except TensorMissing:
        return None
    except EngineFailed as error:
        return error
    return None


def build_refusal(folder: Path, build: BuildGraph = build_network) -> EngineFailed | None:
    """Return why no graph can be built of a network's files, or None; takes milliseconds, since tensors are only mapped.

    Args:
        folder: folder with config.json and safetensors.
        build: builds the graph.
    """
    try:
        build(folder, cast("Writer", _NoGraph()))
    except EngineFailed as error:
        return error
    return None


def _torch_name(name: str) -> str:
    """Return torch's name of a tensor; old files have TensorFlow's names of a layer norm's scale and shift."""
    for old, new in ((".LayerNorm.gamma", ".LayerNorm.weight"), (".LayerNorm.beta", ".LayerNorm.bias")):
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name
