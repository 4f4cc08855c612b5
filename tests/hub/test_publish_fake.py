"""The fake Hub that is published to, held to huggingface_hub's own client and to what was recorded of the real one."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.servers.hub_commits import FakeHubCommits, Repo, User
from tests.support.late import COLLECTED

if COLLECTED:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, hf_hub_download, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError


TOKEN, OTHER = "hf_ada0123456789", "hf_bob0123456789"
NAME = "ada/x"


@pytest.fixture
def hub() -> Iterator[FakeHubCommits]:
    with FakeHubCommits(
        {TOKEN: User("ada", orgs={"acme": "write", "read-only": "read"}), OTHER: User("bob")}
    ) as server:
        yield server


@pytest.fixture
def api(hub: FakeHubCommits) -> "HfApi":
    return HfApi(endpoint=hub.url, token=TOKEN)


def large(path: Path, content: bytes = b"weights") -> Any:
    """A large file as something open, which is sent by git-lfs wherever Xet is installed too."""
    path.write_bytes(content)
    return path.open("rb")


def test_hf_api_says_who_one_is(api: "HfApi") -> None:
    me = api.whoami()
    assert (me["name"], [each["name"] for each in me["orgs"]]) == ("ada", ["acme", "read-only"])
    assert me["auth"]["accessToken"]["role"] == "write"


def test_hf_api_makes_a_repository(api: "HfApi", hub: FakeHubCommits) -> None:
    assert api.create_repo(NAME, private=True) == f"{hub.url}/{NAME}"
    assert hub.repos[NAME].private
    assert api.model_info(NAME).private is True
    with pytest.raises(HfHubHTTPError, match="You already created this model repo"):
        api.create_repo(NAME)
    assert api.create_repo(NAME, exist_ok=True) == f"{hub.url}/{NAME}"
    assert api.create_repo("acme/y") == f"{hub.url}/acme/y"
    for elsewhere in ("bob/z", "read-only/z"):
        with pytest.raises(HfHubHTTPError, match="403"):
            api.create_repo(elsewhere)


def test_hf_api_commits_small_and_large_files(api: "HfApi", hub: FakeHubCommits, tmp_path: Path) -> None:
    api.create_repo(NAME)
    with large(tmp_path / "w") as weights:
        done = api.create_commit(
            NAME,
            [CommitOperationAdd("a/b.json", b"{}"), CommitOperationAdd("model.safetensors", weights)],
            commit_message="both",
            parent_commit=api.model_info(NAME).sha,
        )
    assert done.oid == hub.repos[NAME].head.oid == api.model_info(NAME).sha
    assert hub.repos[NAME].head.files["a/b.json"].content == b"{}"
    assert hub.repos[NAME].head.files["model.safetensors"].content == b"weights"
    assert [each.path for each in api.list_repo_tree(NAME, recursive=True)] == [
        ".gitattributes",
        "a/b.json",
        "model.safetensors",
    ]
    assert (
        Path(hf_hub_download(NAME, "a/b.json", endpoint=hub.url, token=TOKEN, cache_dir=tmp_path)).read_bytes() == b"{}"
    )
    folder = snapshot_download(NAME, endpoint=hub.url, token=TOKEN, cache_dir=tmp_path)
    assert Path(folder, "model.safetensors").read_bytes() == b"weights"
    api.create_commit(NAME, [CommitOperationDelete("a/b.json")], commit_message="one less")
    assert set(hub.repos[NAME].head.files) == {".gitattributes", "model.safetensors"}


def test_hf_api_commits_nothing_that_is_there_already(api: "HfApi", hub: FakeHubCommits, tmp_path: Path) -> None:
    api.create_repo(NAME)
    oids = []
    for _ in range(2):
        with large(tmp_path / "w") as weights:
            operations = [CommitOperationAdd("a.json", b"{}"), CommitOperationAdd("m.safetensors", weights)]
            oids.append(api.create_commit(NAME, operations, commit_message="both").oid)
    assert oids[0] == oids[1]
    assert len(hub.repos[NAME].ours) == 1
    assert sum(request.method == "PUT" for request in hub.requests) == 1


def test_hf_api_is_told_that_a_commit_has_happened_since(api: "HfApi") -> None:
    api.create_repo(NAME)
    before = api.model_info(NAME).sha
    api.create_commit(NAME, [CommitOperationAdd("a.txt", b"1")], commit_message="one", parent_commit=before)
    with pytest.raises(HfHubHTTPError, match="A commit has happened since"):
        api.create_commit(NAME, [CommitOperationAdd("a.txt", b"2")], commit_message="two", parent_commit=before)


def test_hf_api_follows_a_repository_that_was_moved(api: "HfApi", hub: FakeHubCommits, tmp_path: Path) -> None:
    hub.repos["ada/new"] = Repo()
    hub.moved[NAME] = "ada/new"
    assert api.model_info(NAME).id == "ada/new"
    with large(tmp_path / "w") as weights:
        api.create_commit(NAME, [CommitOperationAdd("m.safetensors", weights)], commit_message="moved")
    assert hub.repos["ada/new"].head.files["m.safetensors"].content == b"weights"


def test_hf_api_sees_nothing_of_somebody_elses_private_repository(api: "HfApi", hub: FakeHubCommits) -> None:
    hub.repos["bob/secret"] = Repo(private=True, files={"a": b"1"})
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("bob/secret")
    with pytest.raises(RepositoryNotFoundError):
        api.auth_check("bob/secret")
    assert api.auth_check("bob/secret", token=OTHER, write=True) is None


def test_hf_api_may_not_write_with_a_read_token(hub: FakeHubCommits) -> None:
    hub.users["hf_read0123456789"] = User("ada", role="read")
    hub.repos[NAME] = Repo()
    api = HfApi(endpoint=hub.url, token="hf_read0123456789")
    for act in (lambda: api.auth_check(NAME, write=True), lambda: api.create_repo("ada/y")):
        with pytest.raises(HfHubHTTPError, match="403"):
            act()
    assert api.auth_check(NAME) is None


CARDS: dict[str, tuple[str, str]] = {
    "no yaml": ("---\na: [\n---\n", "bad YAML"),
    "a path for a model": ("---\nbase_model: /home/ada/x\n---\n", '"base_model" with value "/home/ada/x" is not valid'),
}


@pytest.mark.parametrize(("card", "said"), CARDS.values(), ids=CARDS.keys())
def test_hf_api_is_told_what_is_wrong_with_a_card(card: str, said: str, api: "HfApi") -> None:
    api.create_repo(NAME)
    with pytest.raises(ValueError, match=said):
        api.create_commit(NAME, [CommitOperationAdd("README.md", card.encode())], commit_message="card")


def shape(value: Any) -> Any:
    """The names in a value, with what kind of thing each is."""
    if isinstance(value, dict):
        return {name: shape(each) for name, each in value.items()}
    if isinstance(value, list):
        return [shape(each) for each in value]
    return type(value).__name__


RECORDED: dict[str, Callable[[str], bool]] = {
    "create": lambda uri: uri.endswith("/api/repos/create"),
    "preupload": lambda uri: "/preupload/" in uri,
    "commit": lambda uri: "/commit/" in uri,
}


@pytest.mark.parametrize("which", RECORDED)
def test_the_fake_answers_in_the_form_that_was_recorded(which: str, recordings: Path, hub: FakeHubCommits) -> None:
    import httpx

    file = next((recordings / "huggingface_hub" / "errors").glob("409_*"))
    rows = yaml.safe_load(file.read_text())["interactions"]
    row = next(row for row in rows if RECORDED[which](row["request"]["uri"]))
    hub.repos["user/tmp_test_space"] = Repo()
    hub.users["hf_user0123456789"] = User("user")
    path = row["request"]["uri"].removeprefix("https://huggingface.co").replace("/spaces/", "/models/")
    body = row["request"]["body"]
    body = body if isinstance(body, bytes) else body.encode()
    sent = httpx.post(f"{hub.url}{path}", content=body, headers={"authorization": "Bearer hf_user0123456789"})
    real = row["response"]
    assert sent.status_code == real["status"]["code"]
    assert shape(sent.json()) == shape(json.loads(real["body"]["string"]))
