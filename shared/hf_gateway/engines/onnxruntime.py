"""ONNX Runtime: for machines without OpenVINO, and for models that include an ONNX file. In float32."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_gateway.engines import cpus
from hf_gateway.engines.choosing import OPTIONS
from hf_gateway.engines.encoder import Batch
from hf_gateway.engines.forked import compute_guard, keep_in_children
from hf_gateway.engines.graphs import INPUT_NAMES, GraphEngine, Precision, chosen_output
from hf_gateway.engines.networks.build import build_network
from hf_gateway.engines.networks.onnx_writer import OnnxWriter
from hf_gateway.errors import EngineFailed, EngineMissing

if TYPE_CHECKING:
    from hf_gateway.engines.encoder import Array

__all__ = ["OPTIONS", "Engine"]

_OPSET = 17


class Engine(GraphEngine):
    """A loaded model. Thread-safe."""

    name = "onnxruntime"
    files = ("onnx/model.onnx", "model.onnx")
    entry_file = "model.onnx"

    def load_runtime(self) -> str:
        """Import ONNX Runtime and return its version. Raises EngineMissing."""
        try:
            import onnxruntime
        except (ImportError, OSError) as error:
            raise EngineMissing(
                f"onnxruntime is missing or broken here ({error}): pip install 'hf-gateway[local]'"
            ) from None
        return str(onnxruntime.__version__)

    def runner(self, path: Path, precision: Precision, kept: Path | None = None) -> "Runner":  # noqa: ARG002 - one, none
        """Load a graph.

        Args:
            path: file of the graph.
            precision: ignored; float32 only.
            kept: ignored; nothing is cached.

        Raises:
            EngineFailed: the graph cannot be loaded.
        """
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if (threads := cpus.restricted()) is not None:
            options.intra_op_num_threads = threads
        try:
            return Runner(onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]))
        except Exception as error:  # the library's exceptions have no common base
            raise EngineFailed(f"{path} cannot be loaded: {type(error).__name__}: {error}") from error

    def write_network(self, folder: Path, path: Path) -> None:
        """Write the graph of a network that is built from its weights.

        Args:
            folder: folder with config.json and safetensors.
            path: file to write; large weights are written into a file beside it.

        Raises:
            EngineFailed: the network is not supported, or its files are damaged.
            OSError: the file cannot be written.
        """
        writer = OnnxWriter()
        writer.save(build_network(folder, writer), path)

    def convert(self, module: Any, example: Mapping[str, Any], path: Path) -> None:
        """Write the graph of a torch module.

        Args:
            module: maps token ids and mask to the tokens' vectors.
            example: example inputs by name.
            path: file to write.

        Raises:
            EngineMissing: the package onnx is missing.
            EngineFailed: the module cannot be converted.
            OSError: the file cannot be written.
        """
        import torch

        try:
            import onnx  # noqa: F401 - torch's exporter needs it, and reports it less clearly
        except ImportError:
            raise EngineMissing("converting a model for onnxruntime needs onnx, once: pip install onnx") from None
        names = [*example, "last_hidden_state"]
        try:
            torch.onnx.export(
                module,
                tuple(example.values()),
                str(path),
                dynamo=False,  # the other exporter needs onnxscript as well
                input_names=list(example),
                output_names=["last_hidden_state"],
                dynamic_axes={name: {0: "texts", 1: "tokens"} for name in names},
                opset_version=_OPSET,
            )
        except OSError:
            raise
        except Exception as error:  # raised for operations that ONNX does not have
            raise EngineFailed(f"it cannot be converted: {type(error).__name__}: {error}") from error


class Runner:
    """A session of ONNX Runtime."""

    def __init__(self, session: Any) -> None:
        """Find the graph's inputs and output. Raises EngineFailed if they are not supported."""
        self._session = session
        keep_in_children(self)
        self._inputs = [port.name for port in session.get_inputs()]
        if not INPUT_NAMES.issuperset(self._inputs):
            raise EngineFailed("its graph has inputs other than tokens and a mask")
        outputs = session.get_outputs()
        found = chosen_output([(frozenset({port.name}), len(port.shape) if port.shape else None) for port in outputs])
        self._output = outputs[found].name

    def run(self, batch: Batch, take: Callable[["Array"], None]) -> None:
        """Compute the token vectors; see `encoder.Runner`. Raises EngineFailed.

        Args:
            batch: the texts.
            take: receives the vectors.
        """
        fed = {"input_ids": batch.ids, "attention_mask": batch.mask, "token_type_ids": batch.types}
        try:
            with compute_guard.using("onnxruntime"):
                found = self._session.run([self._output], {name: fed[name] for name in self._inputs})
        except EngineFailed:
            raise
        except Exception as error:  # the library's exceptions have no common base
            raise EngineFailed(f"the model failed: {type(error).__name__}: {error}") from error
        take(found[0])
