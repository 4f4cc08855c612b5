"""ONNX Runtime: for machines without OpenVINO, and for models that come with an ONNX file. In float32."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_gateway.engines import cpus
from hf_gateway.engines.choosing import OPTIONS
from hf_gateway.engines.encoder import Batch
from hf_gateway.engines.forked import compute_guard
from hf_gateway.engines.graphs import INPUT_NAMES, GraphEngine, Precision, chosen_output
from hf_gateway.errors import EngineFailed, EngineMissing

if TYPE_CHECKING:
    from hf_gateway.engines.encoder import Array

__all__ = ["OPTIONS", "Engine"]

_OPSET = 17


class Engine(GraphEngine):
    """One loaded model. Safe for threads."""

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
        """Load a graph. Raises EngineFailed."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if (threads := cpus.restricted()) is not None:
            options.intra_op_num_threads = threads
        try:
            return Runner(onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]))
        except Exception as error:  # its own kinds have no common base
            raise EngineFailed(f"{path} cannot be loaded: {type(error).__name__}: {error}") from error

    def convert(self, module: Any, example: Mapping[str, Any], path: Path) -> None:
        """Write the graph of a torch module. Raises EngineMissing, EngineFailed, OSError."""
        import torch

        try:
            import onnx  # noqa: F401 - torch's exporter needs it, and would say so less clearly
        except ImportError:
            raise EngineMissing("converting a model for onnxruntime takes onnx, once: pip install onnx") from None
        names = [*example, "last_hidden_state"]
        try:
            torch.onnx.export(
                module,
                tuple(example.values()),
                str(path),
                dynamo=False,  # the other exporter takes onnxscript as well
                input_names=list(example),
                output_names=["last_hidden_state"],
                dynamic_axes={name: {0: "texts", 1: "tokens"} for name in names},
                opset_version=_OPSET,
            )
        except OSError:
            raise
        except Exception as error:  # whatever an operation without a counterpart raises
            raise EngineFailed(f"it cannot be converted: {type(error).__name__}: {error}") from error


class Runner:
    """A session."""

    def __init__(self, session: Any) -> None:
        """Look at what the graph takes and gives. Raises EngineFailed for a graph of another kind."""
        self._session = session
        self._inputs = [port.name for port in session.get_inputs()]
        if not INPUT_NAMES.issuperset(self._inputs):
            raise EngineFailed("its graph asks for more than tokens and a mask")
        outputs = session.get_outputs()
        found = chosen_output([(frozenset({port.name}), len(port.shape) if port.shape else None) for port in outputs])
        self._output = outputs[found].name

    def run(self, batch: Batch, take: Callable[["Array"], None]) -> None:
        """Compute; see `encoder.Runner`. Raises EngineFailed."""
        fed = {"input_ids": batch.ids, "attention_mask": batch.mask, "token_type_ids": batch.types}
        try:
            with compute_guard.using("onnxruntime"):
                found = self._session.run([self._output], {name: fed[name] for name in self._inputs})
        except EngineFailed:
            raise
        except Exception as error:  # its own kinds have no common base
            raise EngineFailed(f"the model failed: {type(error).__name__}: {error}") from error
        take(found[0])
