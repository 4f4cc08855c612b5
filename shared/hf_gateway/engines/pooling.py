"""Pools token vectors into text vectors, and applies the modules after the pooling, in numpy and float32."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_gateway.engines.layout import Layout, Mode
from hf_gateway.engines.networks.safetensors import read_tensors
from hf_gateway.engines.sources import read_json
from hf_gateway.errors import EngineFailed

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

_MIN_NORM = 1e-12
"""Minimum length in torch's normalize."""


class Head:
    """Pooling and the layers after it, for one model. Thread-safe."""

    def __init__(self, folder: Path, layout: Layout) -> None:
        """Read the weights of dense layers. Raises EngineFailed if they are missing, not safetensors, or of another shape."""
        self._modes = layout.pooling
        self._hidden = layout.hidden
        self._steps: list[Any] = []
        self.dimension: int = layout.hidden * len(self._modes)
        for step in layout.after:
            if isinstance(step, str):
                self._steps.append(step)
            else:
                weight, bias = _dense(folder / step.path, self.dimension)
                self._steps.append((weight, bias, step.activation))
                self.dimension = len(weight)
        self._whole, self.dimension = self.dimension, min(layout.cut or self.dimension, self.dimension)

    def __call__(self, hidden: "Array", mask: "Array") -> "Array":
        """Return the vectors of n texts, (n, dim) float32. Raises EngineFailed for token vectors of another size.

        Args:
            hidden: token vectors, (n, tokens, d) float32.
            mask: (n, tokens), 1 for a token of the text, 0 for padding.
        """
        import numpy as np

        if hidden.shape[-1] != self._hidden:
            raise EngineFailed(
                f"its graph has {hidden.shape[-1]} values per token, but config.json says {self._hidden}"
            )
        mask = mask.astype(np.float32)
        pooled = [_pool(mode, hidden, mask) for mode in self._modes]
        made = pooled[0] if len(pooled) == 1 else np.concatenate(pooled, axis=1)
        for step in self._steps:
            if isinstance(step, str):
                made = made / np.maximum(np.linalg.norm(made, axis=1, keepdims=True), _MIN_NORM)
            else:
                weight, bias, activation = step
                made = _activate(made @ weight.T + bias, activation)
        return made if self.dimension == self._whole else made[:, : self.dimension]


def _pool(mode: Mode, hidden: "Array", mask: "Array") -> "Array":
    import numpy as np

    if mode == "cls":
        return np.ascontiguousarray(hidden[:, 0])
    if mode == "lasttoken":
        count = mask.sum(1).astype(np.int64)
        last = hidden[np.arange(len(hidden)), count - 1]
        return np.where(count[:, None] > 0, last, np.float32(0))  # zeros for a text without tokens
    if mode == "max":
        highest: Array = np.max(hidden, axis=1, where=mask[:, :, None] > 0, initial=-np.inf)
        return highest
    weights = mask * np.arange(1, mask.shape[1] + 1, dtype=np.float32) if mode == "weightedmean" else mask
    total = weights.sum(1, keepdims=True)
    scale = np.sqrt(total) if mode == "mean_sqrt_len_tokens" else total
    # A product of a row and a matrix per text reads the tokens once and copies nothing.
    pooled: Array = np.matmul(weights[:, None, :], hidden)[:, 0] / np.maximum(scale, 1e-9)
    return pooled


def _activate(values: "Array", name: str) -> "Array":
    import numpy as np

    if name == "Tanh":
        return np.tanh(values)
    if name == "ReLU":
        return np.maximum(values, 0)
    if name == "Sigmoid":
        return 1 / (1 + np.exp(-values))
    return values


def _dense(folder: Path, width: int) -> tuple["Array", "Array"]:
    """Return the weight (out, in) and the bias (out,) of a dense layer with `width` inputs, in float32.

    Raises EngineFailed for a tensor that is missing, of another shape, or not of such a layer.
    """
    import numpy as np

    config: dict[str, Any] = read_json(folder / "config.json") or {}
    size = config.get("out_features")
    found = read_tensors(folder)
    shapes: dict[str, tuple[Any, ...]] = {"linear.weight": (size, config.get("in_features", width))}
    if config.get("bias", True):
        shapes["linear.bias"] = (size,)
    if odd := sorted(found.keys() ^ shapes.keys()):
        raise EngineFailed(
            f"{folder}: the tensor {odd[0]!r} is {'missing' if odd[0] in shapes else 'of another layer'}"
        )
    for name, shape in shapes.items():
        if found[name].shape != shape:
            raise EngineFailed(f"{folder}: the tensor {name!r} has the shape {found[name].shape}, not {shape}")
    # Copies: what lies in the file changes with it.
    weight: Array = np.array(found["linear.weight"].float32())
    if weight.shape[1] != width:
        raise EngineFailed(
            f"{folder}: its layer has {weight.shape[1]} inputs, but the layer before it has {width} outputs"
        )
    return weight, np.array(found["linear.bias"].float32()) if "linear.bias" in found else np.zeros(
        len(weight), np.float32
    )
