"""Heads for labels: from the token vectors of a network to the logits of each text, (r, n).

One function for each form that transformers' `…ForSequenceClassification` have.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from hf_gateway.engines.networks.blocks import norm, projected
from hf_gateway.engines.networks.build import FAMILIES, ReadTensors, family_of, read_config, weights_of
from hf_gateway.engines.networks.config import Config, Weights
from hf_gateway.engines.networks.safetensors import read_tensors
from hf_gateway.engines.networks.writer import Activation, Node, Writer
from hf_gateway.errors import EngineFailed

Head = Callable[[Config, Weights, Writer, Node, int], Node]
"""Builds a head; gets the configuration, the tensors, the writer, the token vectors (r, t, d) and the number of labels."""


def _width(config: Config) -> int:
    """Return the number of values per token."""
    return config.count("hidden_size" if "hidden_size" in config.values else "dim")


def first_token_head(
    config: Config,
    weights: Weights,
    writer: Writer,
    tokens: Node,
    labels: int,
    *,
    names: tuple[str, str],
    activation: Activation,
) -> Node:
    """Return a linear layer, an activation and a linear layer of each text's first token.

    Args:
        config: the configuration.
        weights: the tensors.
        writer: builds the graph.
        tokens: (r, t, d).
        labels: how many there are.
        names: of the two layers.
        activation: between the layers.
    """
    (before, last), wide = names, _width(config)
    made = projected(writer, weights, before, writer.first_token(tokens), wide, wide)
    return projected(writer, weights, last, writer.activate(made, activation), wide, labels)


def modernbert_head(config: Config, weights: Weights, writer: Writer, tokens: Node, labels: int) -> Node:
    """Return a linear layer, an activation, a norm and a linear layer of each text's first token, or of the mean of its tokens.

    Args:
        config: the configuration.
        weights: the tensors.
        writer: builds the graph.
        tokens: (r, t, d).
        labels: how many there are.
    """
    wide, biased = _width(config), config.switch("classifier_bias")
    if config.choice("classifier_pooling", ("cls", "mean")) == "cls":
        pooled = writer.first_token(tokens)
    else:
        pooled = writer.mean_of_tokens(tokens, writer.attention_mask())
    made = projected(writer, weights, "head.dense", pooled, wide, wide, bias=biased)
    made = writer.activate(made, config.activation("classifier_activation"))
    epsilon, shifted = config.number("norm_eps", 1e-5), config.switch("norm_bias")
    made = norm(writer, weights, "head.norm", made, wide, epsilon, bias=shifted)
    return projected(writer, weights, "classifier", made, wide, labels)


_BERTS: Head = partial(first_token_head, names=("pooler.dense", "classifier"), activation="tanh")
_ROBERTAS: Head = partial(first_token_head, names=("classifier.dense", "classifier.out_proj"), activation="tanh")

HEADS: dict[str, Head] = {
    "bert": _BERTS,
    "distilbert": partial(first_token_head, names=("pre_classifier", "classifier"), activation="relu"),
    "roberta": _ROBERTAS,
    "xlm-roberta": _ROBERTAS,
    "camembert": _ROBERTAS,
    "mpnet": _ROBERTAS,
    "modernbert": modernbert_head,
    "nomic_bert": _BERTS,
    "gte": _BERTS,
    "new": _BERTS,
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
    made = HEADS[family](config, weights, writer, tokens, labels)
    weights.refuse_rest(None, UNUSED)
    return made
