"""Searching the Hub over HTTP: models with their licences, and whether they fit the machine that this server runs on.

The search is that of `hf-gateway hub`, at the one Hub that the environment names and with the server's own token. Nothing is
downloaded, and no request names an address. A caller without the scope `admin` sees no private model.
"""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from hf_gateway.errors import GatewayError
from hf_gateway.hub.cached_files import default_cache
from hf_gateway.hub.compatibility import Compatibility, Verdict, check_model
from hf_gateway.hub.licenses import LicenseClass, license_of
from hf_gateway.hub.machine import Machine, this_machine
from hf_gateway.hub.needs import needs
from hf_gateway.server.dispatch.call import Answer, Call
from hf_gateway.server.dispatch.routing import Route
from hf_gateway.server.surfaces.admin import SURFACE
from hf_gateway.values.hub_model import ModelMetadata
from hf_gateway.wire.json import dumps_numbers

if TYPE_CHECKING:
    from hf_gateway.hub.connector import HubConnector

MAX_MODELS = 100
"""Maximum number of models of one search."""
MAX_CHECKED_MODELS = 20
"""Maximum number of models whose files are looked at for one search: each takes up to four requests to the Hub."""
PARALLEL_CHECKS_COUNT = 4
"""How many models are looked at at the same time."""
CHECKS_S = 30.0
"""Maximum seconds for looking at all of them."""


class HubQuery(BaseModel):
    """The query of GET /admin/hub/search."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    query: Annotated[str, Field(max_length=200)] = ""
    """Words in the model's id."""
    tags: Annotated[str, Field(max_length=500)] = ""
    """Tags that each model must have, such as `sentence-similarity,license:mit`; separated by commas."""
    sort: Literal["downloads", "likes", "trending", "updated"] = "downloads"
    """The order, descending."""
    limit: Annotated[int, Field(ge=1, le=MAX_MODELS)] = 20
    """Maximum number of models."""
    check: bool = False
    """Whether to look at the files and the configuration of the first 20 models, which takes requests to the Hub; without it
    the fit is estimated from what the list says."""


class HubGpu(BaseModel):
    """A GPU of the server's machine."""

    name: str
    """Its name."""
    total: int
    """Bytes of its memory."""
    free: int
    """Bytes of its memory that are free."""


class HubMachine(BaseModel):
    """What the server's machine has, in bytes; null where unknown."""

    memory: int | None
    """What a process may use."""
    available: int | None
    """The part of it that is not in use."""
    disk: int | None
    """Free disk in the downloads' folder."""
    gpus: list[HubGpu]
    """The GPUs."""


class HubLicense(BaseModel):
    """A model's licence."""

    identifier: str | None
    """The card's identifiers; null without a licence."""
    license_class: LicenseClass = Field(alias="class")
    """Its class; of several licences the strictest."""
    meaning: str
    """What it means for publishing an adapter."""
    name: str | None
    """The card's own name of another licence."""
    link: str | None
    """Where that licence is."""


class HubFit(BaseModel):
    """Whether a model fits the server's machine."""

    verdict: Verdict
    """The result for memory and disk."""
    checked: bool
    """Whether the model's files were looked at; otherwise it is an estimate from the list."""
    reasons: list[str]
    """The numbers behind it, in words."""
    problems: list[str]
    """What has to be done or decided before the model can be used."""
    weights: int | None
    """Bytes of the weights in memory."""
    memory: int | None
    """Bytes of memory in all, on the GPU if the machine has one."""
    download: int | None
    """Bytes of its files."""


class HubPrice(BaseModel):
    """USD per million tokens; null where unknown."""

    input: float | None
    """Of the prompt."""
    output: float | None
    """Of the answer."""


class HubTarget(BaseModel):
    """A target for a model."""

    target: str
    """As it is written in `targets`."""
    serves: bool | None
    """Whether it can serve the model; null if unknown."""
    why: str
    """The reason."""
    usd_per_million_tokens: HubPrice
    """Its prices."""


