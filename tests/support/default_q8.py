"""The file that transformers.js would take by default: a graph quantised dynamically to 8 bits, as by its own converter."""

from functools import partial
from pathlib import Path
from typing import Any

from hf_gateway.engines.sources import ModelFiles
from tests.support.late import COLLECTED

if COLLECTED:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    from hf_gateway.engines.graphs import TOKEN_AXES
    from hf_gateway.engines.layout import read_layout
    from hf_gateway.engines.networks.browser_onnx import BrowserWriter
    from hf_gateway.engines.networks.build import build_network
    from hf_gateway.engines.networks.safetensors import MappedFiles, read_tensors


def default_q8(files: ModelFiles, folder: Path) -> bytes:
    """Return the quantised graph, made in a folder."""

    class PlainWriter(BrowserWriter):
        """Writes weights in float32, turned around already, so that the quantisation finds them."""

        def linear(self, value: str, weight: Any, bias: Any) -> str:
            made = self._node("MatMul", [value, self._weight(weight.T.copy())])
            return made if bias is None else self._node("Add", [made, self._weight(bias)])

        def _matrix(self, values: Any) -> str:
            return self._weight(values)

    maps, writer = MappedFiles(), PlainWriter()
    network = build_network(files.path / read_layout(files).transformer, writer, partial(read_tensors, maps=maps))
    plain, quantised = folder / "plain.onnx", folder / "quantised.onnx"
    plain.write_bytes(writer.model(network, TOKEN_AXES))
    onnx.checker.check_model(str(plain))
    quantize_dynamic(plain, quantised, weight_type=QuantType.QUInt8)
    return quantised.read_bytes()
