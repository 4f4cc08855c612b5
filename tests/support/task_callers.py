"""Every form of a call of every task behind one name, so that what holds for all of them is tested with the same lines."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import pytest

from hf_gateway import errors
from tests.servers import unit_vectors
from tests.servers.images import png
from tests.servers.labels import expected
from tests.servers.loopback import Loopback
from tests.servers.rerank import probability, shared_words
from tests.support import chatters
from tests.support.chatters import Chatter
from tests.support.classifiers import Classifier, same
from tests.support.embedders import Caller
from tests.support.image_callers import ImageCaller
from tests.support.rerank_callers import RerankCaller

Task = Literal["embedding", "chat", "image", "rerank", "classification"]
PATHS: dict[Task, str] = {
    "embedding": "/v1/embeddings",
    "chat": "/v1/chat/completions",
    "image": "/v1/images/generations",
    "rerank": "/v1/rerank",
    "classification": "/v1/classify",
}
FORMS: dict[Task, tuple[str, ...]] = {
    "embedding": ("sync", "async"),
    "chat": chatters.FORMS,
    "image": ("sync", "async"),
    "rerank": ("sync", "async"),
    "classification": ("blocking", "async"),
}
TASKS_AND_FORMS = [(task, form) for task, forms in FORMS.items() for form in forms]


class EmbeddingCall(Caller):
    """Embeds, in one of the forms. texts: what is sent."""

    task: Task = "embedding"

    def __init__(self, form: str, targets: Sequence[Any], *, texts: Sequence[str] = ("one",), **settings: Any) -> None:
        """Build the chain."""
        super().__init__(form == "async", targets, **settings)
        self._texts = list(texts)
        self._observed: list[Any] = []
        self.gateway.observe(self._observed.append)

    def served_by(self) -> str:
        """Call, check that the answer is whole, and return the target that gave it."""
        assert self.documents(self._texts) == unit_vectors(self._texts)
        (label,) = self._observed[-1].served_by
        return label

    def refused(self, error: type[errors.GatewayError]) -> Any:
        """Call, and return the error, which is of this class."""
        with pytest.raises(error) as caught:
            self.documents(self._texts)
        return caught.value


class ChatCall(Chatter):
    """Chats, in one of the forms."""

    task: Task = "chat"

    def served_by(self) -> str:
        """Call, check that there is an answer, and return the target that gave it."""
        result = self.ask()
        assert result.text
        return result.served_by

    def refused(self, error: type[errors.GatewayError]) -> Any:
        """Call, and return the error, which is of this class; no piece of an answer came before it."""
        with pytest.raises(error) as caught:
            self.ask()
        assert self.pieces == []
        return caught.value


class ImageCall(ImageCaller):
    """Draws, in one of the forms."""

    task: Task = "image"

    def served_by(self) -> str:
        """Call, check that the image is the one that was asked for, and return the target that made it."""
        result = self.generate("a cat")
        assert result[0].data == png("a cat")
        (label,) = result.served_by
        return label

    def refused(self, error: type[errors.GatewayError]) -> Any:
        """Call, and return the error, which is of this class."""
        with pytest.raises(error) as caught:
            self.generate("a cat")
        return caught.value


class RerankCall(RerankCaller):
    """Ranks, in one of the forms."""

    task: Task = "rerank"

    def served_by(self) -> str:
        """Call, check that the ranking is right, and return the target that gave it."""
        result = self.rerank("a cat", ["a cat"])
        assert [(hit.index, hit.document) for hit in result] == [(0, "a cat")]
        assert result[0].score == pytest.approx(probability(shared_words("a cat", "a cat")))
        (label,) = result.served_by
        return label

    def refused(self, error: type[errors.GatewayError]) -> Any:
        """Call, and return the error, which is of this class."""
        with pytest.raises(error) as caught:
            self.rerank("a cat", ["a cat"])
        return caught.value


class ClassifyCall(Classifier):
    """Classifies, in one of the forms."""

    task: Task = "classification"

    def served_by(self) -> str:
        """Call, check that the labels are right, and return the target that gave them."""
        result = self(["a cat"])
        assert same(result[0], expected("a cat"))
        (label,) = result.served_by
        return label

    def refused(self, error: type[errors.GatewayError]) -> Any:
        """Call, and return the error, which is of this class."""
        with pytest.raises(error) as caught:
            self(["a cat"])
        return caught.value


Call = EmbeddingCall | ChatCall | ImageCall | RerankCall | ClassifyCall
_CALLS: dict[Task, type[Any]] = {
    each.task: each for each in (EmbeddingCall, ChatCall, ImageCall, RerankCall, ClassifyCall)
}
Make = Callable[..., Call]


def maker(task: Task, form: str) -> Make:
    """Return what builds a chain of this task, called in this form."""
    return functools.partial(_CALLS[task], form)


def counts(task: Task, *servers: Loopback) -> tuple[int, ...]:
    """Return how many requests of the task reached each server."""
    return tuple(server.count(PATHS[task]) for server in servers)
