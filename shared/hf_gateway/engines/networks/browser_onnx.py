"""Writes a network as one ONNX file for browsers: standard operators alone, and large weights as 8-bit integers in blocks of 64.

The blocks are turned back into float32 before anything is computed, so that the vectors stay in the model's space; the dynamic
8 bits that browsers' libraries take by default round the other factor, too, and leave it.
Source: onnx.proto3 (github.com/onnx/onnx), operator set 17.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hf_gateway.engines.networks.numbers import BLOCK_VALUES, as_float32, in_blocks
from hf_gateway.engines.networks.onnx_messages import FLOAT, INT8, field, tensor, value_info
from hf_gateway.engines.networks.onnx_writer import OnnxWriter
from hf_gateway.engines.networks.rotary import tables
from hf_gateway.engines.networks.writer import Activation

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

OPSET = 17
IR_VERSION = 8
"""The version of the format that belongs to it."""
TOKENS, LOGITS = "last_hidden_state", "logits"
"""The names by which transformers.js finds the token vectors, and what a head for labels computes."""
_ERF_FACTOR = 0.7071067811865476
_TANH_FACTORS = (0.7978845608028654, 0.044715)


class BrowserWriter(OnnxWriter):
    """A `Writer` for onnxruntime-web. All weights are in the graph."""

    def model(self, output: str, axes: Sequence[str], name: str = TOKENS) -> bytes:
        """Return the finished file.

        Args:
            output: what it computes.
            axes: names of the axes of the output.
            name: of the output in the file.
        """
        self._node("Identity", [output], outputs=[name])
        graph = b"".join(
            [
                *(field(1, node) for node in self._nodes),
                field(2, "network"),
                *(field(5, each) for each in self._initializers),
                *(field(11, each) for each in self._inputs.values()),
                field(12, value_info(name, FLOAT, axes)),
            ]
        )
        opset = field(1, "") + field(2, OPSET)
        return field(1, IR_VERSION) + field(7, graph) + field(8, opset)

    def rows(self, table: "Array", ids: str) -> str:
        """Return the rows of a (n, d) table by ids, (…, d).

        Args:
            table: (n, d).
            ids: any shape, int64.
        """
        return self._node("Gather", [self._matrix(table), ids])

    def linear(self, value: str, weight: "Array", bias: "Array | None") -> str:
        """Return value · weightᵀ + bias.

        Args:
            value: (…, d).
            weight: (e, d), as torch stores it.
            bias: (e,), or None.
        """
        turned = self._node("Transpose", [self._matrix(weight)], perm=[1, 0])
        made = self._node("MatMul", [value, turned])
        return made if bias is None else self._node("Add", [made, self._weight(bias)])

    def rms_norm(self, value: str, scale: "Array", epsilon: float) -> str:
        """Divide the last axis by its root mean square, then scale.

        Args:
            value: (…, d).
            scale: (d,).
            epsilon: added to the mean square.
        """
        mean = self._node("ReduceMean", [self._node("Mul", [value, value])], axes=[-1], keepdims=1)
        root = self._node("Sqrt", [self._node("Add", [mean, self._number(epsilon)])])
        return self._node("Mul", [self._node("Div", [value, root]), self._weight(scale)])

    def activate(self, value: str, activation: Activation) -> str:
        """Apply an activation function.

        Args:
            value: any shape.
            activation: its name.
        """
        if activation == "gelu":
            share = self._node("Erf", [self.scale(value, _ERF_FACTOR)])
        elif activation == "gelu_tanh":
            outer, inner = _TANH_FACTORS
            cube = self._node("Mul", [self._node("Mul", [value, value]), value])
            share = self._node("Tanh", [self.scale(self.add(value, self.scale(cube, inner)), outer)])
        else:
            return super().activate(value, activation)
        return self.scale(self._node("Mul", [value, self._node("Add", [share, self._number(1.0)])]), 0.5)

    def rotation(self, frequencies: "Array", length: int, ids: str) -> Any:
        """Return what `rotate` needs: the cosines and the sines of the tokens' positions, each (t, k / 2).

        Args:
            frequencies: angle per position of each pair of values, (k / 2,).
            length: maximum of t.
            ids: (r, t).
        """
        places = self._node("Squeeze", [self.positions(ids), self._integers([0])])
        return [self._node("Gather", [self._weight(table), places]) for table in tables(frequencies, length)]

    def rotate(self, value: str, rotation: Any) -> str:
        """Turn each pair of values i and i + k / 2 by its angle at the position of the token.

        Args:
            value: (r, h, t, k).
            rotation: made by `rotation`.
        """
        cosines, sines = rotation
        halves = [self._name(), self._name()]
        self._node("Split", [value], outputs=halves, axis=-1)
        first, second = halves
        turned = (
            self._node("Sub", [self._node("Mul", [first, cosines]), self._node("Mul", [second, sines])]),
            self._node("Add", [self._node("Mul", [second, cosines]), self._node("Mul", [first, sines])]),
        )
        return self._node("Concat", list(turned), axis=-1)

    def _matrix(self, values: "Array") -> str:
        """Return a (e, d) weight as float32, which a large one becomes when the graph runs."""
        made = in_blocks(values)
        if made is None:
            return self._weight(values)
        integers, scales = made
        count, blocks, _ = integers.shape
        named = [self._name(), self._name()]
        self._initializers += [
            tensor(named[0], (count * blocks, BLOCK_VALUES), INT8, integers.tobytes()),
            tensor(named[1], (count * blocks,), FLOAT, scales.astype("<f4").tobytes()),
        ]
        whole = self._node("DequantizeLinear", named, axis=0)
        whole = self._node("Reshape", [whole, self._integers([count, blocks * BLOCK_VALUES])])
        if (wide := values.shape[1]) == blocks * BLOCK_VALUES:
            return whole
        return self._node("Slice", [whole, *(self._integers([each]) for each in (0, wide, 1))])

    def _stored(self, values: "Array") -> str:
        name = self._name()
        self._initializers.append(tensor(name, values.shape, FLOAT, as_float32(values).astype("<f4").tobytes()))
        return name
