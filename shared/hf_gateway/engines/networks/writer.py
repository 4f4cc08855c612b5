"""The operations that families of networks are made of, as a runtime's writer offers them."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

Activation = Literal["gelu", "gelu_tanh", "relu", "silu", "tanh"]

Node = Any
"""A value of the graph under construction."""

Network = Callable[..., Node]
"""Describes a network to a writer, and returns its output; gets what reads its tensors, too, as `build_network` does."""

MASKING_NUMBER = -1e30
"""Added to the scores of padding, so that its share of the attention is 0, in bfloat16 as well."""


class Writer(Protocol):
    """Builds a graph in one runtime's form. Axes: r texts, t tokens, d values per token, h heads of k values."""

    def input_ids(self) -> Node:
        """Return the token ids, (r, t) int64."""

    def attention_mask(self) -> Node:
        """Return 1 for tokens and 0 for padding, (r, t) int64."""

    def token_type_ids(self) -> Node:
        """Return the token types, (r, t) int64."""

    def rows(self, table: "Array", ids: Node) -> Node:
        """Return the rows of a (n, d) table by ids, (…, d).

        Args:
            table: (n, d).
            ids: any shape, int64.
        """

    def first_token(self, value: Node) -> Node:
        """Return the vector of each text's first token, (r, d), of (r, t, d)."""

    def mean_of_tokens(self, value: Node, mask: Node) -> Node:
        """Return the mean of the vectors of each text's tokens, (r, d), without the padding.

        Args:
            value: (r, t, d).
            mask: (r, t).
        """

    def add(self, one: Node, other: Node) -> Node:
        """Add, with broadcasting.

        Args:
            one: a value.
            other: a value.
        """

    def multiply(self, one: Node, other: Node) -> Node:
        """Multiply value by value, with broadcasting.

        Args:
            one: a value.
            other: a value.
        """

    def scale(self, value: Node, factor: float) -> Node:
        """Multiply by a number.

        Args:
            value: any shape.
            factor: the number.
        """

    def linear(self, value: Node, weight: "Array", bias: "Array | None") -> Node:
        """Return value · weightᵀ + bias.

        Args:
            value: (…, d).
            weight: (e, d), as torch stores it.
            bias: (e,), or None.
        """

    def layer_norm(self, value: Node, scale: "Array", bias: "Array | None", epsilon: float) -> Node:
        """Normalise the last axis to mean 0 and variance 1, then scale and shift.

        Args:
            value: (…, d).
            scale: (d,).
            bias: (d,), or None.
            epsilon: added to the variance.
        """

    def rms_norm(self, value: Node, scale: "Array", epsilon: float) -> Node:
        """Divide the last axis by its root mean square, then scale.

        Args:
            value: (…, d).
            scale: (d,).
            epsilon: added to the mean square.
        """

    def activate(self, value: Node, activation: Activation) -> Node:
        """Apply an activation function.

        Args:
            value: any shape.
            activation: its name.
        """

    def attention(self, query: Node, key: Node, value: Node, bias: Node, heads: int) -> Node:
        """Return softmax(query · keyᵀ / √k + bias) · value for each head, (r, t, h·k).

        Args:
            query: (r, t, h·k).
            key: (r, t, h·k).
            value: (r, t, h·k).
            bias: broadcastable to (r, h, t, t).
            heads: h.
        """

    def split_heads(self, value: Node, heads: int) -> Node:
        """Return (r, h, t, k) of (r, t, h·k).

        Args:
            value: (r, t, h·k).
            heads: h.
        """

    def repeat_heads(self, value: Node, heads: int, times: int) -> Node:
        """Return each head several times in a row, (r, h·times, t, k).

        Args:
            value: (r, h, t, k).
            heads: h.
            times: how often.
        """

    def attend(self, query: Node, key: Node, value: Node, bias: Node, scale: float | None = None) -> Node:
        """Return softmax(query · keyᵀ · scale + bias) · value for each head, (r, t, h·k).

        Args:
            query: (r, h, t, k).
            key: (r, h, t, k).
            value: (r, h, t, k).
            bias: broadcastable to (r, h, t, t).
            scale: factor of the scores; None for 1 / √k.
        """

    def rotation(self, frequencies: "Array", length: int, ids: Node) -> Node:
        """Return what `rotate` needs for the positions 0 … t-1 of ids.

        Args:
            frequencies: angle per position, in radians, of each pair of values, (k / 2,).
            length: maximum of t.
            ids: (r, t).
        """

    def rotate(self, value: Node, rotation: Node) -> Node:
        """Turn each pair of values i and i + k / 2 by its angle at the position of the token (rotary positions).

        Args:
            value: (r, h, t, k).
            rotation: made by `rotation`.
        """

    def distance_bias(self, ids: Node, before: int | None, after: int | None) -> Node:
        """Return 0 for tokens within a distance and `MASKING_NUMBER` for others, broadcastable to (r, h, t, t).

        Args:
            ids: (r, t).
            before: maximum distance of a token that comes before; None without a limit.
            after: maximum distance of a token that comes after; None without a limit.
        """

    def mask_bias(self, mask: Node) -> Node:
        """Return 0 for tokens and `MASKING_NUMBER` for padding, broadcastable to (r, h, t, t), of a mask (r, t)."""

    def positions(self, ids: Node) -> Node:
        """Return 0 … t-1, (1, t) int64, for ids (r, t)."""

    def positions_after_padding(self, ids: Node, pad: int) -> Node:
        """Return the number of each token that is not padding, counted from pad + 1; pad for padding. (r, t) int64.

        Args:
            ids: (r, t).
            pad: the id of the padding.
        """

    def square_of(self, table: "Array", ids: Node) -> Node:
        """Return (1, h, t, t): a (h, n, n) table cut to the number of tokens of ids.

        Args:
            table: (h, n, n).
            ids: (r, t).
        """
