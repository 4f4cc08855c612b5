"""Budgets and prices by the image; callers that leave, event loops, doctor and the Hub's check."""

import asyncio
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from blockbuster import blockbuster_ctx

from hf_gateway import ImageGateway, Target, errors
from hf_gateway.cli import main
from hf_gateway.ledger.budget import Budget
from hf_gateway.ledger.budget_watch import BudgetWatcher
from hf_gateway.ledger.prices import Price, PriceEntry
from hf_gateway.observing import observer
from hf_gateway.testing import Drawing, one_pixel
from hf_gateway.values.image import file_type
from tests.servers.image_router import TOKEN, FakeImageRouter
from tests.servers.images import png
from tests.servers.openai import FakeOpenAI
from tests.servers.router import FakeHub, HubModel
from tests.support.databases import a_ledger
from tests.support.embedders import chain
from tests.support.image_callers import FORMS, ImageCaller
from tests.support.late import COLLECTED

if COLLECTED:
    from hf_gateway.ledger import budgets, models, store
    from hf_gateway.ledger.budgets import budget_statuses

MODEL = "test/image-model"
AN_IMAGE = Decimal("0.005")


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A Hub that lists providers for the model."""
    listed = [
        {"provider": name, "providerId": f"{name}/own", "status": "live", "task": "text-to-image"}
        for name in ("replicate", "fal-ai")
    ]
    model = HubModel(providers=listed, pipeline_tag="text-to-image", library_name="diffusers", tags=("diffusers",))
    with FakeHub(models={MODEL: model}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Any]:
    """A ledger, and a watcher of budgets."""
    with a_ledger("sqlite", tmp_path) as url:
        engine = store.open_engine(url)
        watcher = BudgetWatcher(url)
        yield engine, watcher
        watcher.close()
        engine.dispose()


def test_a_budget_is_reserved_and_spent_by_the_image(form: str, primary: FakeOpenAI, ledger: Any) -> None:
    engine, watcher = ledger
    price = Price(image=AN_IMAGE)
    models.set_entry(engine, PriceEntry("*", "text-to-image", chain(primary)[0], price))
    budgets.set_budget(engine, Budget("acme", "day", AN_IMAGE * 5, "refuse"))
    assert watcher.sync()
    call = ImageCaller(form, chain(primary))
    with observer.tagged(tenant="acme"):
        call.generate("a cat", n=3)
        with pytest.raises(errors.BudgetExceeded) as caught:
            call.generate("a cat", n=3)
        assert caught.value.needed == AN_IMAGE * 3
        call.generate("a cat", n=2)
        with pytest.raises(errors.BudgetExceeded):
            call.generate("a cat")
    assert watcher.sync()
    (standing,) = budget_statuses(engine, time.time())
    assert (standing.spent, standing.reserved) == (AN_IMAGE * 5, 0)
    assert len(primary.requests) == 2


def test_an_image_whose_price_is_unknown_is_refused_by_a_budget(primary: FakeOpenAI, ledger: Any) -> None:
    engine, watcher = ledger
    price = Price(input=Decimal(1), output=Decimal(1))  # of tokens only
    models.set_entry(engine, PriceEntry("*", "text-to-image", chain(primary)[0], price))
    budgets.set_budget(engine, Budget("acme", "day", Decimal(100), "refuse"))
    assert watcher.sync()
    with observer.tagged(tenant="acme"), pytest.raises(errors.BudgetExceeded) as caught:
        ImageCaller("sync", chain(primary)).generate("a cat")
    assert caught.value.needed is None
    assert primary.requests == []


async def test_a_caller_that_leaves_ends_the_questions_about_its_job(hub: FakeHub) -> None:
    with FakeImageRouter(pending=10**9) as router:
        gateway = ImageGateway(MODEL, [Target("hf", url=router.url, credential=TOKEN)])
        call = asyncio.create_task(gateway.agenerate("a cat"))
        await asyncio.to_thread(router.wait_for, 2)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        asked = len(router.requests)
        assert gateway.status()[0].breaker == "closed"
        await gateway.aclose()
        assert len(router.requests) <= asked + 1  # one may have been on its way


def test_a_job_that_takes_too_long_goes_to_the_next_target(form: str, hub: FakeHub, backup: FakeOpenAI) -> None:
    with FakeImageRouter(pending=10**9) as router:
        targets = [Target("hf", url=router.url, credential=TOKEN), *chain(backup)]
        call = ImageCaller(form, targets, attempt_timeout=30)
        assert call.generate("a cat").served_by == tuple(chain(backup))
        assert len(router.orders) == 1
        assert sum(call.clock.waited) < 30


async def test_nothing_blocks_the_event_loop(hub: FakeHub, primary: FakeOpenAI) -> None:
    with FakeImageRouter() as router:
        targets = [Target("hf", url=router.url, credential=TOKEN, provider="fal-ai")]
        for gateway in (ImageGateway(MODEL, targets), ImageGateway(MODEL, chain(primary))):
            with blockbuster_ctx():
                assert (await gateway.agenerate("a cat"))[0].data == png("a cat")
                await gateway.aclose()


def test_doctor_checks_a_chain_without_making_an_image(
    hub: FakeHub, primary: FakeOpenAI, capsys: pytest.CaptureFixture[str]
) -> None:
    targets = f"{chain(primary)[0]},hf"
    assert main(["doctor", "--task", "image", "--targets", targets, "--model", MODEL]) == 0
    printed = capsys.readouterr().out
    assert f"ok  {chain(primary)[0]}" in printed
    assert "set HF_TOKEN" in printed
    assert [request.method for request in primary.requests] == ["GET"]
    assert main(["doctor", "--task", "image", "--targets", "tei:http://127.0.0.1:9"]) == 1
    assert "Kinds of target for image: endpoint, hf, local, openai" in capsys.readouterr().out


def test_the_hubs_check_names_the_providers_and_this_process(
    hub: FakeHub, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_GATEWAY_HOME", str(tmp_path / "home"))
    folder = tmp_path / "pipeline"
    (folder / "unet").mkdir(parents=True)
    (folder / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"x" * 100)
    known = hub.models[MODEL]
    hub.models = {MODEL: HubModel(folder, providers=known.providers, pipeline_tag="text-to-image", tags=known.tags)}
    assert main(["hub", "check", MODEL]) == 0
    printed = capsys.readouterr().out
    for found in (f"yes  local:{MODEL}", "yes  hf:replicate", "yes  hf:fal-ai"):
        assert found in printed


def test_the_double_of_a_server_makes_images_and_refuses_unknown_hosts(form: str) -> None:
    servers = Drawing({"one:80": one_pixel})
    call = ImageCaller(form, ["openai:http://none:80", "openai:http://one:80"], transport=servers, max_retries=0)
    result = call.generate("a cat", n=2)
    assert [file_type(image.data) for image in result] == ["image/png"] * 2
    assert result[0].data == one_pixel("a cat") != one_pixel("a dog")
    assert servers.requests == ["none:80", "one:80"]
    with pytest.raises(errors.ConnectFailed):
        ImageCaller(form, ["openai:http://none:80"], transport=servers).generate("a cat")
