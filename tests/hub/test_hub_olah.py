"""Against olah, a mirror of the Hub that other people wrote, over real git repositories."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from hf_gateway.hub import HubConnector
from tests.servers.olah import Olah, git, interpreter

pytestmark = [
    pytest.mark.real_server,
    pytest.mark.xdist_group("olah"),
    pytest.mark.skipif(interpreter() is None, reason="olah is not installed: see tests/servers/olah-requirements.txt"),
]
CHAT = Path(__file__).parents[1] / "models" / "tiny-chat"
MODEL = "org/tiny"


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with two commits; the first has the tag v1."""
    root = tmp_path_factory.mktemp("mirror")
    folder = root / "models" / "org" / "tiny"
    shutil.copytree(CHAT, folder)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode": "mean"}')
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message=one")
    git(folder, "tag", "v1")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Tiny\n")
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message=two")
    return root


@pytest.fixture(scope="module")
def olah(mirror: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Olah]:
    with Olah(mirror, tmp_path_factory.mktemp("olah")) as server:
        yield server


@pytest.fixture
def connector(olah: Olah, tmp_path: Path) -> Iterator[HubConnector]:
    with HubConnector(endpoint=olah.url, cache=tmp_path / "meta", environment={}) as made:
        yield made


def test_metadata_with_sizes_that_olah_says_in_its_tree_only(connector: HubConnector, mirror: Path) -> None:
    found = connector.get_model_metadata(MODEL)
    assert found is not None
    assert found.sha == git(mirror / "models" / "org" / "tiny", "rev-parse", "HEAD")
    sizes = {file.path: file.size for file in found.files}
    assert sizes["model.safetensors"] == (CHAT / "model.safetensors").stat().st_size
    assert found.size == sum(size or 0 for size in sizes.values())
    assert found.license == ("mit",)


def test_an_unknown_model_is_none(connector: HubConnector) -> None:
    assert connector.get_model_metadata("org/none") is None


def test_a_licence_and_a_verdict(connector: HubConnector) -> None:
    assert connector.check_license(MODEL).license_class == "permissive"
    found = connector.check_compatibility(MODEL)
    assert (found.verdict, found.needs.kv_per_token) == ("fits", 2 * 3 * 2 * 24 * 2)


def test_a_download_of_the_newest_and_of_a_tag(connector: HubConnector, mirror: Path, tmp_path: Path) -> None:
    folder = mirror / "models" / "org" / "tiny"
    newest = connector.download_model(MODEL, cache_dir=tmp_path / "files")
    assert newest.commit == git(folder, "rev-parse", "HEAD")
    expected = {each.name for each in CHAT.iterdir()} | {"1_Pooling/config.json"}
    assert set(newest.files) == expected
    assert all((newest.path / name).read_bytes() == (folder / name).read_bytes() for name in expected)
    tagged = connector.download_model(MODEL, "v1", tmp_path / "files")
    assert tagged.commit == git(folder, "rev-parse", "v1")
    assert tagged.path != newest.path
    # Nothing has changed but what is not wanted, so nothing comes over the network again.
    assert (tagged.path / "model.safetensors").resolve() == (newest.path / "model.safetensors").resolve()


def test_huggingface_hub_finds_what_ours_downloaded(connector: HubConnector, olah: Olah, tmp_path: Path) -> None:
    from huggingface_hub import hf_hub_download

    ours = connector.download_model(MODEL, cache_dir=tmp_path / "files")
    theirs = hf_hub_download(MODEL, "config.json", endpoint=olah.url, token=False, cache_dir=tmp_path / "files")
    assert Path(theirs) == ours.path / "config.json"


def test_a_search_that_olah_does_not_know_is_answered_from_the_cache(connector: HubConnector) -> None:
    connector.get_model_metadata(MODEL)
    found = connector.search_models("tiny")
    assert (found.source, [each.id for each in found]) == ("cache", [MODEL])
