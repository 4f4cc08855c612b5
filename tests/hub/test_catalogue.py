"""What the router's catalogue says of models: read once a day, kept on disk, and never needed for a call."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hf_gateway import Gateway, Target, errors
from hf_gateway.hub import router_catalogue
from hf_gateway.hub.router_catalogue import RouterCatalogue
from tests.servers.loopback import Reply, dead_url
from tests.servers.openai import FakeOpenAI
from tests.servers.router import FakeRouter

LLAMA = "meta-llama/Llama-3.1-8B-Instruct"
PATH = "/v1/models"


@pytest.fixture
def router() -> Iterator[FakeRouter]:
    with FakeRouter() as server:
        yield server


def test_it_is_asked_once_and_by_nobody_else_that_day(router: FakeRouter, tmp_path: Path) -> None:
    first = RouterCatalogue(router.url, tmp_path)
    assert first.cached_entry(LLAMA) is None
    entry = first.find_entry(LLAMA)
    assert entry is not None
    assert {offer.provider for offer in entry.providers} >= {"nebius", "novita"}
    for again in (first, RouterCatalogue(router.url, tmp_path)):
        assert again.find_entry(LLAMA) == again.cached_entry(f"{LLAMA}:nebius") == entry
        assert again.find_entry("nobody/knows-it") is None
    assert router.count(PATH) == 1
    assert router.requests[0].bearer is None


def test_a_day_later_it_is_asked_again(router: FakeRouter, tmp_path: Path) -> None:
    RouterCatalogue(router.url, tmp_path).find_entry(LLAMA)
    (file,) = tmp_path.iterdir()
    yesterday = time.time() - router_catalogue.LIFETIME_S - 1
    os.utime(file, (yesterday, yesterday))
    later = RouterCatalogue(router.url, tmp_path)
    assert later.cached_entry(LLAMA) is None
    assert later.find_entry(LLAMA) is not None
    assert router.count(PATH) == 2


def test_two_routers_are_two_catalogues(router: FakeRouter, tmp_path: Path) -> None:
    RouterCatalogue(router.url, tmp_path).find_entry(LLAMA)
    assert RouterCatalogue("http://127.0.0.1:9", tmp_path).cached_entry(LLAMA) is None


@pytest.mark.parametrize("answer", [Reply(500, {"error": "no"}), Reply(200, "<html>"), Reply(200, [])])
def test_a_router_that_gives_no_list_is_not_asked_again_at_once(
    router: FakeRouter, tmp_path: Path, answer: Reply
) -> None:
    router.always(answer)
    found = RouterCatalogue(router.url, tmp_path)
    assert found.find_entry(LLAMA) is None
    assert found.find_entry(LLAMA) is None
    assert router.count(PATH) == 1
    assert list(tmp_path.iterdir()) == []


def test_without_a_network_nothing_is_known_and_nothing_breaks(tmp_path: Path) -> None:
    assert RouterCatalogue(dead_url(), tmp_path).find_entry(LLAMA) is None


def test_a_spoilt_file_is_one_miss(router: FakeRouter, tmp_path: Path) -> None:
    RouterCatalogue(router.url, tmp_path).find_entry(LLAMA)
    (file,) = tmp_path.iterdir()
    file.write_text("{half")
    assert RouterCatalogue(router.url, tmp_path).cached_entry(LLAMA) is None
    assert RouterCatalogue(router.url, tmp_path).find_entry(LLAMA) is not None


def test_where_the_router_chooses_only_what_every_live_provider_can_do_counts(
    router: FakeRouter, tmp_path: Path
) -> None:
    entry = RouterCatalogue(router.url, tmp_path).find_entry(LLAMA)
    assert entry is not None
    live = [offer for offer in entry.providers if offer.live]
    anywhere = entry.capabilities(None)
    assert anywhere.context == min(offer.context for offer in live if offer.context)
    assert anywhere.tools == all(offer.tools for offer in live)
    one = entry.capabilities(live[0].provider)
    assert one.context == live[0].context


def test_a_conversation_too_long_for_one_provider_skips_another_that_takes_no_more(
    router: FakeRouter, primary: FakeOpenAI, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_GATEWAY_HOME", str(tmp_path))
    entry = router_catalogue.catalogue_of(router.url).find_entry(LLAMA)
    assert entry is not None
    context = entry.capabilities(None).context
    said = f"This model's maximum context length is {context} tokens. However, you requested more."
    primary.always(Reply(400, {"error": {"message": said}}))
    hosted = Target("hf", url=router.url, credential="hf_test")
    with pytest.raises(errors.AllTargetsFailed, match="which is not more"):
        Gateway(LLAMA, [f"openai:{primary.url}", hosted], task="chat").chat("hi")
    assert router.count("/v1/chat/completions") == 0
