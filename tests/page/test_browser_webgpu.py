"""WebGPU in Chromium, by SwiftShader where the machine has no GPU: vectors of the server's space, or WebAssembly and why."""

import contextlib
import json
from collections.abc import Iterator

import pytest

from tests.support.browser_runtime import place_browser_runtime
from tests.support.gateway_server import ServerProcess
from tests.support.graph_vectors import worst_cosine
from tests.support.page_library import load_library, run
from tests.support.page_views import Views, browser_for_views
from tests.support.tiny_encoders import encoder

pytestmark = pytest.mark.slow

SWIFTSHADER = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader")
TEXT = "two and two are four"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server of a tiny model: one of usual size takes minutes without a GPU."""
    folder = tmp_path_factory.mktemp("webgpu")
    place_browser_runtime(folder / "home")
    config = f'[chains.tiny]\ntargets = ["local:{encoder(folder / "tiny")}"]\ntruncate = true\n'
    environment = {"HF_GATEWAY_CHECK_SPACE": "1", "HF_GATEWAY_HOME": str(folder / "home")}
    with contextlib.chdir(folder), ServerProcess(config, environment=environment) as made:
        yield made


def server_vector(server: ServerProcess) -> list[float]:
    with server.client() as client:
        data = client.post("/v1/embeddings", json={"model": "tiny", "input": TEXT}).json()["data"]
    found: list[float] = data[0]["embedding"]
    return found


def test_webgpu_computes_where_its_canaries_agree(server: ServerProcess) -> None:
    with browser_for_views(*SWIFTSHADER) as browser:
        views = Views(browser, server.url)
        load_library(views)
        device, refused, agreement, row = run(
            views,
            f"""
            const options = {{ baseUrl: root, model: "tiny", device: "auto", threads: 1, truncate: true }};
            const model = await lib.BrowserEmbedder.load(options);
            return [model.device, model.refused ?? null, model.agreement, [...await model.embed({json.dumps(TEXT)})]];
            """,
        )
        views.close()
    assert (device, refused) == ("webgpu", None)
    assert agreement["compared"] >= 8
    assert agreement["worst"] >= 0.999
    assert worst_cosine([row], [server_vector(server)]) >= 0.999


def test_without_webgpu_webassembly_computes_and_the_reason_is_known(server: ServerProcess) -> None:
    with browser_for_views() as browser:
        views = Views(browser, server.url)
        load_library(views)
        found, row, failed = run(
            views,
            f"""
            const options = {{ baseUrl: root, model: "tiny", threads: 1, truncate: true }};
            const model = await lib.BrowserEmbedder.load({{ ...options, device: "auto" }});
            const failed = await failure(lib.BrowserEmbedder.load({{ ...options, device: "webgpu" }}));
            return [[model.device, model.refused], [...await model.embed({json.dumps(TEXT)})], failed];
            """,
        )
        views.close("No available adapters")
    assert found == ["wasm", "this browser has no WebGPU"]
    assert worst_cosine([row], [server_vector(server)]) >= 0.999
    assert failed == {"code": "model_failed", "message": "this browser has no WebGPU"}
