"""Gateways: a chain of targets behind a few methods, for one task; the base of both frameworks' classes.

This module has what is the same for every task: the chain, its keys, its state, its observers, its end. The methods of a task are
in `tasks/<task>/gateway.py`.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeVar, Unpack, overload

from hf_gateway import activation
from hf_gateway.backends import Ability, open_ability
from hf_gateway.chain.attempt_log import AttemptLog
from hf_gateway.chain.effects import Steps
from hf_gateway.chain.fallback import Chain
from hf_gateway.chain.timeouts import Policy
from hf_gateway.errors import ConfigError
from hf_gateway.http.transport import HttpTransport
from hf_gateway.observing import observer
from hf_gateway.observing.observer import Observation, ObservedCall
from hf_gateway.observing.record import RequestDetails
from hf_gateway.runtime.driver import Clock, Driver, Transport, require_asyncio
from hf_gateway.runtime.effects import Effects
from hf_gateway.settings.base import NamedSettings
from hf_gateway.settings.chat import ChatArguments, ChatKeywords, ChatSettings
from hf_gateway.settings.config_file import key_policy_overrides
from hf_gateway.settings.embedding import EmbeddingArguments, EmbeddingKeywords, EmbedSettings
from hf_gateway.settings.fields import TargetsInput
from hf_gateway.tasks.candidate import TargetCandidate
from hf_gateway.tasks.given_key import targets_of_key
from hf_gateway.tasks.policies import policy_of
from hf_gateway.tasks.registry import DEFAULT_TASK, chosen_targets, find_task, task_names
from hf_gateway.tasks.status import TargetCheck, TargetStatus, check_target, status_of
from hf_gateway.values.logs import logger
from hf_gateway.values.target import Target

# The factory's results are defined on a higher floor, which only a type checker needs to see from here.
if TYPE_CHECKING:
    from hf_gateway.settings.classification import ClassifyArguments, ClassifyKeywords, ClassifySettings
    from hf_gateway.settings.image import ImageArguments, ImageKeywords, ImageSettings
    from hf_gateway.settings.rerank import RerankArguments, RerankKeywords, RerankSettings
    from hf_gateway.settings.sparse import SparseArguments, SparseKeywords, SparseSettings
    from hf_gateway.tasks.chat.gateway import ChatGateway
    from hf_gateway.tasks.classification.gateway import ClassifyGateway
    from hf_gateway.tasks.embedding.gateway import EmbeddingGateway
    from hf_gateway.tasks.image.gateway import ImageGateway
    from hf_gateway.tasks.rerank.gateway import RerankGateway
    from hf_gateway.tasks.sparse.gateway import SparseGateway

log = logger(__name__)

ResultT = TypeVar("ResultT")

PREPARED_S = 10.0
"""How long async calls use what was read from files; blocking calls read them each time."""
MAX_PROBE_S = 10.0
"""Maximum time for asking a target what it serves."""


class BaseGateway:
    """A chain, built, prepared, checked, observed and closed in the same way for every task.

    A task's gateway is a subclass of `Gateway` that names its `settings_class`, builds its candidates (`_build_candidates`) and
    the service of its calls (`_build_service`), and has methods that pass a request to that service.
    """

    settings_class: ClassVar[type[NamedSettings]]
    """The settings of the task."""
    ability_class: ClassVar[type[Ability]]
    """The class that a kind's ability for the task must be derived from."""
    settings: NamedSettings
    """The settings of the chain, including model and targets from the environment."""
    model: str | None
    """Hub id of the model, or a folder."""
    targets: tuple[Target, ...]
    """The targets in order of preference."""
    candidates: tuple[TargetCandidate, ...]
    """The targets with their servers, breakers and the checks of the task."""

    def __init__(
        self,
        model: str | None = None,
        targets: TargetsInput = None,
        *,
        task: str | None = None,
        transport: Transport | None = None,
        clock: Clock | None = None,
        **settings: Any,
    ) -> None:
        """Build the chain; nothing is loaded or connected to."""
        if task is not None and find_task(task).settings is not self.settings_class:
            raise ConfigError(f"{type(self).__name__} is for {self.settings_class.task}, not {task}")
        given = {"model": model, "targets": targets, **settings}
        self._build(self.settings_class.model_validate(given), transport, clock)

    def _build(self, settings: NamedSettings, transport: Transport | None = None, clock: Clock | None = None) -> None:
        self.model, given = chosen_targets(settings)
        self.targets = tuple(target.inheriting(self.model, settings.revision) for target in given)
        # With the values from the environment, so that a pickle of this gateway is the same chain elsewhere.
        self.settings = settings.model_copy(update={"model": self.model, "targets": self.targets})
        self._clock = clock or Clock()
        self._transport = transport or HttpTransport()
        self._driver = Driver(self._transport, self._clock, settings.connect_timeout)
        self._prepared_until = -math.inf
        self._last_fallback_reason: list[tuple[str, str]] = []
        self._observers: list[Callable[[Any], None]] = []
        rules = key_policy_overrides(settings.config)
        keyed = targets_of_key(self.targets, settings.api_key, settings)
        abilities = [
            open_ability(
                self.ability_class,
                target,
                settings,
                given_key=settings.api_key if target in keyed else None,
                rules=rules,
            )
            for target in self.targets
        ]
        self.candidates = tuple(self._build_candidates(abilities, given))
        self._chain = Chain(self.candidates, self._policy(), self._clock.now)
        self._build_service()
        activation.from_environment()
        observer.gateways.add(self)

    def _build_candidates(self, abilities: Sequence[Any], given: Sequence[Target]) -> Sequence[TargetCandidate]:
        """Return the candidates for abilities; `given` are the targets before they inherit the chain's model."""
        raise NotImplementedError

    def _build_service(self) -> None:
        """Build the service of the task's calls."""
        raise NotImplementedError

    def _policy(self) -> Policy:
        """Return the limits of time and number of the chain."""
        return policy_of(self.settings)

    @property
    def task(self) -> str:
        """Name of the task."""
        return self.settings.task

    def observe(self, observer: Callable[[Any], None]) -> None:
        """Register a function that is called with every result, before the caller gets it."""
        self._observers.append(observer)

    def status(self) -> list[TargetStatus]:
        """Return of each target whether it may be called now, why not, and until when. Sends no request."""
        return [status_of(candidate, self._clock.now()) for candidate in self.candidates]

    def check(self, index: int | None = None) -> list[TargetCheck]:
        """Ask each target what it serves, without letting it compute.

        Args:
            index: of the only target to ask; None for all.
        """
        self._prepare()
        asked = self.candidates if index is None else self.candidates[index : index + 1]
        return [check_target(candidate, self._clock.now, self._ask) for candidate in asked]

    def close(self) -> None:
        """Close connections and release models. The gateway can be used again afterwards."""
        self._release()
        if isinstance(self._transport, HttpTransport):
            self._transport.close()

    async def aclose(self) -> None:
        """Close, including the connections of this event loop."""
        require_asyncio()
        await asyncio.to_thread(self._release)
        if isinstance(self._transport, HttpTransport):
            await self._transport.aclose()

    def _release(self) -> None:
        for candidate in self.candidates:
            candidate.ability.close()

    def __enter__(self) -> Self:
        """Use as `with Gateway(...) as gateway`."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close."""
        self.close()

    async def __aenter__(self) -> Self:
        """Use as `async with Gateway(...) as gateway`."""
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Close."""
        await self.aclose()

    def __repr__(self) -> str:
        """Show the model and the chain."""
        return f"Gateway({self.model!r}, targets={[target.label for target in self.targets]})"

    def _ask(self, effects: Effects, target: str) -> Any:
        """Perform a request that lets a target compute nothing."""
        return self._driver.perform(effects, timeout=min(self.settings.attempt_timeout, MAX_PROBE_S), target=target)

    def _observed(self, result: ResultT) -> ResultT:
        """Call the observers with a result, and return it."""
        for notify in self._observers:
            notify(result)
        return result

    def _run(self, steps: Steps) -> Any:
        """Read files, then run the steps of a request, blocking; returns its result."""
        self._prepare()
        return self._driver.run(steps)

    async def _arun(self, steps: Steps) -> Any:
        """Like `_run`, without blocking the event loop."""
        await self._aprepare()
        return await self._driver.arun(steps)

    def _watch(self, details: RequestDetails[Any, Any], streamed: bool = False) -> ObservedCall:
        """Observe a request, from now on."""
        return ObservedCall(
            Observation(
                task=details.task,
                chain=self.settings.chain,
                model=self.model,
                targets=self.targets,
                streamed=streamed,
                time=time.time(),
                began=self._clock.now(),
                timeout=self.settings.timeout,
                details=details,
                **details.request_columns(),
            ),
            self._clock.now,
        )

    def _warn_of_fallback(self, run: str, name: str, attempt_log: AttemptLog) -> None:
        failures = [attempt for attempt in attempt_log.attempts if attempt.outcome != "served"]
        if failures and len(self.candidates) > 1:
            # A skipped target, for a missing key or an open breaker, is logged once; a failed call always.
            why = [(attempt.target, (attempt.error or "").partition(":")[0]) for attempt in failures]
            news = why != self._last_fallback_reason or any(attempt.outcome == "failed" for attempt in failures)
            self._last_fallback_reason = why
            if log.isEnabledFor(level := logging.WARNING if news else logging.DEBUG):
                told = "; ".join(f"{attempt.target}: {attempt.error}" for attempt in failures)
                log.log(level, "%s %s, since %s", run, name, told)

    async def _aprepare(self) -> None:
        require_asyncio()
        if time.monotonic() >= self._prepared_until:
            await asyncio.to_thread(self._prepare)

    def _prepare(self) -> None:
        """Read files: imports, certificates, model descriptions, logins."""
        if any(candidate.server.url is not None for candidate in self.candidates) and isinstance(
            self._transport, HttpTransport
        ):
            self._transport.prepare()
        for candidate in self.candidates:
            candidate.ability.prepare()
        self._prepared_until = time.monotonic() + PREPARED_S


class Gateway(BaseGateway):
    """A model, from the first of its targets that can serve it.

    Building one returns the gateway of the task: an `EmbeddingGateway`, a `ChatGateway`, a `RerankGateway`, an `ImageGateway`, a
    `ClassifyGateway`, a `SparseGateway`, or that of a task of another package.

    Example:
        ```python
        from hf_gateway import Gateway

        with Gateway(targets=["hash"]) as gateway:
            result = gateway.embed(["a text", "another"])
            print(len(result.vectors), result.served_by)
        ```

    Args:
        model: Hub id of the model, or a folder.
        targets: in order of preference; strings or `Target`s.
        task: "embedding", "chat", "rerank", "image", "classification" or "sparse"; methods, settings and checks depend on it.
        transport: sends the requests; by default over HTTP.
        clock: measures the time; by default the machine's.
        settings: the other fields of the task's settings, such as `timeout`, `api_key`, `temperature`.

    Raises:
        ConfigError: invalid settings.
        SpaceMismatch: targets that would answer in different vector spaces.
    """

    @overload
    def __new__(
        cls,
        model: str | None = None,
        targets: TargetsInput = None,
        *,
        task: Literal["embedding"] = "embedding",
        transport: Transport | None = None,
        clock: Clock | None = None,
        **settings: Unpack[EmbeddingKeywords],
    ) -> "EmbeddingGateway": ...
    @overload
    def __new__(
        cls,
        model: str | None = None,
        targets: TargetsInput = None,
        *,
        task: Literal["chat"],
        transport: Transport | None = None,
        clock: Clock | None = None,
        **settings: Unpack[ChatKeywords],
    ) -> "ChatGateway": ...
    @overload
    def __new__(
        cls,
        model: str | None = None,
        targets: TargetsInput = None,
        *,
        task: Literal["rerank"],
        transport: Transport | None = None,
        clock: Clock | None = None,
        **settings: "Unpack[RerankKeywords]",
    ) -> "RerankGateway": ...
    @overload
    def __new__(
        cls,
        model: str | None = None,
        targets: TargetsInput = None,
        *,
        task: Literal["image"],
        transport: Transport | None = None,
        clock: Clock | None = None,
        **settings: "Unpack[ImageKeywords]",
    ) -> "ImageGateway": ...
    @overload
    def __new__(
        cls,
        model: str | None = None,
        targets: TargetsInput = None,
        *,
        task: Literal["classification"],
        transport: Transport | None = None,
        clock: Clock | None = None,
        **settings: "Unpack[ClassifyKeywords]",
    ) -> "ClassifyGateway": ...
    @overload
    def __new__(
        cls,
        model: str | None = None,
        targets: TargetsInput = None,
        *,
        task: Literal["sparse"],
        transport: Transport | None = None,
        clock: Clock | None = None,
        **settings: "Unpack[SparseKeywords]",
    ) -> "SparseGateway": ...
    def __new__(
        cls,
        model: str | None = None,  # noqa: ARG004 - only the task is used here; `help` shows these
        targets: TargetsInput = None,  # noqa: ARG004
        *,
        task: str = DEFAULT_TASK,
        transport: Transport | None = None,  # noqa: ARG004
        clock: Clock | None = None,  # noqa: ARG004
        **settings: Any,  # noqa: ARG004
    ) -> Any:
        """Return an instance of the task's class."""
        return object.__new__(cls._class_for(task))

    @overload
    @classmethod
    def from_settings(
        cls, settings: EmbedSettings, *, transport: Transport | None = None, clock: Clock | None = None
    ) -> "EmbeddingGateway": ...
    @overload
    @classmethod
    def from_settings(
        cls, settings: ChatSettings, *, transport: Transport | None = None, clock: Clock | None = None
    ) -> "ChatGateway": ...
    @overload
    @classmethod
    def from_settings(
        cls, settings: "RerankSettings", *, transport: Transport | None = None, clock: Clock | None = None
    ) -> "RerankGateway": ...
    @overload
    @classmethod
    def from_settings(
        cls, settings: "ImageSettings", *, transport: Transport | None = None, clock: Clock | None = None
    ) -> "ImageGateway": ...
    @overload
    @classmethod
    def from_settings(
        cls, settings: "ClassifySettings", *, transport: Transport | None = None, clock: Clock | None = None
    ) -> "ClassifyGateway": ...
    @overload
    @classmethod
    def from_settings(
        cls, settings: "SparseSettings", *, transport: Transport | None = None, clock: Clock | None = None
    ) -> "SparseGateway": ...
    @overload
    @classmethod
    def from_settings(
        cls, settings: NamedSettings, *, transport: Transport | None = None, clock: Clock | None = None
    ) -> "Gateway": ...
    @classmethod
    def from_settings(
        cls, settings: NamedSettings, *, transport: Transport | None = None, clock: Clock | None = None
    ) -> "Gateway":
        """Build a gateway from settings.

        Args:
            settings: of the gateway's task.
            transport: sends the requests; by default over HTTP.
            clock: measures the time; by default the machine's.

        Returns:
            The gateway of that task.
        """
        made = object.__new__(cls._class_for(settings.task))
        made._build(settings, transport, clock)
        return made

    @overload
    @classmethod
    def from_config(
        cls,
        name: str,
        path: str | Path | None = None,
        *,
        task: Literal["embedding"] = "embedding",
        **changes: Unpack[EmbeddingArguments],
    ) -> "EmbeddingGateway": ...
    @overload
    @classmethod
    def from_config(
        cls, name: str, path: str | Path | None = None, *, task: Literal["chat"], **changes: Unpack[ChatArguments]
    ) -> "ChatGateway": ...
    @overload
    @classmethod
    def from_config(
        cls, name: str, path: str | Path | None = None, *, task: Literal["rerank"], **changes: "Unpack[RerankArguments]"
    ) -> "RerankGateway": ...
    @overload
    @classmethod
    def from_config(
        cls, name: str, path: str | Path | None = None, *, task: Literal["image"], **changes: "Unpack[ImageArguments]"
    ) -> "ImageGateway": ...
    @overload
    @classmethod
    def from_config(
        cls,
        name: str,
        path: str | Path | None = None,
        *,
        task: Literal["classification"],
        **changes: "Unpack[ClassifyArguments]",
    ) -> "ClassifyGateway": ...
    @overload
    @classmethod
    def from_config(
        cls, name: str, path: str | Path | None = None, *, task: Literal["sparse"], **changes: "Unpack[SparseArguments]"
    ) -> "SparseGateway": ...
    @overload
    @classmethod
    def from_config(cls, name: str, path: str | Path | None = None, *, task: str, **changes: Any) -> "Gateway": ...
    @classmethod
    def from_config(
        cls, name: str, path: str | Path | None = None, *, task: str = DEFAULT_TASK, **changes: Any
    ) -> "Gateway":
        """Build the chain `[chains.<name>]` of hf-gateway.toml.

        Args:
            name: of the chain.
            path: the file; by default the one in force.
            task: name of the task.
            changes: settings that override the file's.

        Returns:
            The gateway of that task.

        Raises:
            ConfigError: with file and line.
        """
        return cls.from_settings(find_task(task).settings.from_config(name, path, **changes))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the settings; connections, models and keys are left out."""
        return (type(self).from_settings, (self.settings,))

    @classmethod
    def _class_for(cls, task: str) -> type["Gateway"]:
        """Return the class of a task's gateways; of the class of one task, that class."""
        return find_task(task).gateway_class if cls is Gateway else cls

    if not TYPE_CHECKING:  # otherwise the type checker would accept any attribute

        def __getattr__(self, name: str) -> Any:
            """Raise an error for a method of another task's gateway that says how to build that one."""
            others = [] if name.startswith("_") or hasattr(type(self), name) else map(find_task, task_names())
            for other in others:
                if hasattr(other.gateway_class, name):
                    named = f"build it as Gateway(..., task={other.name!r})"
                    hint = f"for {other.title} leave task={self.task!r} out" if other.implied else named
                    raise ConfigError(f"this gateway was built for {find_task(self.task).title}; {hint}")
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)
