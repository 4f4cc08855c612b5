"""Blocks of networks made as chat models are: RMS norms, fewer heads for keys than for queries, both normed, and gates."""

from dataclasses import dataclass

from hf_gateway.engines.networks.blocks import gated, projected
from hf_gateway.engines.networks.config import Config, Weights
from hf_gateway.engines.networks.writer import Activation, Node, Writer
from hf_gateway.errors import EngineFailed


@dataclass(frozen=True)
class Heads:
    """Sizes of an attention."""

    queries: int
    """Heads of the queries."""
    keys: int
    """Heads of the keys and of the values, each for several of the queries."""
    width: int
    """Values of a head."""


def heads_of(config: Config, width: int) -> Heads:
    """Return the sizes of the attention.

    Args:
        config: the configuration.
        width: values of a head, for a missing setting.

    Raises:
        EngineFailed: sizes that do not fit together.
    """
    queries, keys = config.count("num_attention_heads"), config.count("num_key_value_heads")
    if queries % keys:
        raise EngineFailed(f"its config.json has num_key_value_heads={keys}, which does not divide {queries} heads")
    return Heads(queries, keys, config.count("head_dim", width))


@dataclass(frozen=True)
class Decoder:
    """The blocks of one network."""

    writer: Writer
    """Builds the graph."""
    weights: Weights
    """The tensors."""
    hidden: int
    """Values per token."""
    heads: Heads
    """Sizes of the attention."""
    epsilon: float
    """Added to the mean square in norms."""
    from_one: bool
    """Whether the scales of norms are stored as their difference from 1."""
    biased: bool
    """Whether the linear layers of the attention have a bias."""

    def norm(self, name: str, value: Node, wide: int | None = None) -> Node:
        """Apply an RMS norm.

        Args:
            name: of the norm.
            value: (…, wide).
            wide: values per token; None for those of the network.
        """
        scale = self.weights.take(f"{name}.weight", wide or self.hidden)
        return self.writer.rms_norm(value, 1 + scale if self.from_one else scale, self.epsilon)

    def attention(self, name: str, value: Node, rotation: Node, bias: Node, scale: float | None = None) -> Node:
        """Apply an attention.

        Args:
            name: of the attention.
            value: (r, t, d).
            rotation: the rotary positions.
            bias: broadcastable to (r, h, t, t).
            scale: factor of the scores; None for 1 / √k.
        """
        writer, heads = self.writer, self.heads
        parts = []
        for part, count in (("q", heads.queries), ("k", heads.keys), ("v", heads.keys)):
            made = self._projected(f"{name}.{part}_proj", value, self.hidden, count * heads.width)
            split = writer.split_heads(made, count)
            if part != "v":
                split = writer.rotate(self.norm(f"{name}.{part}_norm", split, heads.width), rotation)
            if count < heads.queries:
                split = writer.repeat_heads(split, count, heads.queries // count)
            parts.append(split)
        attended = writer.attend(parts[0], parts[1], parts[2], bias, scale)
        return self._projected(f"{name}.o_proj", attended, heads.queries * heads.width, self.hidden)

    def feed_forward(self, name: str, value: Node, inner: int, activation: Activation) -> Node:
        """Apply a gated feed-forward.

        Args:
            name: of the feed-forward.
            value: (r, t, d).
            inner: values per token in the middle.
            activation: of the gate.
        """
        gate, raised = (
            projected(self.writer, self.weights, f"{name}.{part}_proj", value, self.hidden, inner, bias=False)
            for part in ("gate", "up")
        )
        made = gated(self.writer, gate, raised, activation)
        return projected(self.writer, self.weights, f"{name}.down_proj", made, inner, self.hidden, bias=False)

    def _projected(self, name: str, value: Node, wide: int, made: int) -> Node:
        return projected(self.writer, self.weights, name, value, wide, made, bias=self.biased)
