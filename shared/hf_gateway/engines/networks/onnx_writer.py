"""Writes a network as an ONNX graph, for ONNX Runtime; its messages are those of `onnx_messages`.

Source: onnx.proto3 (github.com/onnx/onnx), operator set 20; ONNX Runtime's own operators FusedMatMul, RotaryEmbedding and
SimplifiedLayerNormalization (its docs/ContribOperators.md).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hf_gateway.engines.networks.numbers import as_float32, in_blocks, out_of_blocks
from hf_gateway.engines.networks.onnx_messages import (
    FLOAT,
    INT64,
    attribute,
    external_tensor,
    field,
    number_type,
    tensor,
    value_info,
)
from hf_gateway.engines.networks.rotary import tables
from hf_gateway.engines.networks.writer import MASKING_NUMBER, Activation

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

OPSET = 20
"""The first operator set with Gelu."""
IR_VERSION = 9
"""The version of the format that belongs to it."""
OWN_DOMAIN = "com.microsoft"
"""Domain of ONNX Runtime's own operators."""
INLINE_BYTES = 1024
"""Larger weights are passed beside the graph."""


class OnnxWriter:
    """A `Writer` for ONNX Runtime. Large weights stay in the memory that they are given in, in `weights` by name."""

    def __init__(self, *, blocks: bool = False) -> None:
        """Begin a graph.

        Args:
            blocks: whether large weights are rounded to 8 bits; ONNX Runtime's operators for such weights are slow or round the
                other factor, too, so that they are kept in float32.
        """
        self._blocks = blocks
        self.weights: dict[str, Array] = {}
        self._nodes: list[bytes] = []
        self._initializers: list[bytes] = []
        self._inputs: dict[str, bytes] = {}
        self._known: dict[tuple[Any, ...], str] = {}
        self._count = 0

    def model(self, output: str, axes: Sequence[str]) -> bytes:
        """Return the finished graph, whose large weights are not in it but in `weights`.

        Args:
            output: what it computes.
            axes: names of the axes of the output.
        """
        self._node("Identity", [output], outputs=["output"])
        outside = (external_tensor(name, values) for name, values in self.weights.items())
        graph = b"".join(
            [
                *(field(1, node) for node in self._nodes),
                field(2, "network"),
                *(field(5, each) for each in (*self._initializers, *outside)),
                *(field(11, each) for each in self._inputs.values()),
                field(12, value_info("output", FLOAT, axes)),
            ]
        )
        opsets = (field(1, domain) + field(2, version) for domain, version in (("", OPSET), (OWN_DOMAIN, 1)))
        return field(1, IR_VERSION) + field(7, graph) + b"".join(field(8, opset) for opset in opsets)

    def input_ids(self) -> str:
        """Return the token ids, (r, t) int64."""
        return self._input("input_ids")

    def attention_mask(self) -> str:
        """Return 1 for tokens and 0 for padding, (r, t) int64."""
        return self._input("attention_mask")

    def token_type_ids(self) -> str:
        """Return the token types, (r, t) int64."""
        return self._input("token_type_ids")

    def _input(self, name: str) -> str:
        self._inputs.setdefault(name, value_info(name, INT64, ["texts", "tokens"]))
        return name

    def rows(self, table: "Array", ids: str) -> str:
        """Return the rows of a (n, d) table by ids, (…, d).

        Args:
            table: (n, d).
            ids: any shape, int64.
        """
        name = self._stored(self._rounded(table))
        return self._float32(self._node("Gather", [name, ids]), name)

    def first_token(self, value: str) -> str:
        """Return the vector of each text's first token, (r, d), of (r, t, d)."""
        return self._node("Gather", [value, self._integers(0)], axis=1)

    def mean_of_tokens(self, value: str, mask: str) -> str:
        """Return the mean of the vectors of each text's tokens, (r, d), without the padding.

        Args:
            value: (r, t, d).
            mask: (r, t).
        """
        kept = self._node("Unsqueeze", [self._node("Cast", [mask], to=FLOAT), self._integers([2])])
        whole, count = (
            self._node("ReduceSum", [each, self._integers([1])], keepdims=0)
            for each in (self._node("Mul", [value, kept]), kept)
        )
        return self._node("Div", [whole, count])

    def add(self, one: str, other: str) -> str:
        """Add, with broadcasting.

        Args:
            one: a value.
            other: a value.
        """
        return self._node("Add", [one, other])

    def multiply(self, one: str, other: str) -> str:
        """Multiply value by value, with broadcasting.

        Args:
            one: a value.
            other: a value.
        """
        return self._node("Mul", [one, other])

    def scale(self, value: str, factor: float) -> str:
        """Multiply by a number.

        Args:
            value: any shape.
            factor: the number.
        """
        return self._node("Mul", [value, self._number(factor)])

    def linear(self, value: str, weight: "Array", bias: "Array | None") -> str:
        """Return value · weightᵀ + bias.

        Args:
            value: (…, d).
            weight: (e, d), as torch stores it.
            bias: (e,), or None.
        """
        # ONNX's own MatMul takes the weight transposed, which would be a copy.
        made = self._node("FusedMatMul", [value, self._weight(self._rounded(weight))], domain=OWN_DOMAIN, transB=1)
        return made if bias is None else self._node("Add", [made, self._weight(bias)])

    def layer_norm(self, value: str, scale: "Array", bias: "Array | None", epsilon: float) -> str:
        """Normalise the last axis to mean 0 and variance 1, then scale and shift.

        Args:
            value: (…, d).
            scale: (d,).
            bias: (d,), or None.
            epsilon: added to the variance.
        """
        given = [value, self._weight(scale), *([] if bias is None else [self._weight(bias)])]
        return self._node("LayerNormalization", given, axis=-1, epsilon=epsilon)

    def rms_norm(self, value: str, scale: "Array", epsilon: float) -> str:
        """Divide the last axis by its root mean square, then scale.

        Args:
            value: (…, d).
            scale: (d,).
            epsilon: added to the mean square.
        """
        return self._node("SimplifiedLayerNormalization", [value, self._weight(scale)], axis=-1, epsilon=epsilon)

    def activate(self, value: str, activation: Activation) -> str:
        """Apply an activation function.

        Args:
            value: any shape.
            activation: its name.
        """
        if activation in ("relu", "tanh"):
            return self._node(activation.capitalize(), [value])
        if activation == "silu":
            return self._node("Mul", [value, self._node("Sigmoid", [value])])
        return self._node("Gelu", [value], approximate="none" if activation == "gelu" else "tanh")

    def attention(self, query: str, key: str, value: str, bias: str, heads: int) -> str:
        """Return softmax(query · keyᵀ / √k + bias) · value for each head.

        Args:
            query: (r, t, h·k).
            key: (r, t, h·k).
            value: (r, t, h·k).
            bias: broadcastable to (r, h, t, t).
            heads: h.
        """
        query, key, value = (self.split_heads(each, heads) for each in (query, key, value))
        return self.attend(query, key, value, bias)

    def split_heads(self, value: str, heads: int) -> str:
        """Return (r, h, t, k) of (r, t, h·k).

        Args:
            value: (r, t, h·k).
            heads: h.
        """
        split = self._node("Reshape", [value, self._integers([0, 0, heads, -1])])
        return self._node("Transpose", [split], perm=[0, 2, 1, 3])

    def repeat_heads(self, value: str, heads: int, times: int) -> str:
        """Return each head several times in a row, (r, h·times, t, k).

        Args:
            value: (r, h, t, k).
            heads: h.
            times: how often.
        """
        order = [place // times for place in range(heads * times)]
        return self._node("Gather", [value, self._integers(order)], axis=1)

    def attend(self, query: str, key: str, value: str, bias: str, scale: float | None = None) -> str:
        """Return softmax(query · keyᵀ · scale + bias) · value for each head, (r, t, h·k).

        Args:
            query: (r, h, t, k).
            key: (r, h, t, k).
            value: (r, h, t, k).
            bias: broadcastable to (r, h, t, t).
            scale: factor of the scores; None for 1 / √k.
        """
        scores = self._node("MatMul", [query, self._node("Transpose", [key], perm=[0, 1, 3, 2])])
        if scale is None:
            size = self._node("Gather", [self._node("Shape", [query]), self._integers([3])])
            scores = self._node("Div", [scores, self._node("Sqrt", [self._node("Cast", [size], to=FLOAT)])])
        else:
            scores = self.scale(scores, scale)
        shares = self._node("Softmax", [self._node("Add", [scores, bias])], axis=-1)
        merged = self._node("Transpose", [self._node("MatMul", [shares, value])], perm=[0, 2, 1, 3])
        return self._node("Reshape", [merged, self._integers([0, 0, -1])])

    def rotation(self, frequencies: "Array", length: int, ids: str) -> Any:  # noqa: ARG002 - the operator counts itself
        """Return what `rotate` needs: the tables of cosines and sines.

        Args:
            frequencies: angle per position of each pair of values, (k / 2,).
            length: maximum of t.
            ids: (r, t).
        """
        return [self._weight(table) for table in tables(frequencies, length)]

    def rotate(self, value: str, rotation: Any) -> str:
        """Turn each pair of values i and i + k / 2 by its angle at the position of the token.

        Args:
            value: (r, h, t, k).
            rotation: made by `rotation`.
        """
        # One position is that of the first token.
        return self._node("RotaryEmbedding", [value, self._integers([0]), *rotation], domain=OWN_DOMAIN)

    def distance_bias(self, ids: str, before: int | None, after: int | None) -> str:
        """Return 0 for tokens within a distance and `MASKING_NUMBER` for others, (1, 1, t, t).

        Args:
            ids: (r, t).
            before: maximum distance of a token that comes before; None without a limit.
            after: maximum distance of a token that comes after; None without a limit.
        """
        places = self.positions(ids)
        sides = [self._node("Unsqueeze", [places, self._integers([axis])]) for axis in (1, 2)]
        ahead = self._node("Sub", sides)
        outside = []
        if before is not None:
            outside.append(self._node("Less", [ahead, self._integers([-before])]))
        if after is not None:
            outside.append(self._node("Greater", [ahead, self._integers([after])]))
        masked = outside[0] if len(outside) == 1 else self._node("Or", outside)
        bias = self._node("Where", [masked, self._number(MASKING_NUMBER), self._number(0.0)])
        return self._node("Unsqueeze", [bias, self._integers([1])])

    def mask_bias(self, mask: str) -> str:
        """Return 0 for tokens and `MASKING_NUMBER` for padding, (r, 1, 1, t), of a mask (r, t)."""
        inverted = self._node("Sub", [self._number(1.0), self._node("Cast", [mask], to=FLOAT)])
        return self._node(
            "Unsqueeze", [self._node("Mul", [inverted, self._number(MASKING_NUMBER)]), self._integers([1, 2])]
        )

    def positions(self, ids: str) -> str:
        """Return 0 … t-1, (1, t) int64, for ids (r, t)."""
        count = self._node("Squeeze", [self._tokens(ids)])
        made = self._node("Range", [self._integers(0), count, self._integers(1)])
        return self._node("Unsqueeze", [made, self._integers([0])])

    def positions_after_padding(self, ids: str, pad: int) -> str:
        """Return the number of each token that is not padding, counted from pad + 1; pad for padding. (r, t) int64.

        Args:
            ids: (r, t).
            pad: the id of the padding.
        """
        filled = self._node("Cast", [self._node("Not", [self._node("Equal", [ids, self._integers([pad])])])], to=INT64)
        counted = self._node("Mul", [self._node("CumSum", [filled, self._integers(1)]), filled])
        return self._node("Add", [counted, self._integers([pad])])

    def square_of(self, table: "Array", ids: str) -> str:
        """Return (1, h, t, t): a (h, n, n) table cut to the number of tokens of ids.

        Args:
            table: (h, n, n).
            ids: (r, t).
        """
        count = self._tokens(ids)
        stop = self._node("Concat", [count, count], axis=0)
        cut = self._node("Slice", [self._weight(table), self._integers([0, 0]), stop, self._integers([1, 2])])
        return self._node("Unsqueeze", [cut, self._integers([0])])

    def _tokens(self, ids: str) -> str:
        return self._node("Gather", [self._node("Shape", [ids]), self._integers([1])])

    def _name(self) -> str:
        self._count += 1
        return f"v{self._count}"

    def _node(
        self,
        operation: str,
        inputs: list[str],
        outputs: list[str] | None = None,
        *,
        domain: str = "",
        **attributes: Any,
    ) -> str:
        made = outputs or [self._name()]
        self._nodes.append(
            b"".join(
                [
                    *(field(1, each) for each in inputs),
                    *(field(2, each) for each in made),
                    field(4, operation),
                    *(field(5, attribute(name, value)) for name, value in attributes.items()),
                    field(7, domain),
                ]
            )
        )
        return made[0]

    def _rounded(self, values: "Array") -> "Array":
        """Return a (e, d) weight, rounded to 8 bits if that was asked for."""
        made = in_blocks(values) if self._blocks else None
        return values if made is None else out_of_blocks(*made, values.shape[1])

    def _weight(self, values: "Array") -> str:
        name = self._stored(values)
        return self._float32(name, name)

    def _float32(self, value: str, of: str) -> str:
        """Return a value as float32, which is of the number type of a weight.

        Args:
            value: the value.
            of: name of the weight.
        """
        stored = self.weights.get(of)
        return value if stored is None or number_type(stored) == FLOAT else self._node("Cast", [value], to=FLOAT)

    def _stored(self, values: "Array") -> str:
        name = self._name()
        if values.nbytes > INLINE_BYTES:
            self.weights[name] = values
        else:
            self._initializers.append(tensor(name, values.shape, FLOAT, as_float32(values).astype("<f4").tobytes()))
        return name

    def _number(self, value: float) -> str:
        import numpy as np

        return self._constant(("f", value), (), FLOAT, np.float32(value).tobytes())

    def _integers(self, values: list[int] | int) -> str:
        import numpy as np

        listed = np.asarray(values, "<i8")
        return self._constant(("i", str(values)), listed.shape, INT64, listed.tobytes())

    def _constant(self, key: tuple[Any, ...], shape: tuple[int, ...], kind: int, data: bytes) -> str:
        if key not in self._known:
            self._known[key] = self._name()
            self._initializers.append(tensor(self._known[key], shape, kind, data))
        return self._known[key]
