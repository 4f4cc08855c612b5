"""Blocks that families share."""

from hf_gateway.engines.networks.config import Weights
from hf_gateway.engines.networks.writer import Activation, Node, Writer


def projected(writer: Writer, weights: Weights, name: str, value: Node, wide: int, made: int) -> Node:
    """Apply a linear layer with a bias, `<name>.weight` and `<name>.bias`.

    Args:
        writer: builds the graph.
        weights: the tensors.
        name: of the layer.
        value: (…, wide).
        wide: values per token before it.
        made: values per token after it.
    """
    return writer.linear(value, weights.take(f"{name}.weight", made, wide), weights.take(f"{name}.bias", made))


def norm(writer: Writer, weights: Weights, name: str, value: Node, wide: int, epsilon: float) -> Node:
    """Apply a layer norm, `<name>.weight` and `<name>.bias`.

    Args:
        writer: builds the graph.
        weights: the tensors.
        name: of the layer.
        value: (…, wide).
        wide: values per token.
        epsilon: added to the variance.
    """
    return writer.layer_norm(value, weights.take(f"{name}.weight", wide), weights.take(f"{name}.bias", wide), epsilon)


def feed_forward(
    writer: Writer,
    weights: Weights,
    names: tuple[str, str],
    value: Node,
    wide: int,
    inner: int,
    activation: Activation,
) -> Node:
    """Apply a linear layer, an activation, and a linear layer back.

    Args:
        writer: builds the graph.
        weights: the tensors.
        names: of the two layers.
        value: (…, wide).
        wide: values per token.
        inner: values per token between the layers.
        activation: between the layers.
    """
    up, down = names
    raised = writer.activate(projected(writer, weights, up, value, wide, inner), activation)
    return projected(writer, weights, down, raised, inner, wide)
