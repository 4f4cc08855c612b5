"""Models in Chromium from a real server: the vectors of `local` or none, where and why, intents, and the page's switch."""

import contextlib
import json
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hf_gateway.cli import main
from tests.page_build import ROOT
from tests.servers.loopback import dead_url
from tests.support.browser_runtime import place_browser_runtime
from tests.support.default_q8 import default_q8
from tests.support.gateway_server import ServerProcess
from tests.support.graph_vectors import worst_cosine
from tests.support.late import COLLECTED
from tests.support.page_library import library_block, load_library, run
from tests.support.page_views import Views
from tests.support.scripts_texts import hundred_texts
from tests.support.web_client import blocks

if TYPE_CHECKING:
    from playwright.sync_api import Browser

if COLLECTED:
    from hf_gateway.engines.sources import find

pytestmark = pytest.mark.slow

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
CONFIG = f"""
[chains.here]
targets = ["local:{MINILM}"]
truncate = true

[chains.hashed]
targets = ["hash:64"]

[chains.dying]
model = "{MINILM}"
max_retries = 0
targets = ["openai:{dead_url()}"]
"""
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "HF_GATEWAY_CHECK_SPACE": "1"}
DOCS = ROOT / "docs" / "browser.md"
Open = Callable[[str], Views]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A HF_GATEWAY_HOME with the runtime, in which files of models are made once."""
    folder = tmp_path_factory.mktemp("home")
    place_browser_runtime(folder)
    return folder


@contextlib.contextmanager
def serving(folder: Path, home: Path) -> Iterator[ServerProcess]:
    folder.mkdir(exist_ok=True)
    with (
        contextlib.chdir(folder),
        ServerProcess(CONFIG, environment={**ENVIRONMENT, "HF_GATEWAY_HOME": str(home)}) as process,
    ):
        yield process


@pytest.fixture(scope="module")
def server(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("server"), home) as process:
        yield process


@pytest.fixture(scope="module")
def lab(server: ServerProcess, browser: "Browser", _late_imports: None) -> Iterator[Views]:
    """The page, in whose console the library is at hand as `lib`, and a loaded model as `model`."""
    views = Views(browser, server.url)
    load_library(views)
    options = "{ baseUrl: root, model: 'here', threads: 1, truncate: true }"
    run(views, f"globalThis.model = await lib.BrowserEmbedder.load({options});")
    yield views
    views.close("Failed to load resource")


def server_vectors(server: ServerProcess, texts: list[str]) -> list[list[float]]:
    with server.client() as client:
        data = client.post("/v1/embeddings", json={"model": "here", "input": texts}).json()["data"]
    return [each["embedding"] for each in data]


def test_a_hundred_texts_have_the_vectors_of_local(lab: Views, server: ServerProcess) -> None:
    texts = hundred_texts()
    found = run(lab, f"return (await model.embedBatch({json.dumps(texts)})).map((row) => [...row]);")
    worst = worst_cosine(found, server_vectors(server, texts))
    assert worst >= 0.999, f"worst cosine of {len(texts)} texts: {worst:.6f}"


def test_the_space_was_measured_by_the_canaries_in_both_roles(lab: Views) -> None:
    space, agreement = run(lab, "return [model.space, model.agreement];")
    assert space.startswith(f"{MINILM}#")
    assert agreement["compared"] == 16
    assert 0.999 <= agreement["worst"] < 1
    assert agreement["fault"] is None


def test_the_librarys_default_q8_file_is_refused(lab: Views, home: Path, tmp_path: Path) -> None:
    files = find(MINILM)
    assert files is not None
    (graph,) = (home / "browser-models").glob("*/onnx/model_quantized.onnx")
    own = graph.read_bytes()
    graph.write_bytes(default_q8(files, tmp_path))
    # The browser keeps a file by its digest.
    digests = graph.parents[1] / "sha256.json"
    known = digests.read_text()
    digests.write_text(json.dumps({**json.loads(known), "onnx/model_quantized.onnx": "0" * 64}))
    try:
        found = run(lab, "return failure(lib.BrowserEmbedder.load({ baseUrl: root, model: 'here' }));")
    finally:
        graph.write_bytes(own)
        digests.write_text(known)
    assert found["code"] == "space_mismatch"
    assert "0.999 is demanded; no vector of it is used" in found["message"]
    assert float(found["message"].partition("the lowest cosine is ")[2].partition(",")[0]) < 0.99


def test_threads_compute_the_same_and_a_text_is_cut_on_demand_alone(lab: Views) -> None:
    isolated, two, same, long, closed = run(
        lab,
        """
        const two = await lib.BrowserEmbedder.load({ baseUrl: root, model: "here", threads: 2 });
        const long = await failure(two.embed("word ".repeat(300)));
        const [one, other] = [await model.embed("library"), await two.embed("library")];
        const same = one.every((each, i) => Math.abs(each - other[i]) < 1e-5);
        two.close();
        return [crossOriginIsolated, [two.threads, two.truncate], same, long, await failure(two.embed("word"))];
        """,
    )
    assert (isolated, two, same, long["code"]) == (True, [2, False], True, "too_long")
    assert "302 tokens, and the model takes 256" in long["message"]
    assert closed["message"].endswith("it was closed")


def test_a_chain_without_a_local_model_has_none_in_the_browser(lab: Views) -> None:
    found = run(lab, "return failure(lib.BrowserEmbedder.load({ baseUrl: root, model: 'hashed' }));")
    assert found["code"] == "model_failed"
    assert "there is no file 'hashed/config.json'" in found["message"]
    unknown = run(lab, "return failure(lib.BrowserEmbedder.load({ baseUrl: root, model: 'nope' }));")
    assert unknown["code"] == "model_not_found"


HYBRID = {
    "the browser is asked first": ("{}", "['a']", "browser", "the browser is asked first"),
    "the server is asked first": ("{ first: 'server' }", "['a']", "server", "the server is asked first"),
    "too many texts": (
        "{ maxTexts: 1 }",
        "['a', 'b']",
        "server",
        "2 texts are more than the 1 that the browser takes at once",
    ),
    "too long": ("{ maxCharacters: 5 }", "['abcdef']", "server", "6 characters are more than the 5 that the browser"),
    "too little memory": ("{ device: { deviceMemory: 1 } }", "['a']", "server", "this device has 1 GiB of memory"),
    "the browser fails": (
        "{ load: () => lib.BrowserEmbedder.load({ baseUrl: root, model: 'hashed' }) }",
        "['a']",
        "server",
        "there is no file 'hashed/config.json'",
    ),
    "offline": ("{ first: 'server', device: { onLine: false } }", "['a']", "browser", "this device is offline"),
    "the server's target is dead": (
        "{ first: 'server', model: 'dying' }",
        "['a']",
        "browser",
        "no connection to openai",
    ),
}


@pytest.mark.parametrize("case", HYBRID)
def test_where_texts_are_embedded_and_why(case: str, lab: Views, server: ServerProcess) -> None:
    options, texts, by, reason = HYBRID[case]
    found = run(
        lab,
        f"""
        const client = new lib.GatewayClient({{ baseUrl: root }});
        const hybrid = new lib.HybridEmbedder({{ client, model: "here", load: async () => model, ...{options} }});
        const routed = await hybrid.embedBatch({texts});
        return {{ ...routed, vectors: routed.vectors.map((row) => [...row]), same: routed.space == model.space }};
        """,
    )
    assert (found["by"], found["same"]) == (by, True)
    assert reason in found["reason"]
    assert worst_cosine(found["vectors"], server_vectors(server, json.loads(texts.replace("'", '"')))) >= 0.999


INTENTS = {
    "return": ["I want to send it back", "How do I return my order?", "This does not fit, I would like a refund"],
    "repair": ["My wheel is broken", "Can you fix my brakes?", "The chain has come off"],
    "hours": ["When are you open?", "What are your opening times?", "Are you open on Sundays?"],
}
WANTED = {
    "How can I give this jacket back?": "return",
    "The brakes squeal, can somebody look at them?": "repair",
    "Until what time is the shop open today?": "hours",
    "Quantum chromodynamics describes the strong interaction.": None,
}


def test_intents_by_the_nearest_examples_or_not_known(lab: Views) -> None:
    found, between = run(
        lab,
        f"""
        const embed = (texts) => model.embedBatch(texts);
        const intents = await lib.IntentClassifier.of({json.dumps(INTENTS)}, embed);
        const strict = await lib.IntentClassifier.of({json.dumps(INTENTS)}, embed, {{ margin: 0.6 }});
        const both = "I want to return my broken wheel, can you fix it?";
        return [await intents.classifyBatch({json.dumps(list(WANTED))}), await strict.classify(both)];
        """,
    )
    assert {text: each["intent"] for text, each in zip(WANTED, found, strict=True)} == WANTED
    assert found[3]["reason"].startswith("nothing is near: ")
    assert (between["intent"], between["reason"]) == (None, "'repair' and 'return' are nearly equally near")
    assert found[0]["nearest"] in INTENTS["return"]
    scores = [each["score"] for each in found[0]["scores"]]
    assert scores == sorted(scores, reverse=True)
    empty = run(lab, "return failure(lib.IntentClassifier.of({ none: [] }, (texts) => model.embedBatch(texts)));")
    assert "the intent 'none' has no example" in empty["message"]


def search_in_browser(views: Views) -> None:
    views.show("Search")
    views.page.get_by_label("Embedding model").select_option("here")
    views.button("Use the sample").click()
    views.page.get_by_label("Embed in this browser").check()
    views.button("Why is my range so short in January?").click()
    views.page.locator(".hits li").first.wait_for()


@pytest.mark.complaints("Failed to load resource")
def test_the_search_view_embeds_in_this_browser_also_while_the_server_is_away(
    home: Path, tmp_path: Path, open_page: Open
) -> None:
    question, best = "What do you want to know?", ".hits li"
    with serving(tmp_path / "own", home) as process:
        views = open_page(process.url)
        bodies: list[str] = []
        views.page.on("request", lambda request: bodies.append(request.post_data or ""))
        search_in_browser(views)
        assert "In frost it holds about a third less" in views.page.locator(best).first.inner_text()
        views.text("10 passages embedded by this browser (WebAssembly, ")
        assert views.page.get_by_text("Why there: the browser is asked first").is_visible()
        assert not [body for body in bodies if "frost" in body or "January" in body], "texts were sent"
        views.check("search, in this browser")
        views.picture("search-in-browser")
        # Off again: the server's vector of the question is compared with the browser's vectors of the passages.
        views.page.get_by_label("Embed in this browser").uncheck()
        views.page.get_by_label(question).fill("When do I get my money back?")
        views.button("Search").click()
        views.text("by local:sentence-transformers/all-MiniLM-L6-v2 in ")
        assert "Refunds go to the means of payment" in views.page.locator(best).first.inner_text()
    views.page.get_by_label("Embed in this browser").check()
    views.page.get_by_label(question).fill("Someone slashed my wheel, can you help?")
    views.button("Search").click()
    views.text("“Someone slashed my wheel, can you help?”")
    assert "The workshop in the yard mends punctures" in views.page.locator(best).first.inner_text()


def test_without_the_runtime_the_server_embeds_and_the_reason_names_the_command(
    tmp_path: Path, open_page: Open
) -> None:
    with serving(tmp_path / "bare", tmp_path / "home") as process:
        views = open_page(process.url)
        search_in_browser(views)
        views.text("10 passages embedded by local:sentence-transformers/all-MiniLM-L6-v2")
        views.text("not in this browser: the server has nothing to run models in a browser with")
        views.text("run `hf-gateway browser-runtime`")
        views.check("search, no runtime for this browser")


def test_the_documentation_runs(lab: Views, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, _ = blocks(DOCS, "js")
    console = "const said = []; const console = { log: (...words) => said.push(words) };"
    lines = run(lab, f"{console} {library_block(code)}; return said;")
    (worst, device), (by, reason), (intent, unknown, why) = lines
    assert worst >= 0.999
    assert (device, by, reason) == ("wasm", "browser", "the browser is asked first")
    assert (intent, unknown) == ("return", None)
    assert why.startswith("nothing is near: ")
    (command,) = blocks(DOCS, "bash")
    monkeypatch.setenv("HF_GATEWAY_HOME", str(home))
    assert main(shlex.split(command)[1:]) == 0