class HubModelRow(BaseModel):
    """A model of the Hub."""

    id: str
    """Its id."""
    task: str | None
    """The task of a chain that it is for; null for none."""
    pipeline_tag: str | None
    """The task, by the Hub's name."""
    library_name: str | None
    """The library that it is for."""
    downloads: int
    """Downloads of the last 30 days."""
    likes: int
    """Likes of all time."""
    trending: float | None
    """The Hub's trending score."""
    gated: Literal[False, "auto", "manual"] | None
    """Whether its licence has to be accepted first, and how access is granted; null if unknown."""
    private: bool
    """Whether it is visible to its owner only."""
    tags: list[str]
    """Its tags."""
    modified: str | None
    """When it was last changed."""
    license: HubLicense
    """Its licence."""
    fit: HubFit
    """Whether it fits this machine."""
    targets: list[HubTarget]
    """Which targets can serve it."""
    stale: str | None
    """Why these metadata are old; null if they are fresh."""


class HubSearchAnswer(BaseModel):
    """Models of the Hub."""

    source: Literal["hub", "cache"]
    """Who answered: the Hub, or the cache of metadata on this machine."""
    reason: str | None
    """Why the Hub did not."""
    machine: HubMachine
    """What the models have to fit."""
    models: list[HubModelRow]
    """The models, in the order that was asked for."""


async def search(call: Call) -> Answer:
    """Search the Hub, or the cache if the Hub cannot be reached."""
    from hf_gateway.hub.connector import HubConnector  # at the first search: the server starts without it

    asked: HubQuery = call.parse_query()
    tags = [tag for each in asked.tags.split(",") if (tag := each.strip())]
    async with HubConnector() as hub:
        found = await hub.asearch_models(asked.query, tags, asked.sort, asked.limit)
        shown = [each for each in found if not each.private or "admin" in call.caller.scopes]
        machine = await asyncio.to_thread(lambda: this_machine(default_cache()))
        checked = await _check(hub, [each.id for each in shown[:MAX_CHECKED_MODELS]]) if asked.check else {}
    rows = [_row(each, machine, checked.get(each.id)) for each in shown]
    answer = {"source": found.source, "reason": found.reason, "machine": machine.to_dict(), "models": rows}
    return Answer(dumps_numbers(answer), headers=[(b"cache-control", b"no-store")])


async def _check(hub: "HubConnector", models: Sequence[str]) -> dict[str, Compatibility]:
    """Look at the files of models; those that fail, or are not done in time, are left out."""
    found: dict[str, Compatibility] = {}
    free = asyncio.Semaphore(PARALLEL_CHECKS_COUNT)

    async def check(model: str) -> None:
        async with free:
            try:
                read = await hub.aget_model_metadata(model)
                if read is not None and read.complete:
                    found[model] = await hub.acheck_compatibility(model)
            except GatewayError:  # moved, gated or out of reach: its estimate is what is known
                return

    try:
        async with asyncio.timeout(CHECKS_S), asyncio.TaskGroup() as group:
            for model in models:
                group.create_task(check(model))
    except TimeoutError:
        pass
    return found


def _row(found: ModelMetadata, machine: Machine, checked: Compatibility | None) -> dict[str, Any]:
    fit = checked or check_model(found, needs(found), machine, None)
    return {
        "id": found.id,
        "task": fit.task,
        "pipeline_tag": found.pipeline_tag,
        "library_name": found.library_name,
        "downloads": found.downloads,
        "likes": found.likes,
        "trending": found.trending,
        "gated": found.gated,
        "private": found.private,
        "tags": list(found.tags),
        "modified": found.modified and found.modified.isoformat(),
        "license": license_of(found.license or None, found.card_data, found.gated).to_dict(),
        "fit": {
            "verdict": fit.verdict,
            "checked": checked is not None,
            "reasons": list(fit.reasons),
            "problems": list(fit.problems),
            "weights": fit.needs.weights,
            "memory": fit.needs.total if machine.gpus else fit.needs.total_on_cpu,
            "download": fit.needs.download,
        },
        "targets": [each.to_dict() for each in fit.targets],
        "stale": found.stale,
    }


ROUTES = (
    Route(
        "GET",
        "/admin/hub/search",
        SURFACE,
        "read",
        search,
        "Search the Hub, with licences and whether models fit this machine",
        query=HubQuery,
        answer=HubSearchAnswer,
        of_all=True,
        statuses=(500, 502),
        other_scopes=("admin",),
    ),
)
