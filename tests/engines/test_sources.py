"""Where a model's files come from, in order, against a loopback Hub; with both majors of huggingface_hub."""

import functools
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hf_gateway.engines import sources
from hf_gateway.errors import ConfigError
from tests.servers.loopback import dead_url
from tests.servers.router import FakeHub, HubModel
from tests.support.publishing import safetensors

KEY = "hf_test"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that looks like a model; what is in the weights does not matter here."""
    made = tmp_path / "model"
    (made / "1_Pooling").mkdir(parents=True)
    (made / "config.json").write_text('{"hidden_size": 8}')
    (made / "1_Pooling" / "config.json").write_text('{"pooling_mode": "mean"}')
    (made / "model.safetensors").write_bytes(safetensors())
    (made / "pytorch_model.bin").write_bytes(b"pickle")
    (made / "modeling.py").write_text("raise SystemExit('code of the repository ran')")
    return made


Fetch = Callable[..., tuple[str, str]]


@pytest.fixture
def fetch(tmp_path: Path) -> Fetch:
    """Fetch with a cache of its own."""
    return functools.partial(_fetch, HF_HOME=str(tmp_path / "home"))


def _fetch(hub: FakeHub | str, model: str, revision: str | None = None, **environment: str) -> tuple[str, str]:
    """Fetch in a process of its own, since huggingface_hub reads its environment once; returns (outcome, told)."""
    code = """
    import sys
    from hf_gateway.keys.credentials import find_credential
    from hf_gateway.settings.config_file import hub_url
    from hf_gateway.engines.sources import fetch
    from hf_gateway.errors import GatewayError
    model, revision, bound, weights = sys.argv[1:5]
    from hf_gateway.values.secret import Secret
    credential = find_credential(hub_url(), bound=Secret(bound) if bound else None)
    try:
        files = fetch(model, revision or None, credential, weights=weights)
        print(files.source, "|", *sorted(str(path.relative_to(files.path)) for path in files.path.rglob("*") if path.is_file()))
    except GatewayError as error:
        print(type(error).__name__, "|", str(error).replace(chr(10), " "))
    """
    bound, weights = environment.pop("bound", ""), environment.pop("weights", "safetensors")
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), model, revision or "", bound, weights],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HF_ENDPOINT": hub if isinstance(hub, str) else hub.url, **environment},
    )
    assert done.returncode == 0, done.stderr
    assert KEY not in done.stdout + done.stderr
    outcome, _, told = done.stdout.strip().rpartition("\n")[2].partition(" | ")
    return outcome, told


def test_a_model_is_downloaded_without_pickles_or_code_and_then_found_in_the_cache(folder: Path, fetch: Fetch) -> None:
    with FakeHub({"org/model": HubModel(folder)}) as hub:
        expected = "1_Pooling/config.json config.json model.safetensors"
        assert fetch(hub, "org/model") == ("hub", expected)
        asked = hub.count()
        assert fetch(hub, "org/model") == ("cache", expected)
        assert hub.count() == asked
        assert all("authorization" not in request.headers for request in hub.requests)


@pytest.fixture
def both(folder: Path) -> Path:
    """A repository with graphs, plain and for particular machines, and with a dense layer."""
    for name in ("onnx/model.onnx", "onnx/model_qint8_avx512.onnx", "onnx/model_O4.onnx", "2_Dense/model.safetensors"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(safetensors())
    return folder


def test_where_nobody_reads_tensors_the_plain_graph_is_downloaded_in_their_place(both: Path, fetch: Fetch) -> None:
    with FakeHub({"org/model": HubModel(both)}) as hub:
        expected = "1_Pooling/config.json 2_Dense/model.safetensors config.json onnx/model.onnx"
        assert fetch(hub, "org/model", weights="graph") == ("hub", expected)
        assert fetch(hub, "org/model", weights="graph") == ("cache", expected)


def test_the_other_form_is_downloaded_when_it_is_wanted_later(both: Path, fetch: Fetch) -> None:
    with FakeHub({"org/model": HubModel(both)}) as hub:
        assert "onnx" not in fetch(hub, "org/model")[1]
        assert "onnx/model.onnx" in fetch(hub, "org/model", weights="graph")[1].split()
        outcome, told = fetch(hub, "org/model")
        assert outcome == "cache"
        assert {"model.safetensors", "onnx/model.onnx"} <= set(told.split())


def test_the_form_that_is_here_is_better_than_nothing(both: Path, fetch: Fetch) -> None:
    with FakeHub({"org/model": HubModel(both)}) as hub:
        fetch(hub, "org/model", weights="graph")
    outcome, told = fetch(dead_url(), "org/model")
    assert outcome == "cache"
    assert "onnx/model.onnx" in told


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"HF_HOME": "/somewhere"},
        {"HF_HOME": "~/there"},
        {"HF_HUB_CACHE": "$HOME/cache"},
        {"HUGGINGFACE_HUB_CACHE": "/old"},
        {"HUGGINGFACE_HUB_CACHE": "/old", "HF_HUB_CACHE": "/new"},
        {"XDG_CACHE_HOME": "/xdg"},
    ],
    ids=str,
)
def test_the_hubs_cache_is_found_where_the_library_has_it(environment: dict[str, str]) -> None:
    code = """
    from pathlib import Path
    from hf_gateway.hub.cached_files import default_cache
    ours = default_cache()
    import huggingface_hub.constants
    assert default_cache() == Path(huggingface_hub.constants.HF_HUB_CACHE), "by its own word"
    print(ours, huggingface_hub.constants.HF_HUB_CACHE, sep="|")
    """
    names = ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME")
    others = {name: value for name, value in os.environ.items() if name not in names}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=True,
        env={**others, **environment},
    )
    ours, theirs = done.stdout.strip().split("|")
    assert ours == theirs


def test_a_path_comes_before_everything_and_needs_nobody(folder: Path, fetch: Fetch) -> None:
    assert fetch(dead_url(), str(folder))[0] == "path"


def test_the_package_comes_before_the_hub(fetch: Fetch) -> None:
    outcome, told = fetch(dead_url(), "all-MiniLM-L6-v2")
    assert outcome == "package"
    assert "model.safetensors" in told


def test_a_pinned_revision_is_not_served_from_a_package_of_no_revision() -> None:
    assert sources.find("all-MiniLM-L6-v2", "abc123") is None


def test_no_network_says_so_with_the_ways_out(folder: Path, fetch: Fetch) -> None:
    outcome, told = fetch(dead_url(), "org/model")
    assert outcome == "ModelNotFound"
    assert "the Hub cannot be reached" in told
    assert "hf download org/model" in told


def test_the_offline_switch_says_so_too(folder: Path, fetch: Fetch) -> None:
    with FakeHub({"org/model": HubModel(folder)}) as hub:
        outcome, told = fetch(hub, "org/model", HF_HUB_OFFLINE="1")
        assert (outcome, hub.count()) == ("ModelNotFound", 0)
    assert "is not on this machine" in told


def test_a_bad_revision_is_named(folder: Path, fetch: Fetch) -> None:
    with FakeHub({"org/model": HubModel(folder)}) as hub:
        assert fetch(hub, "org/model", "v9") == ("ModelNotFound", "org/model@v9 has no such revision")


def test_an_unknown_model_is_named(folder: Path, fetch: Fetch) -> None:
    with FakeHub({"org/model": HubModel(folder)}) as hub:
        outcome, told = fetch(hub, "org/modle")
    assert outcome == "ModelNotFound"
    assert "'org/modle'" in told


def test_a_gated_model_without_a_key_says_what_to_do(folder: Path, fetch: Fetch) -> None:
    with FakeHub({"org/model": HubModel(folder, gated="auto")}) as hub:
        outcome, told = fetch(hub, "org/model")
    assert outcome == "KeyMissing"
    assert "https://huggingface.co/org/model" in told
    assert "HF_TOKEN" in told


def test_a_gated_model_whose_licence_was_not_accepted_says_where(folder: Path, fetch: Fetch) -> None:
    with FakeHub({"org/model": HubModel(folder, gated="auto")}) as hub:
        outcome, told = fetch(hub, "org/model", bound=KEY)
    assert outcome == "GatedModel"
    assert "accept its licence" in told


def test_a_gated_model_with_access_is_downloaded_with_the_key(folder: Path, fetch: Fetch) -> None:
    with FakeHub({"org/model": HubModel(folder, gated="auto", readers=(KEY,))}) as hub:
        outcome, told = fetch(hub, "org/model", bound=KEY)
        assert outcome == "hub", told


def test_the_environments_token_is_not_sent_to_a_mirror(folder: Path, fetch: Fetch) -> None:
    with FakeHub({"org/model": HubModel(folder)}) as hub:
        assert fetch(hub, "org/model", HF_TOKEN=KEY)[0] == "hub"
        assert all("authorization" not in request.headers for request in hub.requests)


def test_a_download_that_lacks_its_weights_is_not_taken_for_the_model(folder: Path, fetch: Fetch) -> None:
    (folder / "model.safetensors").unlink()
    with FakeHub({"org/model": HubModel(folder)}) as hub:
        assert fetch(hub, "org/model")[0] == "hub"
        assert fetch(hub, "org/model")[0] == "hub"


@pytest.mark.parametrize("model", ["org/mo del", "a/b/c", "org/../x", "?"])
def test_a_name_that_is_neither_model_nor_folder_is_refused(model: str) -> None:
    with pytest.raises(ConfigError, match="neither a model id"):
        sources.find(model)


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no config\.json"):
        sources.find(str(tmp_path))


def test_a_package_can_bring_a_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Entry:
        name = "Org/Model"

        def load(self) -> Any:
            return lambda: folder

    monkeypatch.setattr(sources, "entry_points", lambda group: [Entry()] if group == "hf_gateway.models" else [])
    found = sources.find("org/model")
    assert found is not None
    assert (found.source, found.path) == ("package", folder)
