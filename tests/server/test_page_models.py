"""Models for browsers: the vectors of `local`, caching, and that a path names models of the caller's chains alone."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.browser_vectors import GRAPH, browser_vectors
from tests.support.databases import a_ledger
from tests.support.gateway_server import RunningServer, gateway_server
from tests.support.graph_vectors import worst_cosine
from tests.support.server_keys import bearer, make_key
from tests.support.tiny_classifiers import EMOTIONS, text_classifier

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
CONFIG = f'[chains.here]\ntargets = ["local:{MINILM}"]\ntruncate = true\n[chains.docs]\ntargets = ["hash:64"]\n'
OWN = ("config.json", "preprocessor_config.json", "onnx/encoder_model.onnx", "onnx/decoder_model_merged.onnx_data")
"""Files of a model of the operator's."""
TEXTS = (
    "a",
    "The weather is nice today.",
    "Wie wird das Wetter morgen in Berlin?",
    "量子力学は物理学の理論である",
    "Где находится библиотека?",
    "x = [n ** 2 for n in range(10)]; print(x)",
    "https://example.org/a?b=c&d=%20",
    "To be, or not to be, that is the question: " * 3,
    "word " * 150,
    "tokens beyond the limit " * 200,
    "🙂🙃",
    "UPPER lower MiXeD 1234 5,678.90",
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("browser")
    with (
        a_ledger("sqlite", folder) as url,
        gateway_server(CONFIG, folder=folder, database=url) as running,
    ):
        yield running


@pytest.fixture
def client(server: RunningServer) -> Iterator[httpx.Client]:
    with server.client(headers=rights(server)) as made:
        yield made


def rights(server: RunningServer, **given: Any) -> dict[str, str]:
    return bearer(make_key(server.state.database.url, **given))


def test_a_browser_has_the_vectors_of_local(client: httpx.Client) -> None:
    def read(name: str) -> bytes:
        answer = client.get(f"/ui/models/{MINILM}/{name}")
        assert answer.status_code == 200, answer.text
        return answer.content

    body = {"model": "here", "input": list(TEXTS)}
    expected = [each["embedding"] for each in client.post("/v1/embeddings", json=body).json()["data"]]
    assert worst_cosine(browser_vectors(read, TEXTS), expected) >= 0.999
    assert len(read(GRAPH)) < 25_000_000


def test_a_chains_name_means_its_model(client: httpx.Client) -> None:
    by_name, by_id = (client.get(f"/ui/models/{each}/config.json") for each in ("here", MINILM))
    assert by_name.json() == by_id.json()
    assert by_name.json()["transformers.js_config"]["dtype"] == "q8"
    assert by_name.headers["content-type"] == "application/json"


def test_a_browser_keeps_what_has_not_changed(client: httpx.Client) -> None:
    path = f"/ui/models/{MINILM}/tokenizer.json"
    first = client.get(path)
    etag = first.headers["etag"]
    assert first.headers["cache-control"] == "private, no-cache"
    again = client.get(path, headers={"if-none-match": etag})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    kept = client.get(path, params={"v": etag.strip('"')})
    assert kept.headers["cache-control"] == "private, max-age=31536000, immutable"
    assert client.get(path, params={"v": "other"}).headers["cache-control"] == "private, no-cache"
    head = client.head(path)
    assert (head.status_code, head.headers["content-length"]) == (200, str(len(first.content)))


@pytest.mark.parametrize(
    "path",
    [
        f"{MINILM}/model.safetensors",
        f"{MINILM}/onnx/model.onnx",
        f"{MINILM}/onnx/../config.json/../../../etc/passwd",
        f"../../../etc/passwd/../{MINILM}/config.json",
        f"{MINILM}/../../config.json",
        "%2e%2e/%2e%2e/config.json",
        "..%2f..%2fetc%2fpasswd",
        "/etc/config.json",
        "//etc//config.json",
        "C:%5Cwindows/config.json",
        ".%5C..%5Cconfig.json",
        "here%00/config.json",
        "here//config.json",
        "HERE/config.json",
        "config.json",
        "sha256.json",
        "here/sha256.json",
        "docs/config.json",
        "hash:64/config.json",
        "other/model/config.json",
    ],
)
def test_a_path_names_models_of_local_chains_alone(path: str, client: httpx.Client) -> None:
    answer = client.get(f"/ui/models/{path}")
    assert answer.status_code in (400, 404), answer.text
    assert "root:" not in answer.text


def test_a_key_gets_the_models_of_its_chains(server: RunningServer) -> None:
    with server.client() as client:
        for given, status in (
            ({"scopes": {"read"}}, 200),
            ({"scopes": {"embed"}}, 200),
            ({"scopes": {"chat"}}, 403),
            ({"scopes": {"read"}, "chains": frozenset({"here"})}, 200),
            ({"scopes": {"read"}, "chains": frozenset({"docs"})}, 404),
        ):
            for name in ("here", MINILM):
                answer = client.get(f"/ui/models/{name}/config.json", headers=rights(server, **given))
                assert answer.status_code == status, (given, answer.text)


def test_a_model_that_is_not_on_this_machine_is_not_fetched() -> None:
    config = '[chains.away]\ntargets = ["local:nobody/has-this-model"]\n'
    with gateway_server(config) as server, server.client() as client:
        answer = client.get("/ui/models/nobody/has-this-model/config.json")
    assert answer.status_code == 404
    assert "not on the server's machine" in answer.text


def test_a_folder_is_named_by_its_chain_and_never_by_its_path(tmp_path: Path) -> None:
    folder = tmp_path / "secret-folder"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "unknown", "hidden_size": 8}')
    config = f'[chains.mine]\ntargets = ["local:{folder}"]\n'
    with gateway_server(config) as server, server.client() as client:
        named, by_path = client.get("/ui/models/mine/config.json"), client.get(f"/ui/models/{folder}/config.json")
    assert (named.status_code, by_path.status_code) == (404, 404)
    assert "no files for browsers" in named.text
    assert "secret-folder" not in named.text


