"""A third task, as another package would bring it: words are counted by a server of a kind of its own."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import urlsplit

from hf_gateway.backends import Ability, ProbeReport, Server
from hf_gateway.chain.attempt_log import AttemptLog
from hf_gateway.errors import BadResponse, BatchTooLarge, ConnectFailed
from hf_gateway.gateway import Gateway
from hf_gateway.observing import observer
from hf_gateway.observing.record import RequestDetails
from hf_gateway.runtime.effects import Effects, Send
from hf_gateway.settings.base import NamedSettings
from hf_gateway.tasks.base import Task
from hf_gateway.tasks.candidate import TargetCandidate
from hf_gateway.values.http import HttpResponse
from hf_gateway.values.hub_task import HubTask
from hf_gateway.values.kinds import Kind
from hf_gateway.values.result import Result
from hf_gateway.values.target import Target
from hf_gateway.values.task_facts import TaskFacts
from hf_gateway.values.usage import Usage
from hf_gateway.wire.http import get, post_json, read_json


class CountSettings(NamedSettings):
    """Settings of the task."""

    task: ClassVar[str] = "count"
    lower: bool = False


@dataclass(frozen=True)
class CountRequest:
    texts: Sequence[str]
    truncate: bool = False

    def split(self, _limit: BatchTooLarge) -> None:
        return None


@dataclass(frozen=True)
class CountAnswer:
    counts: Sequence[int]
    usage: Usage
    model: str | None = None
    provider: str | None = None
    request_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class CountResult(Result):
    counts: Sequence[int]


FACTS = TaskFacts(
    name=CountSettings.task,
    price_task="word-counting",
    operation="count",
    metric_group="count",
    units=("input_tokens",),
)


class CountDetails(RequestDetails[CountRequest, CountResult]):
    """What the ledger and spans may know of a request."""

    task = FACTS

    def request_columns(self) -> Mapping[str, Any]:
        return {"inputs": len(self.request.texts)}

    def span_attributes(self, *, content: bool) -> Mapping[str, Any]:
        return {"toy.words": sum(self.result.counts) if self.result else None}


class CountAbility(Ability):
    def __init__(self, server: Server, options: CountSettings) -> None:
        super().__init__(server, options)
        self.lower = options.lower

    def count(self, request: CountRequest) -> Effects:
        texts = [text.lower() if self.lower else text for text in request.texts]
        response = yield from self.server.ask(post_json(f"{self.server.base_url}/count", {"texts": texts}))
        answer = read_json(response, target=self.target.label)
        return CountAnswer(answer["counts"], Usage(answer["tokens"]), answer["model"])

    def probe(self) -> Effects:
        response = yield from self.server.ask(get(f"{self.server.base_url}/count"))
        return ProbeReport([read_json(response, target=self.target.label)["model"]])


class CountServer(Server):
    """The one kind that counts."""

    kind = Kind("counter", argument="url")
    abilities = {"count": CountAbility}


@dataclass(eq=False)
class CountCandidate(TargetCandidate):
    ability: CountAbility

    def answer(self, request: CountRequest) -> Effects:
        answer = yield from self.ability.count(request)
        if len(answer.counts) != len(request.texts):
            raise BadResponse("not one count for each text", target=self.label)
        return answer


class CountGateway(Gateway):
    """Counts words with the first of its targets that can."""

    settings_class: ClassVar[type[CountSettings]] = CountSettings
    ability_class: ClassVar[type[CountAbility]] = CountAbility
    settings: CountSettings

    def _build_candidates(self, abilities: Sequence[CountAbility], given: Sequence[Target]) -> list[CountCandidate]:
        return [CountCandidate(ability, alone=len(given) == 1) for ability in abilities]

    def _build_service(self) -> None:
        self._service = CountService(self)

    def count(self, texts: Sequence[str]) -> CountResult:
        self._prepare()
        return self._driver.run(self._service.steps(CountRequest(texts)))


class CountService:
    """Serves the calls of one gateway."""

    def __init__(self, gateway: CountGateway) -> None:
        self._gateway = gateway

    def steps(self, request: CountRequest) -> Effects:
        gateway = self._gateway
        if not observer.watchers:
            return (yield from self._serve(request, AttemptLog()))
        with gateway._watch(CountDetails(request)) as watch:
            yield from watch.wait_for_watchers()
            return watch.done((yield from self._serve(request, watch.attempt_log)))

    def _serve(self, request: CountRequest, attempt_log: AttemptLog) -> Effects:
        gateway = self._gateway
        ((answer, candidate),) = yield from gateway._chain.serve(request, attempt_log)
        gateway._warn_of_fallback("words counted by", candidate.label, attempt_log)
        return gateway._observed(
            CountResult(
                counts=answer.counts,
                served_by=candidate.label,
                attempts=tuple(attempt_log.attempts),
                usage=answer.usage,
            )
        )


class CountServers:
    """A transport with counting servers in it; a host that is not there refuses the connection."""

    def __init__(self, *hosts: str) -> None:
        self.hosts = hosts

    def send(self, send: Send, *, target: str, **_: Any) -> HttpResponse:
        host = urlsplit(send.request.url).netloc
        if host not in self.hosts:
            raise ConnectFailed(f"nothing answers at {host}", target=target)
        texts = json.loads(send.request.body)["texts"] if send.request.body else []
        counts = [len(text.split()) for text in texts]
        body = {"model": "toy/counter", "counts": counts, "tokens": sum(counts)}
        return HttpResponse(200, {"content-type": "application/json"}, json.dumps(body).encode())


TASK = Task(
    hub=HubTask(
        facts=FACTS,
        title="counts of words",
        is_for=lambda metadata: metadata.pipeline_tag == "word-counting",
        provider_tags=frozenset({"word-counting"}),
        engines=(),
    ),
    settings=CountSettings,
    gateway="tests.support.toy_task:CountGateway",
    environment_prefix="COUNT",
    default_targets="counter:http://one",
)
