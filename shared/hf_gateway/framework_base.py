"""What both frameworks' classes have in common: the chain behind them, built when an instance is made and not before.

Importing a class costs the settings alone; the chain's rooms are imported with the first instance.
"""

import contextlib
from typing import TYPE_CHECKING, Any

from hf_gateway.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, Generator, Iterable, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path
    from typing import Self

    from hf_gateway.gateway import Gateway
    from hf_gateway.settings.base import ChainOptions
    from hf_gateway.spaces.index_lock import IndexLock
    from hf_gateway.tasks.chat.gateway import ChatGateway
    from hf_gateway.tasks.embedding.gateway import EmbeddingGateway
    from hf_gateway.tasks.status import TargetStatus
    from hf_gateway.values.embedding import Role
    from hf_gateway.values.vector_space import VectorSpace


def build_gateway(options: "ChainOptions", model: str | None) -> Any:
    """Build the chain that an instance's arguments describe; nothing is loaded or connected to.

    Args:
        options: the instance, whose class says by `task` what it is for.
        model: the model's name, which frameworks have under names of their own.

    Returns:
        The gateway of that task.

    Raises:
        ConfigError: arguments that make no sense.
    """
    from hf_gateway.tasks.registry import find_task

    task = find_task(options.task)
    return task.gateway_class.from_settings(task.settings.of(options, model))


def refuse_other_task(gateway: "Gateway", task: str, name: str) -> None:
    """Raise ConfigError for a gateway that is for another task than the class that is to stand on it.

    Args:
        gateway: what was given.
        task: what the class is for.
        name: the class.
    """
    from hf_gateway.tasks.registry import find_task

    if not isinstance(gateway.settings, find_task(task).settings):
        raise ConfigError(
            f"{name} is for {task}, and this gateway was built for {gateway.task}; build it as Gateway(..., task={task!r})"
        )


class GatewayMixin:
    """What an instance shows of the chain behind it, which it keeps in `_gateway`."""

    _gateway: "Gateway"

    @property
    def gateway(self) -> "Gateway":
        """The chain itself; its methods also tell who served, the tokens and what was tried."""
        return self._gateway

    def status(self) -> "list[TargetStatus]":
        """Say of each target whether it may be called now. Sends nothing."""
        return self._gateway.status()


class ChatMixin(GatewayMixin):
    """The same for chat."""

    _gateway: "ChatGateway"

    @property
    def gateway(self) -> "ChatGateway":
        """The chain itself; its methods return the target that served, the tokens and the attempts, too."""
        return self._gateway


class EmbeddingMixin(GatewayMixin):
    """The same for embeddings."""

    _gateway: "EmbeddingGateway"

    @property
    def gateway(self) -> "EmbeddingGateway":
        """The chain itself; its methods return the target that served, the tokens and the attempts, too."""
        return self._gateway

    @property
    def space(self) -> "VectorSpace":
        """The vector space; its `id` is a namespace for caches and indexes."""
        return self._gateway.space

    def model_copy(self, *, update: "Mapping[str, Any] | None" = None, deep: bool = False) -> "Self":
        """Copy, with changes if there are any; the copy is bound to the same space and the same index locks.

        Raises SpaceMismatch for changes with which it could not give vectors of that space.
        """
        copied: Self = super().model_copy(update=update, deep=deep)  # type: ignore[misc]
        if update:
            copied._gateway.bind_space(self._gateway.space_binding)
        return copied

    def embed_stream(
        self, texts: "Iterable[str]", *, role: "Role" = "document"
    ) -> "Generator[list[float], None, None]":
        """Embed any number of texts, as they come; gives dim floats for each, in order, and holds only what is on its way.

        What goes wrong is raised after the vectors of all texts before it were given; `Gateway.embed_stream` has the details.
        """
        with self._translated_errors():
            yield from self._gateway.embed_stream(texts, role=role)

    async def aembed_stream(
        self, texts: "Iterable[str] | AsyncIterable[str]", *, role: "Role" = "document"
    ) -> "AsyncGenerator[list[float], None]":
        """Do what `embed_stream` does without blocking the event loop; the texts may be waited for, too."""
        with self._translated_errors():
            async with contextlib.aclosing(self._gateway.aembed_stream(texts, role=role)) as rows:
                async for row in rows:
                    yield row

    def _translated_errors(self) -> "AbstractContextManager[None]":
        """Turn errors into what the framework knows, where it knows any."""
        return contextlib.nullcontext()

    def lock_index(self, path: "str | Path", *, adopt: bool = False) -> "IndexLock":
        """Lock an index, which is a folder, to the vector space: written the first time, compared ever after; sends nothing.

        adopt: take a folder that has files and no `space.json`; you say that it was made with this space.
        Raises SpaceMismatch for an index of another space, and ConfigError; `Gateway.lock_index` has the details.
        """
        return self._gateway.lock_index(path, adopt=adopt)
