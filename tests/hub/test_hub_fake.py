"""The fake Hub, judged by huggingface_hub's own client: whatever ours asks, that one can ask as well."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.hub import COMMIT, Listed, ReadHub, Storage, whoami
from tests.support.late import COLLECTED

if COLLECTED:
    from huggingface_hub import HfApi, hf_hub_download, snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError
    from huggingface_hub.utils import parse_ratelimit_headers


TOKEN = "hf_abcDEF0123456789"
CHAT = Path(__file__).parents[1] / "models" / "tiny-chat"
MODEL = "org/tiny-chat"


@pytest.fixture
def storage() -> Iterator[Storage]:
    with Storage() as server:
        yield server


@pytest.fixture
def hub(storage: Storage) -> Iterator[ReadHub]:
    models = {
        f"a/m{number:02}": Listed(downloads=number, tags=("en",) if number % 2 else ("de",)) for number in range(30)
    }
    models[MODEL] = Listed(
        CHAT,
        pipeline_tag="text-generation",
        library_name="transformers",
        tags=("transformers", "license:mit"),
        card={"license": "mit"},
        parameters={"F32": 398_000},
        gguf={"total": 5, "architecture": "qwen2"},
        providers=[{"provider": "novita", "providerId": "x", "status": "live", "task": "conversational"}],
        refs=("main", "refs/pr/1"),
        downloads=1,
    )
    models["org/gated"] = Listed(CHAT, gated="manual", readers=("hf_reader",))
    models["org/private"] = Listed(CHAT, private=True, readers=(TOKEN,))
    accounts = {TOKEN: whoami("ada", "write"), "hf_reader": whoami("bob")}
    with ReadHub(models, accounts=accounts, moved={"old/name": MODEL}, storage=storage, page=4) as server:
        yield server


@pytest.fixture
def api(hub: ReadHub) -> "HfApi":
    return HfApi(endpoint=hub.url, token=TOKEN)


def test_whoami(api: "HfApi") -> None:
    assert api.whoami()["auth"]["accessToken"]["role"] == "write"
    with pytest.raises(HfHubHTTPError):
        api.whoami(token="hf_nobody")


def test_a_model_with_sizes_and_one_with_chosen_fields(api: "HfApi") -> None:
    found = api.model_info(MODEL, files_metadata=True)
    assert found.safetensors is not None
    assert found.safetensors.parameters == {"F32": 398_000}
    assert found.card_data is not None
    assert found.card_data.license == "mit"
    sizes = {each.rfilename: each.size for each in found.siblings or []}
    assert sizes["model.safetensors"] == (CHAT / "model.safetensors").stat().st_size
    expanded = api.model_info(MODEL, expand=["inferenceProviderMapping", "trendingScore", "gguf"])
    assert expanded.inference_provider_mapping is not None
    assert expanded.inference_provider_mapping[0].provider == "novita"
    assert (expanded.trending_score, expanded.gguf) == (1, {"total": 5, "architecture": "qwen2"})
    assert api.model_info(MODEL, revision="refs/pr/1").sha == COMMIT


def test_lists_go_from_page_to_page(api: "HfApi") -> None:
    assert [each.id for each in api.list_models(search="m2", sort="downloads", limit=6)][:2] == ["a/m29", "a/m28"]
    assert len(list(api.list_models(filter="en", limit=100))) == 15
    assert len(list(api.list_models(author=None, limit=None, search="a/"))) == 30


def test_trees_go_from_page_to_page(api: "HfApi") -> None:
    assert {each.path for each in api.list_repo_tree(MODEL, recursive=True)} == {each.name for each in CHAT.iterdir()}


def test_what_was_renamed_is_found(api: "HfApi") -> None:
    assert api.model_info("old/name").id == MODEL


def test_access(api: "HfApi", hub: ReadHub) -> None:
    api.auth_check("org/private")
    with pytest.raises(GatedRepoError):
        api.auth_check("org/gated")
    api.auth_check("org/gated", token="hf_reader")
    assert api.model_info("org/gated").gated == "manual"
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("a/none")
    with pytest.raises(RevisionNotFoundError):
        api.model_info(MODEL, revision="v9")
    with pytest.raises(HfHubHTTPError) as caught:
        HfApi(endpoint=hub.url, token=False).model_info("org/private")
    assert caught.value.response is not None
    assert caught.value.response.status_code == 401


def test_downloads_from_where_files_really_lie(hub: ReadHub, storage: Storage, tmp_path: Path) -> None:
    found = snapshot_download(MODEL, endpoint=hub.url, token=TOKEN, cache_dir=tmp_path)
    assert {each.name: each.read_bytes() for each in Path(found).iterdir()} == {
        each.name: each.read_bytes() for each in CHAT.iterdir()
    }
    assert storage.count() > 0
    assert all("authorization" not in request.headers for request in storage.requests)
    with pytest.raises(GatedRepoError):
        hf_hub_download("org/gated", "config.json", endpoint=hub.url, token=TOKEN, cache_dir=tmp_path)


def test_every_answer_says_what_is_left_of_the_limit(api: "HfApi", hub: ReadHub) -> None:
    from huggingface_hub.utils import get_session

    info = parse_ratelimit_headers(get_session().get(f"{hub.url}/api/models/{MODEL}").headers)
    assert info is not None
    assert (info.resource_type, info.remaining, info.limit) == ("api", 499, 500)
    hub.left["api"] = 0
    with pytest.raises(HfHubHTTPError, match="429"):
        api.model_info(MODEL)


def test_what_ours_puts_into_the_cache_theirs_finds_there(hub: ReadHub, tmp_path: Path) -> None:
    from huggingface_hub import scan_cache_dir

    from hf_gateway.hub import HubConnector

    with HubConnector(endpoint=hub.url, cache=tmp_path / "meta", environment={}) as connector:
        found = connector.download_model(MODEL, cache_dir=tmp_path / "files")
    asked = hub.count()
    for name in found.files:
        theirs = hf_hub_download(
            MODEL, name, revision=COMMIT, endpoint=hub.url, token=False, cache_dir=tmp_path / "files"
        )
        assert Path(theirs) == found.path / name
    assert hub.count() == asked
    (repository,) = scan_cache_dir(tmp_path / "files").repos
    assert (repository.repo_id, repository.size_on_disk) == (MODEL, found.bytes)
    assert not scan_cache_dir(tmp_path / "files").warnings


def test_what_theirs_put_into_the_cache_ours_does_not_fetch_again(hub: ReadHub, tmp_path: Path) -> None:
    from hf_gateway.hub import HubConnector

    snapshot_download(MODEL, endpoint=hub.url, token=False, cache_dir=tmp_path / "files")
    with HubConnector(endpoint=hub.url, cache=tmp_path / "meta", environment={}) as connector:
        found = connector.download_model(MODEL, cache_dir=tmp_path / "files")
    assert found.new_bytes == 0
