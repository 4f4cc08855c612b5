"""Base of the engines that run a graph: where it comes from, how it is checked, in which precision it runs.

A graph is, in this order, built from the model's weights if its family is known (`networks/`), at each start and without a copy
of them; taken from the cache; converted from the weights if torch is installed; or taken from the model's own repository. A
converted graph is compared with the original on the canary texts before it is used; the families that are built are compared
with transformers in the tests.
"""

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar, Literal

from hf_gateway.engines import converted, cpus, refuse_static, trust_of
from hf_gateway.engines.agreement import (
    MIN_FLOAT32_COSINE,
    MIN_HALF_COSINE,
    DifferentVectors,
    Embed,
    agreement,
    agreement_of_one,
    rows_of,
)
from hf_gateway.engines.converted import ConvertedModel, Notes
from hf_gateway.engines.encoder import Encoder, Runner
from hf_gateway.engines.layout import FAMILIES, read_layout
from hf_gateway.engines.networks.build import FAMILIES as BUILT_FAMILIES
from hf_gateway.engines.networks.build import build_network, build_refusal
from hf_gateway.engines.networks.writer import Network
from hf_gateway.engines.pooling import Head
from hf_gateway.engines.saved_space import read_space
from hf_gateway.engines.sources import ModelFiles, read_json
from hf_gateway.engines.tokenising import Tokenizer, check_files
from hf_gateway.errors import EngineFailed, EngineMissing
from hf_gateway.spaces.fingerprint import Rows
from hf_gateway.values.embedding import EmbedAnswer, EmbedRequest
from hf_gateway.values.logs import logger
from hf_gateway.values.usage import Usage
from hf_gateway.values.vector_space import VectorSpace
from hf_gateway.values.vectors import Vectors

log = logger(__name__)

Precision = Literal["fp32", "bf16"]

_DTYPES: Mapping[Any, Precision | None] = {
    None: None,
    "auto": None,
    "fp32": "fp32",
    "float32": "fp32",
    "bf16": "bf16",
    "bfloat16": "bf16",
}


TOKEN_AXES = ("texts", "tokens", "values")
"""Axes of the output of a graph for token vectors."""
INPUT_NAMES = frozenset({"input_ids", "attention_mask", "token_type_ids"})
"""Inputs that a graph may have."""


def chosen_output(ports: Sequence[tuple[frozenset[str], int | None]]) -> int:
    """Return the index of the output with the token vectors, by the names and the rank of each output. Raises EngineFailed."""
    deep = [place for place, (_, rank) in enumerate(ports) if rank == 3]
    named = [place for place in deep if ports[place][0] & {"last_hidden_state", "token_embeddings"}]
    if len(named) == 1 or len(deep) == 1:
        return (named or deep)[0]
    raise EngineFailed("it cannot be determined which output of its graph has the token vectors")


def wanted_precision(options: Mapping[str, Any], precisions: frozenset[Precision]) -> Precision | None:
    """Return the precision that the options name, or None.

    Args:
        options: the target's options.
        precisions: those that the runtime supports.

    Raises:
        EngineFailed: a device or a number type that is not supported.
    """
    if str(options.get("device") or "cpu") != "cpu":
        raise EngineFailed(f"it runs on the CPU, not on device={options['device']!r}")
    wanted = options.get("dtype")
    if wanted not in _DTYPES or (_DTYPES[wanted] or "fp32") not in precisions:
        raise EngineFailed(f"it does not support dtype={wanted!r}")
    return _DTYPES[wanted]


