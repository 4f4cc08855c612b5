"""Labels and speech in Chromium from a real server: the scores of `local`, and the tokens of transformers in Python."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.page_build import ROOT
from tests.support.browser_runtime import place_browser_runtime
from tests.support.gateway_server import ServerProcess
from tests.support.late import COLLECTED
from tests.support.page_library import library_block, load_library, run
from tests.support.page_views import Views
from tests.support.tiny_classifiers import EMOTIONS, text_classifier
from tests.support.tiny_whisper import NEW_TOKENS, WORDS, tokens_of, whisper
from tests.support.web_client import blocks

if TYPE_CHECKING:
    from playwright.sync_api import Browser

if COLLECTED:
    import numpy as np

pytestmark = pytest.mark.slow

DOCS = ROOT / "docs" / "browser.md"
TEXTS = ("a", "def add(a, b): return a + b", "2 + 2 == 4 # two and two are four", "b b b")
SOUND = "new Float32Array(16000).map((_, i) => 0.3 * Math.sin(0.05 * i))"
"""A second of a tone."""


@dataclass
class Lab:
    """A page with the library, its server, and the model that hears."""

    views: Views
    server: ServerProcess
    whisper: Any


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, browser: "Browser", _late_imports: None) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("models")
    place_browser_runtime(folder / "home")
    hearing = whisper(folder / "whisper")
    chains = {
        "moods": text_classifier(folder / "moods"),
        "topics": text_classifier(folder / "topics", "roberta", problem_type="multi_label_classification", seed=1),
    }
    config = "".join(
        f'[chains.{name}]\ntask = "classification"\ntargets = ["local:{path}"]\n' for name, path in chains.items()
    )
    config += f'[server.browser_models]\nhearing = "{folder / "whisper"}"\nempty = "{folder}"\n'
    environment = {"HF_GATEWAY_HOME": str(folder / "home")}
    with contextlib.chdir(folder), ServerProcess(config, environment=environment) as server:
        views = Views(browser, server.url)
        load_library(views)
        yield Lab(views, server, hearing)
        views.close("Failed to load resource")


@pytest.mark.parametrize("chain", ["moods", "topics"])
def test_labels_have_the_scores_of_the_servers_engine(chain: str, lab: Lab) -> None:
    with lab.server.client() as client:
        wanted = client.post(f"/tei/{chain}/predict", json={"inputs": [[text] for text in TEXTS]}).json()
    found, labels = run(
        lab.views,
        f"""
        const model = await lib.BrowserClassifier.load({{ baseUrl: root, model: {json.dumps(chain)}, threads: 1 }});
        const found = [await model.classifyBatch({json.dumps(TEXTS)}), model.labels];
        model.close();
        return found;
        """,
    )
    assert labels == list(EMOTIONS)
    for text, each, other in zip(TEXTS, found, wanted, strict=True):
        scores = {label["label"]: label["score"] for label in other}
        assert {label["label"]: label["score"] for label in each} == pytest.approx(scores, abs=0.02), text
        assert [label["score"] for label in each] == sorted(scores_of(each), reverse=True)


def scores_of(labels: list[dict[str, Any]]) -> list[float]:
    return [label["score"] for label in labels]


def test_a_text_that_is_too_long_for_labels_is_refused_or_cut(lab: Lab) -> None:
    refused, cut = run(
        lab.views,
        """
        const strict = await lib.BrowserClassifier.load({ baseUrl: root, model: "moods", threads: 1 });
        const cutting = await lib.BrowserClassifier.load({ baseUrl: root, model: "moods", threads: 1, truncate: true });
        const long = "a b ".repeat(100);
        const found = [await failure(strict.classify(long)), await cutting.classify(long)];
        [strict, cutting].forEach((each) => each.close());
        return found;
        """,
    )
    assert refused["code"] == "too_long"
    assert "and the model takes 64" in refused["message"]
    assert sum(scores_of(cut)) == pytest.approx(1)


def test_speech_gives_the_tokens_of_transformers_in_python(lab: Lab) -> None:
    samples = (0.3 * np.sin(0.05 * np.arange(16_000))).astype(np.float32)
    wanted = tokens_of(lab.whisper, samples)
    heard, other = run(
        lab.views,
        f"""
        const model = await lib.BrowserTranscriber.load({{ baseUrl: root, model: "hearing", threads: 1 }});
        const options = {{ maxNewTokens: {NEW_TOKENS} }};
        const found = [await model.transcribe({SOUND}, options), await model.transcribe(new Float32Array(16000), options)];
        model.close();
        return found;
        """,
    )
    assert heard["tokens"] == wanted
    assert heard["text"] == " ".join(WORDS[token] for token in wanted[1:])
    assert other["tokens"] != wanted, "silence is heard as the tone is"


def test_a_sound_file_is_decoded_by_the_browser(lab: Lab) -> None:
    same = run(
        lab.views,
        f"""
        const samples = {SOUND};
        const wav = new DataView(new ArrayBuffer(44 + 2 * samples.length));
        const text = (at, words) => [...words].forEach((each, i) => wav.setUint8(at + i, each.charCodeAt(0)));
        text(0, "RIFF"); wav.setUint32(4, 36 + 2 * samples.length, true); text(8, "WAVEfmt ");
        wav.setUint32(16, 16, true); wav.setUint16(20, 1, true); wav.setUint16(22, 1, true);
        wav.setUint32(24, 16000, true); wav.setUint32(28, 32000, true); wav.setUint16(32, 2, true); wav.setUint16(34, 16, true);
        text(36, "data"); wav.setUint32(40, 2 * samples.length, true);
        samples.forEach((each, i) => wav.setInt16(44 + 2 * i, Math.round(each * 32767), true));
        const model = await lib.BrowserTranscriber.load({{ baseUrl: root, model: "hearing", threads: 1 }});
        const options = {{ maxNewTokens: {NEW_TOKENS} }};
        const [file, direct] = [await model.transcribe(new Blob([wav]), options), await model.transcribe(samples, options)];
        model.close();
        return JSON.stringify(file) == JSON.stringify(direct);
        """,
    )
    assert same


FAULTS = {
    "a model without labels": ("BrowserClassifier", "hearing", "'hearing' has no labels: it is not the model"),
    "a model that the server does not have": ("BrowserTranscriber", "nope", "there is no file 'nope/config.json'"),
    "a folder without a model": ("BrowserTranscriber", "empty", "there is no file 'empty/config.json'"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_model_that_cannot_be_loaded_says_why(case: str, lab: Lab) -> None:
    kind, model, message = FAULTS[case]
    found = run(lab.views, f"return failure(lib.{kind}.load({{ baseUrl: root, model: '{model}', threads: 1 }}));")
    assert found["code"] == "model_failed"
    assert message in found["message"], found


def test_the_documentation_runs(lab: Lab) -> None:
    _, code = blocks(DOCS, "js")
    console = "const said = []; const console = { log: (...words) => said.push(words) };"
    spoken = f"const recording = {SOUND};"
    (label, score), (text,) = run(lab.views, f"{console} {spoken} {library_block(code)}; return said;")
    assert label in EMOTIONS
    assert 0 < score <= 1
    assert text.startswith("word")
