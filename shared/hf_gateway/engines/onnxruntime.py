"""ONNX Runtime: for machines without OpenVINO, and for models that include an ONNX file. In float32."""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_gateway.engines import cpus
from hf_gateway.engines.choosing import OPTIONS
from hf_gateway.engines.encoder import Batch
from hf_gateway.engines.forked import compute_guard, keep_in_children
from hf_gateway.engines.graphs import INPUT_NAMES, TOKEN_AXES, GraphEngine, Precision, chosen_output
from hf_gateway.engines.networks.onnx_messages import number_type
from hf_gateway.engines.networks.onnx_writer import OnnxWriter
from hf_gateway.engines.networks.safetensors import MappedFiles, read_tensors
from hf_gateway.engines.networks.writer import Network
from hf_gateway.errors import EngineFailed, EngineMissing
from hf_gateway.values.forks import fork_lock
from hf_gateway.values.logs import logger

if TYPE_CHECKING:
    from hf_gateway.engines.encoder import Array

__all__ = ["OPTIONS", "Engine"]

log = logger(__name__)

_OPSET = 17


class Engine(GraphEngine):
    """A loaded model. Thread-safe."""

    name = "onnxruntime"
    files = ("onnx/model.onnx", "model.onnx")
    entry_file = "model.onnx"

    @staticmethod
    def load_runtime() -> str:
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
        loaded = _identity(path)

        def load() -> Any:
            if _identity(path) != loaded:
                raise EngineFailed(
                    f"{path} changed after the process that this one was forked from loaded it: open the model again"
                )
            return _session(str(path), path, {})

        return Runner(load)

    def built_runner(self, network: Network, precision: Precision, *, blocks: bool = False) -> "Runner":
        """Build a network's graph of its weights and load it; see `built_runner`.

        Args:
            network: builds the graph.
            precision: ignored; float32 only.
            blocks: whether large weights are rounded to 8 bits.

        Raises:
            EngineFailed: the network is not supported, or its files are damaged.
        """
        return built_runner(network, precision, blocks=blocks)

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


def built_runner(
    network: Network,
    precision: Precision,  # noqa: ARG001 - there is one
    axes: Sequence[str] = TOKEN_AXES,
    *,
    blocks: bool = False,
) -> "Runner":
    """Build a network's graph of its weights, which stay in the memory that they are mapped into, and load it.

    Args:
        network: builds the graph.
        precision: ignored; float32 only.
        axes: names of the axes of its output.
        blocks: whether large weights are rounded to 8 bits.

    Raises:
        EngineFailed: the network is not supported, or its files are damaged.
    """
    writer = OnnxWriter(blocks=blocks)
    if blocks:
        log.info("onnxruntime: weights='int8' gives the vectors of such weights, but saves memory on openvino only")
    maps = MappedFiles()
    graph = writer.model(network(writer, partial(read_tensors, maps=maps)), axes)
    return Runner(partial(_session, graph, "the graph of its weights", writer.weights), 0, maps)


def _session(graph: bytes | str, named: object, weights: Mapping[str, "Array"]) -> Any:
    """Load a graph. Raises EngineFailed.

    Args:
        graph: the graph, or the path of its file.
        named: what it is called in an error.
        weights: weights that are not in the graph, by name.
    """
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if (threads := cpus.restricted()) is not None:
        options.intra_op_num_threads = threads
    try:
        if weights:
            value_of = onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type
            values = [value_of(np.ascontiguousarray(each), number_type(each)) for each in weights.values()]
            options.add_external_initializers(list(weights), values)
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the library's exceptions have no common base
        raise EngineFailed(f"{named} cannot be loaded: {type(error).__name__}: {error}") from error


def _identity(path: Path) -> tuple[int, int, int]:
    try:
        about = path.stat()
    except OSError as error:
        raise EngineFailed(f"{path} cannot be loaded: {type(error).__name__}: {error}") from error
    return about.st_ino, about.st_mtime_ns, about.st_size


class Runner:
    """A session of ONNX Runtime, loaded again in a process that was forked from the one that loaded it.

    An inherited session may hang: a thread of the parent that was about to take work from a queue holds the queue's lock in
    the child for ever.
    """

    def __init__(self, load: Callable[[], Any], output: int | None = None, maps: MappedFiles | None = None) -> None:
        """Load the session and find its inputs and output. Raises EngineFailed if they are not supported.

        Args:
            load: loads it; also called in a forked process, at its first use there.
            output: index of the output; by default that with the token vectors.
            maps: files that it reads.
        """
        self._maps = maps or MappedFiles()
        self._load = load
        self._loading = fork_lock()
        self._session, self._process = load(), os.getpid()
        keep_in_children(self._session)
        session = self._session
        self.inputs = [port.name for port in session.get_inputs()]
        if not INPUT_NAMES.issuperset(self.inputs):
            raise EngineFailed("its graph has inputs other than tokens and a mask")
        outputs = session.get_outputs()
        if output is None:
            output = chosen_output(
                [(frozenset({port.name}), len(port.shape) if port.shape else None) for port in outputs]
            )
        self._output = outputs[output].name

    def run(self, batch: Batch, take: Callable[["Array"], None]) -> None:
        """Compute the output; see `encoder.Runner`. Raises EngineFailed.

        Args:
            batch: the texts.
            take: receives it.
        """
        self._maps.check()
        fed = {"input_ids": batch.ids, "attention_mask": batch.mask, "token_type_ids": batch.types}
        try:
            with compute_guard.using("onnxruntime"):
                found = self._of_this_process().run([self._output], {name: fed[name] for name in self.inputs})
        except EngineFailed:
            raise
        except Exception as error:  # the library's exceptions have no common base
            raise EngineFailed(f"the model failed: {type(error).__name__}: {error}") from error
        take(found[0])
        self._maps.forget_pages()  # the runtime has its own form of most of them now

    def _of_this_process(self) -> Any:
        if self._process != os.getpid():
            with self._loading:
                if self._process != os.getpid():
                    # What it reads through its maps did not change; see `MappedFiles.check`.
                    self._session = self._load()
                    self._process = os.getpid()
                    keep_in_children(self._session)
        return self._session