class GraphEngine:
    """A loaded model as a graph. Thread-safe. Subclasses define how their runtime converts, loads and runs it."""

    name: ClassVar[str]
    files: ClassVar[Sequence[str]]
    """File names of a graph in a repository, the best first."""
    entry_file: ClassVar[str]
    """File name of the graph in the cache of converted models."""
    precisions: ClassVar[frozenset[Precision]] = frozenset({"fp32"})

    def __init__(
        self, files: ModelFiles, space: VectorSpace, options: Mapping[str, Any], *, revision: str | None = None
    ) -> None:
        """Load the model; convert it first if necessary.

        Args:
            files: the model's files.
            space: vector space of the model, with its prompts.
            options: the target's options.
            revision: revision of the files.

        Raises:
            EngineMissing, EngineFailed: the model cannot be loaded.
            ConfigError: invalid options.
        """
        trust_of(files, options, revision)
        refuse_static(files)
        self._wanted = wanted_precision(options, self.precisions)
        self._blocks = options.get("weights") == "int8"
        self._space = space
        self._layout = read_layout(files)
        self._rows = int(options["batch_size"]) if "batch_size" in options else None
        self._version = self.load_runtime()
        self._head = Head(files.path, self._layout)
        self._source: Literal["built", "converted", "repository"] = "converted"
        self.precision: Precision = "fp32"
        self._encoder = self._open(files)

    # Defined by subclasses.

    @staticmethod
    def load_runtime() -> str:
        """Import the runtime and return its version. Raises EngineMissing."""
        raise NotImplementedError

    def runner(self, path: Path, precision: Precision, kept: Path | None = None) -> Runner:
        """Load a graph.

        Args:
            path: file of the graph.
            precision: number type of the computations.
            kept: folder in which the runtime may cache the compiled graph.

        Raises:
            EngineFailed: the graph cannot be loaded.
        """
        raise NotImplementedError

    def built_runner(self, network: Network, precision: Precision, *, blocks: bool = False) -> Runner:
        """Build a network's graph of its weights and load it.

        Args:
            network: builds the graph.
            precision: number type of the computations.
            blocks: whether large weights are in 8 bits.

        Raises:
            EngineFailed: the network is not supported, or its files are damaged.
        """
        raise NotImplementedError

    def convert(self, module: Any, example: Mapping[str, Any], path: Path) -> None:
        """Write the graph of a torch module.

        Args:
            module: maps token ids and mask to the tokens' vectors.
            example: example inputs by name.
            path: file to write.

        Raises:
            EngineMissing: a package for the conversion is missing.
            EngineFailed: the module cannot be converted.
            OSError: the file cannot be written.
        """
        raise NotImplementedError

    # Called by users of an engine.

    @property
    def dimension(self) -> int | None:
        """Values per vector."""
        return self._head.dimension

    @property
    def device(self) -> str:
        """Device that it runs on."""
        return "cpu"

    def embed(self, request: EmbedRequest) -> EmbedAnswer:
        """Embed n texts in one role into (n, dim) float32. Raises ContextOverflow unless `truncate`, EngineFailed."""
        prompt = self._space.query_prompt if request.role == "query" else self._space.document_prompt
        rows, tokens = self._encoder.encode(request.texts, prompt or "", truncate=request.truncate)
        flat = rows.astype("<f4", copy=False)
        return EmbedAnswer(Vectors.from_bytes(flat.tobytes(), flat.shape[1]), Usage(tokens))

    # Where the graph comes from.

    def _open(self, files: ModelFiles) -> Encoder:
        from hf_gateway.engines import originals

        key = converted.identity(files)
        place = converted.folder_of(key, self.name)
        weights = any(files.path.rglob("*.safetensors"))
        # Without torch the tensors of another family were not even downloaded: why it is not built is in its config.json.
        described = weights or self._layout.family not in BUILT_FAMILIES
        refused = build_refusal(files.path / self._layout.transformer) if described else None
        if weights and refused is None:
            try:
                return self._serve_built(files, Notes(key))
            except EngineFailed as error:
                refused = error
                self._source = "converted"
        if refused is not None:
            log.info("%s: %s is not built from its weights: %s", self.name, self._space.model, refused.message)
        if self._blocks:
            reason = refused.message if weights and refused else "there are no safetensors"
            raise EngineFailed(f"it has weights='int8' only for a graph built from weights, and here {reason}")
        convertible = weights and originals.torch_is_here()
        entry = converted.load(place)
        if entry is not None:
            try:
                return self._serve(entry, Notes(key))
            except EngineFailed as error:
                if not convertible:  # it cannot be made again here, and may work on another machine
                    raise
                log.warning("%s: the converted %s is converted again: %s", self.name, self._space.model, error)
                converted.discard(place)
        if convertible:
            with _beside(refused):
                entry = self._open_converted(files, key, place)
            return self._serve(entry, Notes(key))
        graph = next(
            (path for name in self.files if (path := files.path / self._layout.transformer / name).is_file()), None
        )
        if graph is not None:
            parts = sorted(graph.parent.glob(f"{graph.stem}*"))  # the weights may be in a file beside it
            return self._serve_unverified(files, graph, Notes(" ".join([key, *map(converted.content_of, parts)])))
        raise EngineMissing(self._no_graph(refused))

    def _no_graph(self, refused: EngineFailed | None) -> str:
        """Return what to do about a model without a graph that this machine cannot convert, and why none is built."""
        lacks = f"{self._space.model} has no weights here"
        if refused is not None:
            lacks = f"{self._space.model} has no ONNX file, its graph is not built from its weights ({refused.message})"
        return (
            f"{lacks}, and converting its safetensors needs torch, once: pip install 'hf-gateway[torch]', "
            "or set HF_GATEWAY_CONVERTED to the folder of a machine that has done it"
        )

    def _open_converted(self, files: ModelFiles, key: str, place: Path) -> ConvertedModel:
        """Convert the model, compare the result with the original, and store it."""
        from hf_gateway.engines import originals

        notes = Notes(key)
        versions = " ".join(
            [self._version, *(f"{each} {metadata.version(each)}" for each in ("torch", "transformers"))]
        )
        if refusal := notes.read("refused", self.name, versions):
            raise EngineFailed(str(refusal.get("why")))
        try:
            with converted.temporary_entry(place) as temporary:
                if (entry := converted.load(place)) is not None:
                    return entry  # converted by another process meanwhile
                log.info("%s: converting %s, once", self.name, self._space.model)
                original = originals.Original(files)
                self._refuse_overlong(original.max_tokens)
                reference = original.reference(VectorSpace(self._space.model))
                graph = temporary / self.entry_file
                originals.write_tokenizer(original, temporary)
                try:
                    with originals.tracing():
                        self.convert(*original.traceable(), graph)
                    tokenizer = temporary / "tokenizer.json"
                    made = self._encoder_of(tokenizer, original.max_tokens, lambda: self.runner(graph, "fp32"))
                    worst = agreement(reference.rows, _embedding(made), MIN_FLOAT32_COSINE)
                except EngineMissing:
                    raise
                except EngineFailed as error:
                    notes.write("refused", self.name, versions, why=error.message)
                    raise
                del made  # so that nothing keeps files open that are about to be moved
                about = {"model": self._space.model, "engine": self.name, "versions": versions, "cosine": worst}
                entry = converted.keep(temporary, place, about, original.max_tokens, reference)
        except OSError as error:
            raise EngineFailed(f"the converted model cannot be stored: {error}") from error
        notes.write("same", *self._circumstances("fp32"), cosine=worst)
        return entry

    # How it runs.

    def _serve(self, entry: ConvertedModel, notes: Notes) -> Encoder:
        """Load a converted model."""

        def load(precision: Precision) -> Encoder:
            circumstances = "\0".join(self._circumstances(precision)).encode()
            kept = entry.folder / f"{precision}-{hashlib.blake2b(circumstances, digest_size=8).hexdigest()}"
            graph = entry.folder / self.entry_file
            return self._encoder_of(entry.tokenizer, entry.max_tokens, lambda: self.runner(graph, precision, kept))

        return self._fastest(load, entry.reference.rows, notes)

    def _serve_built(self, files: ModelFiles, notes: Notes) -> Encoder:
        """Build the graph of the model's weights, without torch."""
        tokenizer = check_files(files.path, self._layout)
        limit = read_space(lambda name: read_json(files.path / name), self._space.model).max_tokens
        network = partial(build_network, files.path / self._layout.transformer)
        self._source = "built"

        def load(precision: Precision) -> Encoder:
            return self._encoder_of(
                tokenizer, limit, lambda: self.built_runner(network, precision, blocks=self._blocks)
            )

        def whole() -> Rows:
            return rows_of(_embedding(self._encoder_of(tokenizer, limit, lambda: self.built_runner(network, "fp32"))))

        return self._fastest(load, whole if self._blocks else None, notes)

    def _serve_unverified(self, files: ModelFiles, graph: Path, notes: Notes) -> Encoder:
        """Load a repository's own graph, without the original to compare it with."""
        if self._layout.family not in FAMILIES:
            raise EngineFailed(
                f"a graph of the family {self._layout.family!r} is used only if torch is installed to compare it"
            )
        self._source = "repository"
        tokenizer = check_files(files.path, self._layout)
        limit = read_space(lambda name: read_json(files.path / name), self._space.model).max_tokens
        log.info(
            "%s: %s runs %s from its repository; without torch it cannot be compared with the original",
            self.name,
            self._space.model,
            graph.relative_to(files.path),
        )

        def load(precision: Precision) -> Encoder:
            return self._encoder_of(tokenizer, limit, lambda: self.runner(graph, precision))

        return self._fastest(load, None, notes)

    def _fastest(
        self, load: Callable[[Precision], Encoder], reference: Rows | Callable[[], Rows] | None, notes: Notes
    ) -> Encoder:
        """Load in the fastest precision in which the canaries have the vectors of `reference`, or else of float32."""
        if self._wanted is not None:
            encoder = load(self._wanted)
            if reference is not None and (self._blocks or self._wanted == "fp32"):
                self._check(encoder, self._wanted, reference, notes)
            self.precision = self._wanted
            return encoder
        if "bf16" in self.precisions and cpus.has_bf16():
            encoder = load("bf16")
            try:
                self._check(encoder, "bf16", reference or (lambda: rows_of(_embedding(load("fp32")))), notes)
            except DifferentVectors as error:
                log.info("%s: %s runs in float32, since in bfloat16 %s", self.name, self._space.model, error.message)
            else:
                self.precision = "bf16"
                return encoder
        encoder = load("fp32")
        if reference is not None:
            self._check(encoder, "fp32", reference, notes)
        return encoder

    def _check(
        self, encoder: Encoder, precision: Precision, reference: Rows | Callable[[], Rows], notes: Notes
    ) -> None:
        """Compare the canaries with `reference`. Raises DifferentVectors.

        All of them the first time with this runtime on this kind of CPU; later one of them, which shows whether the
        files are unchanged and warms up the graph.
        """
        least = MIN_FLOAT32_COSINE if precision == "fp32" and not self._blocks else MIN_HALF_COSINE
        about = self._circumstances(precision)
        known = notes.read("same", *about)
        if known is None:
            rows = reference() if callable(reference) else reference
            try:
                cosine = agreement(rows, _embedding(encoder), least)
            except DifferentVectors as error:
                notes.write("same", *about, cosine=0.0, why=error.message)
                raise
            notes.write("same", *about, cosine=cosine)
        elif not known.get("cosine"):
            raise DifferentVectors(str(known.get("why")))
        elif not callable(reference):
            agreement_of_one(reference, _embedding(encoder), least)

    def _circumstances(self, precision: Precision) -> tuple[str, ...]:
        weights = ("int8",) if self._blocks else ()
        return self.name, self._version, self._source, cpus.signature(), precision, *weights

    def _refuse_overlong(self, limit: int | None) -> None:
        """Refuse a model whose tokenizer allows more tokens than it has positions for: a graph would compute wrong vectors."""
        places = self._layout.positions
        if places is not None and (limit is None or limit > places):
            raise EngineFailed(
                f"it has positions for {places} tokens, but its tokenizer allows {limit or 'any number'}"
            )

    def _encoder_of(self, tokenizer: Path, limit: int | None, load: Callable[[], Runner]) -> Encoder:
        self._refuse_overlong(limit)
        tokeniser = Tokenizer(tokenizer, limit)
        layout = self._layout
        return Encoder(tokeniser, self._head, load(), limit, layout.pad, layout.vocabulary, self._rows)


@contextlib.contextmanager
def _beside(refused: EngineFailed | None) -> Iterator[None]:
    """Add to an error of the conversion why no graph is built of the weights: it may be the cause of both."""
    try:
        yield
    except EngineMissing:
        raise
    except EngineFailed as error:
        if refused is None or refused.message in error.message:
            raise
        raise EngineFailed(f"{error.message}; and {refused.message}") from error


def _embedding(encoder: Encoder) -> Embed:
    return lambda texts: encoder.encode(texts, truncate=True)[0]
