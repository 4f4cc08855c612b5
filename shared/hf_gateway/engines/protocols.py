"""What a loaded model can do in this process, for each task, independent of the engine that runs it."""

from typing import Protocol

from hf_gateway.engines.generation import Generation
from hf_gateway.values.chat import ChatRequest
from hf_gateway.values.embedding import EmbedAnswer, EmbedRequest
from hf_gateway.values.image import ImageAnswer, ImageRequest
from hf_gateway.values.labels import ClassifyAnswer, ClassifyRequest
from hf_gateway.values.rerank import RerankAnswer, RerankRequest
from hf_gateway.values.sparse import SparseAnswer


class EmbeddingEngine(Protocol):
    """A loaded embedding model, independent of the engine that runs it."""

    name: str

    @property
    def device(self) -> str:
        """Device that it runs on."""

    @property
    def precision(self) -> str:
        """Number type of its computations: fp32, bf16, fp16."""

    @property
    def dimension(self) -> int | None:
        """Values per vector."""

    def embed(self, request: EmbedRequest) -> EmbedAnswer:
        """Embed n texts in one role into (n, dim) float32."""


class CrossEncoderEngine(Protocol):
    """A loaded model that scores pairs of texts."""

    name: str

    @property
    def device(self) -> str:
        """Device that it runs on."""

    @property
    def context(self) -> int | None:
        """Maximum tokens of a query with a document; None without a limit."""

    def rerank(self, request: RerankRequest) -> RerankAnswer:
        """Return the logit of each document. Raises ContextOverflow, EngineFailed."""


class SparseEngine(Protocol):
    """A loaded sparse model, independent of the engine that runs it."""

    name: str

    @property
    def device(self) -> str:
        """Device that it runs on."""

    def embed(self, request: EmbedRequest) -> SparseAnswer:
        """Embed n texts of one role."""


class ChatEngine(Protocol):
    """A loaded chat model, independent of the engine that runs it."""

    name: str

    @property
    def device(self) -> str:
        """Device that it runs on."""

    @property
    def context(self) -> int | None:
        """Maximum tokens of prompt and answer together; None if the model's files do not say."""

    def start(self, request: ChatRequest) -> Generation:
        """Prepare an answer, which is generated while it is read. Raises InvalidRequest."""


class ImageEngine(Protocol):
    """A loaded model that makes images, independent of the engine that runs it."""

    name: str

    @property
    def device(self) -> str:
        """Device that it runs on."""

    def draw(self, request: ImageRequest) -> ImageAnswer:
        """Make one image. Raises GatewayError."""


class ClassifyEngine(Protocol):
    """A loaded model for labels."""

    name: str

    @property
    def device(self) -> str:
        """Device that it runs on."""

    @property
    def context(self) -> int | None:
        """Maximum tokens of a text; None for a model for images."""

    def classify(self, request: ClassifyRequest) -> ClassifyAnswer:
        """Label texts or images. Raises InvalidRequest, ContextOverflow, Unsupported, EngineFailed."""
