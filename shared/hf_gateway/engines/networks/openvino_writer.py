"""Writes a network as a graph of OpenVINO's operations."""

from typing import TYPE_CHECKING, Any

from hf_gateway.engines.networks.numbers import BLOCK_VALUES, as_float32, in_blocks
from hf_gateway.engines.networks.rotary import tables
from hf_gateway.engines.networks.writer import MASKING_NUMBER, Activation

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]


class OpenVinoWriter:
    """A `Writer` for OpenVINO. Weights stay in the memory that they are given in."""

    def __init__(self, openvino: Any, *, blocks: bool = False) -> None:
        """Begin a graph.

        Args:
            openvino: the imported package.
            blocks: whether large weights are kept in 8 bits.
        """
        self._blocks = blocks
        from openvino import opset13

        self._ov, self._op = openvino, opset13
        self._inputs: dict[str, Any] = {}

    def model(self, output: Any, name: str) -> Any:
        """Return the finished graph.

        Args:
            output: what it computes.
            name: what the graph is called.
        """
        return self._ov.Model([output], list(self._inputs.values()), name)

    def input_ids(self) -> Any:
        """Return the token ids, (r, t) int64."""
        return self._input("input_ids")

    def attention_mask(self) -> Any:
        """Return 1 for tokens and 0 for padding, (r, t) int64."""
        return self._input("attention_mask")

    def token_type_ids(self) -> Any:
        """Return the token types, (r, t) int64."""
        return self._input("token_type_ids")

    def _input(self, name: str) -> Any:
        if name not in self._inputs:
            made = self._op.parameter([-1, -1], self._ov.Type.i64, name)
            made.output(0).set_names({name})
            self._inputs[name] = made
        return self._inputs[name]

    def rows(self, table: "Array", ids: Any) -> Any:
        """Return the rows of a (n, d) table by ids, (…, d).

        Args:
            table: (n, d).
            ids: any shape, int64.
        """
        op, first = self._op, self._integers([0])
        if self._blocks and (made := in_blocks(table)):
            integers, scales = (op.gather(self._constant(each), ids, first) for each in made)
            wide = op.reshape(op.multiply(op.convert(integers, "f32"), scales), self._integers([0, 0, -1]), True)
            return self._narrow(wide, table.shape[1], 2)
        return op.gather(self._constant(table), ids, first)

    def first_token(self, value: Any) -> Any:
        """Return the vector of each text's first token, (r, d), of (r, t, d)."""
        return self._op.gather(value, self._op.constant(0, self._ov.Type.i64), self._integers([1]))

    def mean_of_tokens(self, value: Any, mask: Any) -> Any:
        """Return the mean of the vectors of each text's tokens, (r, d), without the padding.

        Args:
            value: (r, t, d).
            mask: (r, t).
        """
        op, axis = self._op, self._integers([1])
        kept = op.unsqueeze(op.convert(mask, "f32"), self._integers([2]))
        return op.divide(op.reduce_sum(op.multiply(value, kept), axis), op.reduce_sum(kept, axis))

    def add(self, one: Any, other: Any) -> Any:
        """Add, with broadcasting.

        Args:
            one: a value.
            other: a value.
        """
        return self._op.add(one, other)

    def multiply(self, one: Any, other: Any) -> Any:
        """Multiply value by value, with broadcasting.

        Args:
            one: a value.
            other: a value.
        """
        return self._op.multiply(one, other)

    def scale(self, value: Any, factor: float) -> Any:
        """Multiply by a number.

        Args:
            value: any shape.
            factor: the number.
        """
        return self._op.multiply(value, self._number(factor))

    def linear(self, value: Any, weight: "Array", bias: "Array | None") -> Any:
        """Return value · weightᵀ + bias.

        Args:
            value: (…, d).
            weight: (e, d), as torch stores it.
            bias: (e,), or None.
        """
        made = self._op.matmul(value, self._table(weight), transpose_a=False, transpose_b=True)
        return made if bias is None else self._op.add(made, self._constant(bias))

    def layer_norm(self, value: Any, scale: "Array", bias: "Array | None", epsilon: float) -> Any:
        """Normalise the last axis to mean 0 and variance 1, then scale and shift.

        Args:
            value: (…, d).
            scale: (d,).
            bias: (d,), or None.
            epsilon: added to the variance.
        """
        made = self._op.mvn(value, self._integers([-1]), True, epsilon, "inside_sqrt")
        made = self._op.multiply(made, self._constant(scale))
        return made if bias is None else self._op.add(made, self._constant(bias))

    def rms_norm(self, value: Any, scale: "Array", epsilon: float) -> Any:
        """Divide the last axis by its root mean square, then scale; in the form that OpenVINO fuses.

        Args:
            value: (…, d).
            scale: (d,).
            epsilon: added to the mean square.
        """
        op = self._op
        mean = op.reduce_mean(op.power(value, self._number(2.0)), self._integers([-1]), keep_dims=True)
        root = op.sqrt(op.add(mean, self._number(epsilon)))
        return op.multiply(op.multiply(value, op.divide(self._number(1.0), root)), self._constant(scale))

    def activate(self, value: Any, activation: Activation) -> Any:
        """Apply an activation function.

        Args:
            value: any shape.
            activation: its name.
        """
        if activation in ("relu", "tanh"):
            return getattr(self._op, activation)(value)
        if activation == "silu":
            return self._op.swish(value)
        return self._op.gelu(value, "erf" if activation == "gelu" else "tanh")

    def attention(self, query: Any, key: Any, value: Any, bias: Any, heads: int) -> Any:
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

    def split_heads(self, value: Any, heads: int) -> Any:
        """Return (r, h, t, k) of (r, t, h·k).

        Args:
            value: (r, t, h·k).
            heads: h.
        """
        split = self._op.reshape(value, self._integers([0, 0, heads, -1]), special_zero=True)
        return self._op.transpose(split, self._integers([0, 2, 1, 3]))

    def repeat_heads(self, value: Any, heads: int, times: int) -> Any:
        """Return each head several times in a row, (r, h·times, t, k).

        Args:
            value: (r, h, t, k).
            heads: h.
            times: how often.
        """
        order = [place // times for place in range(heads * times)]
        return self._op.gather(value, self._integers(order), self._integers([1]))

    def attend(self, query: Any, key: Any, value: Any, bias: Any, scale: float | None = None) -> Any:
        """Return softmax(query · keyᵀ · scale + bias) · value for each head, (r, t, h·k).

        Args:
            query: (r, h, t, k).
            key: (r, h, t, k).
            value: (r, h, t, k).
            bias: broadcastable to (r, h, t, t).
            scale: factor of the scores; None for 1 / √k.
        """
        factor = None if scale is None else self._number(scale)
        made = self._op.scaled_dot_product_attention(query, key, value, bias, factor)
        merged = self._op.transpose(made, self._integers([0, 2, 1, 3]))
        return self._op.reshape(merged, self._integers([0, 0, -1]), special_zero=True)

    def rotation(self, frequencies: "Array", length: int, ids: Any) -> Any:
        """Return what `rotate` needs: cosines and sines, each (1, 1, t, k), and k / 2.

        Args:
            frequencies: angle per position of each pair of values, (k / 2,).
            length: maximum of t.
            ids: (r, t).
        """
        import numpy as np

        positions = self.positions(ids)
        parts = (np.concatenate([table, table], axis=1) for table in tables(frequencies, length))
        rows = [self._op.unsqueeze(self.rows(part, positions), self._integers([1])) for part in parts]
        return (*rows, len(frequencies))

    def rotate(self, value: Any, rotation: Any) -> Any:
        """Turn each pair of values i and i + k / 2 by its angle; in the form that OpenVINO fuses.

        Args:
            value: (r, h, t, k).
            rotation: made by `rotation`.
        """
        op = self._op
        cosines, sines, half = rotation
        last, step = self._integers([3]), self._integers([1])
        first = op.slice(value, self._integers([0]), self._integers([half]), step, last)
        second = op.slice(value, self._integers([half]), self._integers([2 * half]), step, last)
        turned = op.concat([op.multiply(second, self._number(-1.0)), first], -1)
        return op.add(op.multiply(value, cosines), op.multiply(turned, sines))

    def distance_bias(self, ids: Any, before: int | None, after: int | None) -> Any:
        """Return 0 for tokens within a distance and `MASKING_NUMBER` for others, (1, 1, t, t).

        Args:
            ids: (r, t).
            before: maximum distance of a token that comes before; None without a limit.
            after: maximum distance of a token that comes after; None without a limit.
        """
        op = self._op
        places = self.positions(ids)
        ahead = op.subtract(op.unsqueeze(places, self._integers([1])), op.unsqueeze(places, self._integers([2])))
        outside = []
        if before is not None:
            outside.append(op.less(ahead, self._integers([-before])))
        if after is not None:
            outside.append(op.greater(ahead, self._integers([after])))
        masked = outside[0] if len(outside) == 1 else op.logical_or(*outside)
        return op.unsqueeze(op.select(masked, self._number(MASKING_NUMBER), self._number(0.0)), self._integers([1]))

    def mask_bias(self, mask: Any) -> Any:
        """Return 0 for tokens and `MASKING_NUMBER` for padding, (r, 1, t, t), of a mask (r, t)."""
        op = self._op
        inverted = op.subtract(self._number(1.0), op.convert(mask, "f32"))
        bias = op.multiply(inverted, self._number(MASKING_NUMBER))
        wide = op.unsqueeze(bias, self._integers([1, 2]))
        count = self._tokens(mask)
        shape = op.concat([self._integers([1]), self._integers([1]), count, self._integers([1])], 0)
        return op.broadcast(wide, shape, broadcast_spec="BIDIRECTIONAL")

    def positions(self, ids: Any) -> Any:
        """Return 0 … t-1, (1, t) int64, for ids (r, t)."""
        op = self._op
        count = op.squeeze(self._tokens(ids), self._integers([0]))
        made = op.range(op.constant(0, self._ov.Type.i64), count, op.constant(1, self._ov.Type.i64), "i64")
        return op.unsqueeze(made, self._integers([0]))

    def positions_after_padding(self, ids: Any, pad: int) -> Any:
        """Return the number of each token that is not padding, counted from pad + 1; pad for padding. (r, t) int64.

        Args:
            ids: (r, t).
            pad: the id of the padding.
        """
        op = self._op
        filled = op.convert(op.not_equal(ids, self._integers([pad])), "i64")
        counted = op.multiply(op.cumsum(filled, op.constant(1, self._ov.Type.i64)), filled)
        return op.add(counted, self._integers([pad]))

    def square_of(self, table: "Array", ids: Any) -> Any:
        """Return (1, h, t, t): a (h, n, n) table cut to the number of tokens of ids.

        Args:
            table: (h, n, n).
            ids: (r, t).
        """
        op, count = self._op, self._tokens(ids)
        stop = op.concat([count, count], 0)
        cut = op.slice(
            self._constant(table), self._integers([0, 0]), stop, self._integers([1, 1]), self._integers([1, 2])
        )
        return op.unsqueeze(cut, self._integers([0]))

    def _tokens(self, ids: Any) -> Any:
        """Return t, (1,) int64, of (r, t)."""
        return self._op.gather(self._op.shape_of(ids, "i64"), self._integers([1]), self._integers([0]))

    def _table(self, values: "Array") -> Any:
        """Return a (e, d) weight, in 8 bits if that was asked for, in the form that OpenVINO keeps so in memory."""
        if not (self._blocks and (made := in_blocks(values))):
            return self._constant(values)
        op, (integers, scales) = self._op, made
        wide = op.multiply(op.convert(self._constant(integers), "f32"), self._constant(scales))
        return self._narrow(op.reshape(wide, self._integers([len(values), -1]), False), values.shape[1], 1)

    def _narrow(self, value: Any, wide: int, axis: int) -> Any:
        """Cut the zeros after the last block off."""
        if not wide % BLOCK_VALUES:
            return value
        return self._op.slice(value, *(self._integers([each]) for each in (0, wide, 1, axis)))

    def _constant(self, values: "Array") -> Any:
        """Return numbers that stay in the memory that they are in; 16 bits become float32, as OpenVINO would make of them."""
        import numpy as np

        whole = values if values.dtype == np.int8 else as_float32(values)
        return self._ov.op.Constant(np.ascontiguousarray(whole), shared_memory=True)

    def _number(self, value: float) -> Any:
        return self._op.constant(value, self._ov.Type.f32)

    def _integers(self, values: list[int]) -> Any:
        return self._op.constant(values, self._ov.Type.i64)
