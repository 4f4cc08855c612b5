"""Heads for labels: from the token vectors of a network to the logits of each text, (r, n).

One function for each form that transformers' `…ForSequenceClassification` have.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from hf_gateway.engines.networks.blocks import projected
from hf_gateway.engines.networks.build import FAMILIES, ReadTensors, family_of, read_config, weights_of
from hf_gateway.engines.networks.config import Weights
from hf_gateway.engines.networks.safetensors import read_tensors
from hf_gateway.engines.networks.writer import Activation, Node, Writer
from hf_gateway.errors import EngineFailed

Head = Callable[[Weights, Writer, Node, int, int], Node]
"""Builds a head; gets the tensors, the writer, the token vectors (r, t, d), d and the number of labels."""


def first_token_head(
    weights: Weights,
    writer: Writer,
    tokens: Node,
    wide: int,
    labels: int,
    *,
    names: tuple[str, str],
    activation: Activation,
) -> Node:
    """Return a linear layer, an activation and a linear layer of each text's first token.

    Args:
        weights: the tensors.
        writer: builds the graph.
        tokens: (r, t, wide).
        wide: values per token.
        labels: how many there are.
        names: of the two layers.
        activation: between the layers.
    """
    before, last = names
    made = projected(writer, weights, before, writer.first_token(tokens), wide, wide)
    return projected(writer, weights, last, writer.activate(made, activation), wide, labels)


_ROBERTAS: Head = partial(first_token_head, names=("classifier.dense", "classifier.out_proj"), activation="tanh")

HEADS: dict[str, Head] = {
    "bert": partial(first_token_head, names=("pooler.dense", "classifier"), activation="tanh"),
    "distilbert": partial(first_token_head, names=("pre_classifier", "classifier"), activation="relu"),
    "roberta": _ROBERTAS,
    "xlm-roberta": _ROBERTAS,
    "camembert": _ROBERTAS,
    "mpnet": _ROBERTAS,
}
"""What builds the head, for each `model_type`."""
UNUSED = ("position_ids", "token_type_ids", "pooler.")
"""Parts of names of tensors that do not change the logits; a pooler that a head uses is not among the rest."""


def build_labelled(folder: Path, writer: Writer, read: ReadTensors = read_tensors) -> Node:
    """Build the graph of a network with its head for labels; returns the logits of each text, (r, n).

    Args:
        folder: folder with config.json and safetensors.
        writer: builds the graph.
        read: reads the tensors of the folder.

    Raises:
        EngineFailed: a family, a head or a setting that is not supported here, missing or unexpected tensors; by name.
    """
    config = read_config(folder)
    family = family_of(config)
    if family not in HEADS:
        raise EngineFailed(f"heads for labels of the family {family!r:.60} are not built from weights here")
    weights = weights_of(read(folder), family, writer)
    labels = len(config.labels())
    tokens = FAMILIES[family].build(config, weights, writer)
    wide = config.count("hidden_size" if "hidden_size" in config.values else "dim")
    made = HEADS[family](weights, writer, tokens, wide, labels)
    weights.refuse_rest(None, UNUSED)
    return made
