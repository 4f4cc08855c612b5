"""OpenVINO: the fastest engine on CPUs, in bfloat16 where they support it. Converts torch models itself."""

import contextlib
import importlib
import os
import queue
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_gateway.engines import cpus
from hf_gateway.engines.choosing import OPTIONS
from hf_gateway.engines.encoder import Batch
from hf_gateway.engines.forked import compute_guard, keep_in_children
from hf_gateway.engines.graphs import INPUT_NAMES, TOKEN_AXES, GraphEngine, Precision, chosen_output
from hf_gateway.engines.networks.openvino_writer import OpenVinoWriter
from hf_gateway.engines.networks.safetensors import MappedFiles, read_tensors
from hf_gateway.engines.networks.writer import Network
from hf_gateway.errors import EngineFailed, EngineMissing
from hf_gateway.values.logs import logger

if TYPE_CHECKING:
    from hf_gateway.engines.encoder import Array

__all__ = ["OPTIONS", "Engine"]

log = logger(__name__)

_TOOLS = "openvino.tools.ovc"
_HINTS: Mapping[Precision, str] = {"fp32": "f32", "bf16": "bf16"}


class Engine(GraphEngine):
    """A loaded model. Thread-safe."""

    name = "openvino"
    files = ("openvino/openvino_model.xml", "onnx/model.onnx", "model.onnx")
    entry_file = "model.xml"
    precisions = frozenset({"fp32", "bf16"})

    @staticmethod
    def load_runtime() -> str:
        """Import OpenVINO and return its version. Raises EngineMissing."""
        try:
            return str(_import_openvino().__version__)
        except (ImportError, OSError) as error:
            raise EngineMissing(
                f"openvino is missing or broken here ({error}): pip install 'hf-gateway[local]'"
            ) from None

    def runner(self, path: Path, precision: Precision, kept: Path | None = None) -> "Runner":
        """Load a graph.

        Args:
            path: file of the graph.
            precision: number type of the computations.
            kept: folder in which the compiled graph is cached for the next process.

        Raises:
            EngineFailed: the graph cannot be loaded.
        """
        config = _settings(precision)
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

    def built_runner(self, network: Network, precision: Precision, *, blocks: bool = False) -> "Runner":
        """Build a network's graph of its weights and load it; see `built_runner`.

        Args:
            network: builds the graph.
            precision: number type of the computations.
            blocks: whether large weights are kept in 8 bits.

        Raises:
            EngineFailed: the network is not supported, or its files are damaged.
        """
        return built_runner(network, precision, blocks=blocks)

    def convert(self, module: Any, example: Mapping[str, Any], path: Path) -> None:
        """Write the graph of a torch module, in float32.

        Args:
            module: maps token ids and mask to the tokens' vectors.
            example: example inputs by name.
            path: file to write.

        Raises:
            EngineFailed: the module cannot be converted.
            OSError: the file cannot be written.
        """
        import openvino
        from openvino.frontend import FrontEndManager
        from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

        # Not openvino.convert_model, which reports each conversion to Intel if its telemetry is installed.
        try:
            frontend = FrontEndManager().load_by_framework("pytorch")
            decoder = TorchScriptPythonDecoder(module, example_input=dict(example))
            graph = frontend.convert(frontend.load(decoder))
        except Exception as error:  # of torch or OpenVINO, for an unknown operation
            raise EngineFailed(f"it cannot be converted: {type(error).__name__}: {_last_line(error)}") from error
        try:
            openvino.save_model(graph, path, compress_to_fp16=False)
        except RuntimeError as error:
            raise OSError(f"{path.parent}: {_last_line(error)}") from error


def built_runner(
    network: Network,
    precision: Precision,
    axes: Sequence[str] = TOKEN_AXES,  # noqa: ARG001 - the graph knows them
    *,
    blocks: bool = False,
) -> "Runner":
    """Build a network's graph of its weights, which stay in the memory that they are mapped into, and load it.

    Args:
        network: builds the graph.
        precision: number type of the computations.
        axes: ignored; the graph knows those of its output.
        blocks: whether large weights are kept in 8 bits.

    Raises:
        EngineFailed: the network is not supported, or its files are damaged.
    """
    openvino = _import_openvino()
    writer = OpenVinoWriter(openvino, blocks=blocks)
    maps = MappedFiles()
    graph = writer.model(network(writer, partial(read_tensors, maps=maps)), "network")
    settings = _settings(precision)
    if blocks:
        settings["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = 0  # otherwise it rounds the tokens' vectors, too
    try:
        return Runner(openvino.Core().compile_model(graph, "CPU", settings), 0, maps)
    except RuntimeError as error:
        raise EngineFailed(f"the graph of its weights cannot be loaded: {_last_line(error)}") from error


def _settings(precision: Precision) -> dict[str, Any]:
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": _HINTS[precision]}
    if (threads := cpus.restricted()) is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
        # It would bind the threads to the first CPUs, and so would every other process with some of the machine's.
        settings["ENABLE_CPU_PINNING"] = False
    return settings


def _import_openvino() -> Any:
    """Import OpenVINO without its conversion tools, which take most of the import time and include its telemetry.

    A later import of those tools still works.
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
    """Yield a folder for compiled graphs; a new one is filled under a temporary name, so that no process reads a partial one."""
    if folder.is_dir():
        yield folder
        return
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.{os.urandom(4).hex()}")
    temporary.mkdir()
    try:
        yield temporary
        with contextlib.suppress(OSError):  # another process was first
            temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


class Runner:
    """A compiled graph and its inference requests, each used by one thread at a time."""

    def __init__(self, compiled: Any, output: int | None = None, maps: MappedFiles | None = None) -> None:
        """Find the graph's inputs and output. Raises EngineFailed if they are not supported.

        Args:
            compiled: the compiled graph.
            output: index of the output; by default that with the token vectors.
            maps: files that it reads.
        """
        self._maps = maps or MappedFiles()
        self._compiled = compiled
        keep_in_children(self)
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.inputs = [next(iter(INPUT_NAMES & set(port.names)), None) for port in compiled.inputs]
        if None in self.inputs:
            raise EngineFailed("its graph has inputs other than tokens and a mask")
        if output is None:
            output = chosen_output([(frozenset(port.names), _rank(port)) for port in compiled.outputs])
        self._output = output

    def run(self, batch: Batch, take: Callable[["Array"], None]) -> None:
        """Compute the output; see `encoder.Runner`. Raises EngineFailed.

        Args:
            batch: the texts.
            take: receives it.
        """
        self._maps.check()
        try:
            request = self._idle.get_nowait()
        except queue.Empty:
            request = self._compiled.create_infer_request()
        fed = {"input_ids": batch.ids, "attention_mask": batch.mask, "token_type_ids": batch.types}
        try:
            with compute_guard.using("openvino"):
                request.infer([fed[str(name)] for name in self.inputs], share_inputs=True, share_outputs=True)
            take(request.get_output_tensor(self._output).data)
            self._maps.forget_pages()  # the runtime has its own form of most of them now
        except RuntimeError as error:
            raise EngineFailed(f"the model failed: {_last_line(error)}") from error
        finally:
            self._idle.put(request)


def _rank(port: Any) -> int | None:
    rank = port.partial_shape.rank
    return int(rank.get_length()) if rank.is_static else None


def _last_line(error: Exception) -> str:
    """Return the last line of a message: OpenVINO's begin with a location in its source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
