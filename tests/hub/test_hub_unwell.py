"""A model that is not on this machine, and a Hub that is not well: the chain's next target answers, within seconds."""

import asyncio
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hf_gateway import Gateway, errors
from hf_gateway.engines import hub_files, sources
from hf_gateway.hub import cached_files, client
from tests.servers.hub import COMMIT, Listed, ReadHub
from tests.servers.loopback import Reply, dead_url, drip, hang, html, redirect
from tests.servers.openai import FakeOpenAI
from tests.support.publishing import safetensors

MODEL, WEIGHTS = "org/model", "model.safetensors"
AT_MOST = 10.0
"""Seconds for a chain, on a loaded machine; each of the Hub's limits is a fraction of one here."""


@pytest.fixture(autouse=True)
def _short_limits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(client, "TIMEOUT_S", 0.4)
    monkeypatch.setattr(hub_files, "METADATA_TIMEOUT_S", 1.0)
    monkeypatch.setattr(hub_files, "DOWNLOAD_PATIENCE", replace(hub_files.DOWNLOAD_PATIENCE, silence_s=0.4, rest_s=0.1))
    monkeypatch.setattr(cached_files, "default_cache", lambda: tmp_path / "files")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ReadHub]:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"architectures": ["BertModel"], "model_type": "bert", "hidden_size": 8}')
    (folder / WEIGHTS).write_bytes(safetensors())
    with ReadHub({MODEL: Listed(folder)}, moved={"old-model": MODEL}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


def _embed(gateway: Gateway, asynchronous: bool) -> Any:
    async def embed() -> Any:
        async with gateway:
            return await gateway.aembed(["x"])

    if asynchronous:
        return asyncio.run(embed())
    with gateway:
        return gateway.embed(["x"])


FILE = f"/{MODEL}/resolve/"
UNWELL: dict[str, tuple[Callable[[], Any], bool]] = {
    # name: (what the Hub does, with its files only)
    "the login page of a hotel": (lambda: html(200), False),
    "redirects in a circle": (lambda: redirect("/api/models/org/model/round"), False),
    "silence": (hang, False),
    "a byte now and then": (lambda: drip(Reply(200, b" " * 100_000), every=0.05), False),
    "busy": (lambda: Reply(503, {"error": "busy"}), False),
    "too many requests": (lambda: Reply(429, {"error": "slow"}, {"retry-after": "3600"}), False),
    "a proxy's refusal": (lambda: Reply(400, {"error": "Bad Request"}), False),
    "a status of no meaning": (lambda: Reply(418, b""), False),
    "no JSON": (lambda: Reply(200, b"[[["), False),
    "another answer": (lambda: Reply(200, [1, 2]), False),
    "a login page for a file": (lambda: html(200), True),
    "redirects in a circle for a file": (lambda: redirect(f"/{MODEL}/resolve/main/round"), True),
    "silence for a file": (hang, True),
    "a byte of a file now and then": (lambda: drip(Reply(200, b" " * 100_000), every=0.05), True),
    "busy for a file": (lambda: Reply(503, {"error": "busy"}), True),
    "an hour's rest for a file": (lambda: Reply(429, {"error": "slow"}, {"retry-after": "3600"}), True),
    "a proxy's refusal for a file": (lambda: Reply(400, {"error": "Bad Request"}), True),
    "another file": (lambda: Reply(200, b"x" * 10), True),
}


def _make_unwell(hub: ReadHub, name: str) -> None:
    fault, files_only = UNWELL[name]
    if files_only:
        for file in (f"{COMMIT}/config.json", f"{COMMIT}/{WEIGHTS}", "main/round"):
            hub.always(fault(), path=f"{FILE}{file}")
    else:
        hub.always(fault())


@pytest.mark.parametrize("asynchronous", [False, True], ids=["blocking", "async"])
@pytest.mark.parametrize("name", UNWELL)
def test_the_next_target_answers_within_seconds(
    name: str, asynchronous: bool, hub: ReadHub, backup: FakeOpenAI
) -> None:
    _make_unwell(hub, name)
    began = time.monotonic()
    gateway = Gateway(MODEL, ["local", f"openai:{backup.url}"], on_space_change="separate")
    served = _embed(gateway, asynchronous)
    assert time.monotonic() - began < AT_MOST
    assert [attempt.outcome for attempt in served.attempts] == ["failed", "served"]


def test_a_hub_that_sends_a_model_at_two_kilobytes_a_second_costs_a_chain_seconds(
    hub: ReadHub, backup: FakeOpenAI, tmp_path: Path
) -> None:
    weights = bytes(200_000)
    (tmp_path / "model" / WEIGHTS).write_bytes(weights)
    hub.always(drip(Reply(200, weights), every=0.0004), path=f"{FILE}{COMMIT}/{WEIGHTS}")
    began = time.monotonic()
    served = _embed(Gateway(MODEL, ["local", f"openai:{backup.url}"], on_space_change="separate"), asynchronous=False)
    assert time.monotonic() - began < AT_MOST
    assert "less than 20 kB per second" in (served.attempts[0].error or "")


@pytest.mark.parametrize("name", UNWELL)
def test_alone_it_says_what_the_hub_did_and_what_to_do(name: str, hub: ReadHub) -> None:
    _make_unwell(hub, name)
    with Gateway(MODEL, ["local"], max_retries=0) as gateway, pytest.raises(errors.ModelNotFound) as caught:
        gateway.embed(["x"])
    assert re.search(
        r"is not on this machine, and the Hub (cannot be reached|refused it) \(.+\); copy it here",
        str(caught.value),
    )
    assert f"run `hf download {MODEL}`" in str(caught.value)
    assert not isinstance(caught.value, ValueError | OSError | RuntimeError)


def test_a_silent_hub_is_asked_once_in_a_while_and_not_by_every_call(hub: ReadHub, backup: FakeOpenAI) -> None:
    hub.always(hang())
    for _ in range(3):
        with Gateway(MODEL, ["local", f"openai:{backup.url}"], on_space_change="separate") as gateway:
            gateway.embed(["x"])
    assert hub.count() == 1


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({}, "the Hub cannot be reached (no connection to http://127.0.0.1:"),
        ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set, so the Hub is not asked"),
        ({"TRANSFORMERS_OFFLINE": "1"}, "TRANSFORMERS_OFFLINE is set, so the Hub is not asked"),
    ],
    ids=["no network", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"],
)
def test_without_network_the_message_names_the_cause(
    environment: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"HF_ENDPOINT": dead_url(), **environment}.items():
        monkeypatch.setenv(name, value)
    with Gateway(MODEL, ["local"], max_retries=0) as gateway, pytest.raises(errors.ModelNotFound) as caught:
        gateway.embed(["x"])
    assert said in str(caught.value)


def test_a_renamed_model_is_found_by_its_old_name_from_then_on(hub: ReadHub) -> None:
    first = sources.fetch("old-model", None, None)
    asked = hub.count()
    again = sources.fetch("old-model", None, None)
    assert (first.source, again.source, again.path) == ("hub", "cache", first.path)
    assert hub.count() == asked


@pytest.mark.parametrize("left", [b"", b'{"hidden'], ids=["empty", "short"])
@pytest.mark.parametrize("file", ["config.json", WEIGHTS])
def test_a_model_whose_files_were_left_short_is_fetched_again(file: str, left: bytes, hub: ReadHub) -> None:
    path = sources.fetch(MODEL, None, None).path / file
    whole = path.read_bytes()
    path.resolve().write_bytes(left)
    assert sources.find(MODEL) is None
    assert sources.fetch(MODEL, None, None).source == "hub"
    assert path.read_bytes() == whole
    found = sources.find(MODEL)
    assert found is not None
    assert found.source == "cache"
