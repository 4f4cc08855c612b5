"""Every form of a call of every task behind one name, so that what holds for all of them is tested with the same lines."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import pytest

from hf_gateway import errors
from tests.servers import unit_vectors
from tests.servers.images import png
from tests.servers.labels import expected
from tests.servers.loopback import Fault, Loopback
from tests.servers.openai import FakeOpenAI
from tests.servers.rerank import probability, shared_words
from tests.servers.tei import FakeTEI
from tests.support import chatters, sparse
from tests.support.chatters import Chatter
from tests.support.classifiers import Classifier, same
from tests.support.embedders import Caller
from tests.support.image_callers import ImageCaller
from tests.support.rerank_callers import RerankCaller

Task = Literal["embedding", "chat", "image", "rerank", "classification", "sparse"]
PATHS: dict[Task, str] = {
    "embedding": "/v1/embeddings",
    "chat": "/v1/chat/completions",
    "image": "/v1/images/generations",
    "rerank": "/v1/rerank",
    "classification": "/v1/classify",
    "sparse": sparse.PATH,
}
FORMS: dict[Task, tuple[str, ...]] = {
    "embedding": ("sync", "async"),
    "chat": chatters.FORMS,
    "image": ("sync", "async"),
    "rerank": ("sync", "async"),
    "classification": ("blocking", "async"),
    "sparse": sparse.FORMS,
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


class SparseTaskCall:
    """Makes sparse vectors, in one of the forms."""

    task: Task = "sparse"

    def __init__(self, form: str, targets: Sequence[Any], **settings: Any) -> None:
        """Build the chain."""
        self._call = sparse.SparseCall(form, targets, **settings)
        self.gateway, self.clock = self._call.gateway, self._call.clock

    def served_by(self) -> str:
        """Call, check that the vector is right, and return the target that made it."""
        (label,) = self._call.served_by(["a cat"])
        return label

    def refused(self, error: type[errors.GatewayError]) -> Any:
        """Call, and return the error, which is of this class."""
        return self._call.refused(error, ["a cat"])


class SpladeServer(FakeTEI):
    """text-embeddings-inference with a SPLADE model, whose faults are those of the route for vectors unless a path is named."""

    def __init__(self) -> None:
        """Start it."""
        super().__init__(pooling="splade", model_id=sparse.MODEL)

    def fail(self, *faults: Fault, path: str | None = sparse.PATH) -> None:
        """Queue faults, each for one request."""
        super().fail(*faults, path=path)

    def always(self, fault: Fault, path: str | None = sparse.PATH) -> None:
        """Answer every request with this fault."""
        super().always(fault, path=path)


Call = EmbeddingCall | ChatCall | ImageCall | RerankCall | ClassifyCall | SparseTaskCall
_CALLS: dict[Task, type[Any]] = {
    each.task: each for each in (EmbeddingCall, ChatCall, ImageCall, RerankCall, ClassifyCall, SparseTaskCall)
}
Server = FakeOpenAI | SpladeServer
Make = Callable[..., Call]


def maker(task: Task, form: str) -> Make:
    """Return what builds a chain of this task, called in this form."""
    return functools.partial(_CALLS[task], form)


def counts(task: Task, *servers: Loopback) -> tuple[int, ...]:
    """Return how many requests of the task reached each server."""
    return tuple(server.count(PATHS[task]) for server in servers)


def server_for(task: Task) -> Server:
    """Start a server that has the task, and takes any model's name."""
    return SpladeServer() if task == "sparse" else FakeOpenAI(models=None)


def target_at(task: Task, url: str) -> str:
    """Return the target, and so the label, of a task's server."""
    return f"tei:{url}" if task == "sparse" else f"openai:{url}"
