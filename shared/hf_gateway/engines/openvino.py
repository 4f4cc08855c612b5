"""OpenVINO: the fastest engine on processors, in bfloat16 where they have it. Converts models of torch by itself."""

import contextlib
import importlib
import os
import queue
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_gateway.engines import cpus
from hf_gateway.engines.choosing import OPTIONS
from hf_gateway.engines.encoder import Batch
from hf_gateway.engines.forked import compute_guard
from hf_gateway.engines.graphs import INPUT_NAMES, GraphEngine, Precision, chosen_output
from hf_gateway.errors import EngineFailed, EngineMissing
from hf_gateway.values.logs import logger

if TYPE_CHECKING:
    from hf_gateway.engines.encoder import Array

__all__ = ["OPTIONS", "Engine"]

log = logger(__name__)

_TOOLS = "openvino.tools.ovc"
_HINTS: Mapping[Precision, str] = {"fp32": "f32", "bf16": "bf16"}


class Engine(GraphEngine):
    """One loaded model. Safe for threads."""

    name = "openvino"
    files = ("openvino/openvino_model.xml", "onnx/model.onnx", "model.onnx")
    entry_file = "model.xml"
    precisions = frozenset({"fp32", "bf16"})

    def load_runtime(self) -> str:
        """Import OpenVINO and return its version. Raises EngineMissing."""
        try:
            return str(_import_openvino().__version__)
        except (ImportError, OSError) as error:
            raise EngineMissing(
                f"openvino is missing or broken here ({error}): pip install 'hf-gateway[local]'"
            ) from None

    def runner(self, path: Path, precision: Precision, kept: Path | None = None) -> "Runner":
        """Load a graph. kept: where what OpenVINO compiled may lie, for the next process. Raises EngineFailed."""
        config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": _HINTS[precision]}
        if (threads := cpus.restricted()) is not None:
            config["INFERENCE_NUM_THREADS"] = threads
        core = _import_openvino().Core()
        try:
            if kept is not None:
                with _cache_in(kept) as folder:
                    return Runner(
                        core.compile_model(path, "CPU", {**config, "CACHE_MODE": "OPTIMIZE_SIZE", "CACHE_DIR": folder})
                    )
        except (OSError, RuntimeError) as error:
            log.info("openvino: %s is not used: %s", kept, _last_line(error))
        try:
            return Runner(core.compile_model(path, "CPU", config))
        except RuntimeError as error:
            raise EngineFailed(f"{path} cannot be loaded: {_last_line(error)}") from error

    def convert(self, module: Any, example: Mapping[str, Any], path: Path) -> None:
        """Write the graph of a torch module, in float32. Raises EngineFailed, OSError."""
        import openvino
        from openvino.frontend import FrontEndManager
        from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

        # Not openvino.convert_model: that reports each conversion to Intel, where its telemetry is installed.
        try:
            frontend = FrontEndManager().load_by_framework("pytorch")
            decoder = TorchScriptPythonDecoder(module, example_input=dict(example))
            graph = frontend.convert(frontend.load(decoder))
        except Exception as error:  # torch's or OpenVINO's, whichever does not know an operation
            raise EngineFailed(f"it cannot be converted: {type(error).__name__}: {_last_line(error)}") from error
        try:
            openvino.save_model(graph, path, compress_to_fp16=False)
        except RuntimeError as error:
            raise OSError(f"{path.parent}: {_last_line(error)}") from error


def _import_openvino() -> Any:
    """Import OpenVINO without its tools for converting models, which take longer than all the rest and bring its telemetry.

    Whoever asks for them later still gets them.
    """
    modules: dict[str, Any] = sys.modules
    hides = "openvino" not in modules
    if hides:
        modules[_TOOLS] = None  # this makes an import of it fail
    try:
        import openvino
    finally:
        if hides:
            del modules[_TOOLS]
    if hides:
        openvino.__dict__.setdefault("__getattr__", _lazy_module)
    return openvino


def _lazy_module(name: str) -> Any:
    if name == "convert_model":
        return importlib.import_module(_TOOLS).convert_model
    raise AttributeError(f"module 'openvino' has no attribute {name!r}")


@contextlib.contextmanager
def _cache_in(folder: Path) -> Iterator[Path]:
    """Give OpenVINO a folder to keep what it compiles, filled beside its place, so that no other process reads half of it."""
    if folder.is_dir():
        yield folder
        return
    passing = folder.with_name(f".{folder.name}.{os.getpid()}.{os.urandom(4).hex()}")
    passing.mkdir()
    try:
        yield passing
        with contextlib.suppress(OSError):  # another process was first
            passing.rename(folder)
    finally:
        shutil.rmtree(passing, ignore_errors=True)


class Runner:
    """A compiled graph and requests to run it, one a thread at a time."""

    def __init__(self, compiled: Any) -> None:
        """Look at what the graph takes and gives. Raises EngineFailed for a graph of another kind."""
        self._compiled = compiled
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._inputs = [next(iter(INPUT_NAMES & set(port.names)), None) for port in compiled.inputs]
        if None in self._inputs:
            raise EngineFailed("its graph asks for more than tokens and a mask")
        self._output = chosen_output([(frozenset(port.names), _rank(port)) for port in compiled.outputs])

    def run(self, batch: Batch, take: Callable[["Array"], None]) -> None:
        """Compute; see `encoder.Runner`. Raises EngineFailed."""
        try:
            request = self._idle.get_nowait()
        except queue.Empty:
            request = self._compiled.create_infer_request()
        fed = {"input_ids": batch.ids, "attention_mask": batch.mask, "token_type_ids": batch.types}
        try:
            with compute_guard.using("openvino"):
                request.infer([fed[str(name)] for name in self._inputs], share_inputs=True, share_outputs=True)
            take(request.get_output_tensor(self._output).data)
        except RuntimeError as error:
            raise EngineFailed(f"the model failed: {_last_line(error)}") from error
        finally:
            self._idle.put(request)


def _rank(port: Any) -> int | None:
    rank = port.partial_shape.rank
    return int(rank.get_length()) if rank.is_static else None


def _last_line(error: Exception) -> str:
    """OpenVINO's messages begin with where in its source it happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
