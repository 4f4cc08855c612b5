"""Blocks that families share."""

from collections.abc import Sequence

from hf_gateway.engines.networks.config import Weights
from hf_gateway.engines.networks.writer import Activation, Node, Writer


def projected(
    writer: Writer, weights: Weights, name: str, value: Node, wide: int, made: int, *, bias: bool = True
) -> Node:
    """Apply a linear layer, `<name>.weight` and `<name>.bias`.

    Args:
        writer: builds the graph.
        weights: the tensors.
        name: of the layer.
        value: (…, wide).
        wide: values per token before it.
        made: values per token after it.
        bias: whether it has one.
    """
    weight = weights.take(f"{name}.weight", made, wide)
    return writer.linear(value, weight, weights.take(f"{name}.bias", made) if bias else None)


def projected_parts(
    writer: Writer, weights: Weights, name: str, value: Node, wide: int, made: int, parts: int, *, bias: bool = True
) -> list[Node]:
    """Apply several linear layers of one size whose weights are stored one after the other in one tensor.

    Args:
        writer: builds the graph.
        weights: the tensors.
        name: of the layers.
        value: (…, wide).
        wide: values per token before them.
        made: values per token after each.
        parts: number of layers.
        bias: whether they have one.
    """
    weight = weights.take(f"{name}.weight", parts * made, wide)
    shift = weights.take(f"{name}.bias", parts * made) if bias else None
    rows = [slice(part * made, (part + 1) * made) for part in range(parts)]
    return [writer.linear(value, weight[each], None if shift is None else shift[each]) for each in rows]


def norm(
    writer: Writer, weights: Weights, name: str, value: Node, wide: int, epsilon: float, *, bias: bool = True
) -> Node:
    """Apply a layer norm, `<name>.weight` and `<name>.bias`.

    Args:
        writer: builds the graph.
        weights: the tensors.
        name: of the layer.
        value: (…, wide).
        wide: values per token.
        epsilon: added to the variance.
        bias: whether it has one.
    """
    shift = weights.take(f"{name}.bias", wide) if bias else None
    return writer.layer_norm(value, weights.take(f"{name}.weight", wide), shift, epsilon)


def gated(writer: Writer, gate: Node, raised: Node, activation: Activation) -> Node:
    """Multiply values by an activated gate (GLU).

    Args:
        writer: builds the graph.
        gate: (…, n).
        raised: the values, (…, n).
        activation: of the gate.
    """
    return writer.multiply(writer.activate(gate, activation), raised)


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


def rotary_attention(writer: Writer, parts: Sequence[Node], heads: int, rotation: Node, bias: Node) -> Node:
    """Apply an attention with rotary positions, (r, t, d).

    Args:
        writer: builds the graph.
        parts: queries, keys and values, each (r, t, d).
        heads: number of heads.
        rotation: the rotary positions.
        bias: broadcastable to (r, h, t, t).
    """
    query, key, content = (writer.split_heads(part, heads) for part in parts)
    return writer.attend(writer.rotate(query, rotation), writer.rotate(key, rotation), content, bias)