@pytest.fixture(scope="module")
def operators(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with a model of the operator's beside other files, a link out of its folder among them."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "ears" / "onnx").mkdir(parents=True)
    for name in OWN:
        (folder / "ears" / name).write_bytes(f'{{"name": "{name}"}}'.encode())
    (folder / "ears" / "notes.txt").write_text("root: private")
    (folder / "secret.json").write_text('"root: private"')
    (folder / "ears" / "linked.json").symlink_to(folder / "secret.json")
    config = f'[chains.docs]\ntargets = ["hash:8"]\n[server.browser_models]\nears = "{folder / "ears"}"\n'
    with (
        a_ledger("sqlite", folder) as url,
        gateway_server(config, folder=folder, database=url) as running,
    ):
        yield running


@pytest.mark.parametrize("name", OWN)
def test_a_model_of_the_operators_is_served_by_its_name_and_kept_until_it_changes(
    name: str, operators: RunningServer
) -> None:
    with operators.client(headers=rights(operators)) as client:
        first = client.get(f"/ui/models/ears/{name}")
        assert (first.status_code, first.json()) == (200, {"name": name})
        again = client.get(f"/ui/models/ears/{name}", headers={"if-none-match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert first.headers["cache-control"] == "private, no-cache"


@pytest.mark.parametrize(
    "path",
    [
        "ears/notes.txt",
        "ears/linked.json",
        "ears/../secret.json",
        "ears/%2e%2e/secret.json",
        "ears/onnx/../../secret.json",
        "ears//config.json",
        "ears/onnx/config.json",
        "ears/encoder_model.onnx",
        "ears",
        "ears/",
        "Ears/config.json",
        "other/config.json",
    ],
)
def test_nothing_else_of_an_operators_folder_is_served(path: str, operators: RunningServer) -> None:
    with operators.client(headers=rights(operators)) as client:
        answer = client.get(f"/ui/models/{path}")
    assert answer.status_code in (400, 404), answer.text
    assert "private" not in answer.text


def test_an_operators_model_is_for_keys_that_read_and_may_use_all_chains(operators: RunningServer) -> None:
    with operators.client() as client:
        for given, status in (
            ({"scopes": {"read"}}, 200),
            ({"scopes": {"classify"}}, 404),
            ({"scopes": {"chat"}}, 403),
            ({"scopes": {"read"}, "chains": frozenset({"docs"})}, 404),
        ):
            answer = client.get("/ui/models/ears/config.json", headers=rights(operators, **given))
            assert answer.status_code == status, (given, answer.text)


def test_a_model_for_labels_is_for_keys_that_read_or_classify(tmp_path: Path) -> None:
    folder = text_classifier(tmp_path / "moods")
    config = f'[chains.moods]\ntask = "classification"\ntargets = ["local:{folder}"]\n'
    with (
        a_ledger("sqlite", tmp_path) as url,
        gateway_server(config, folder=tmp_path, database=url) as server,
        server.client() as client,
    ):
        for scopes, status in (({"read"}, 200), ({"classify"}, 200), ({"embed"}, 404), ({"chat"}, 403)):
            answer = client.get("/ui/models/moods/config.json", headers=rights(server, scopes=scopes))
            assert answer.status_code == status, (scopes, answer.text)
            if status == 200:
                assert answer.json()["hf_gateway"] == {"labels": list(EMOTIONS), "problem_type": None}
