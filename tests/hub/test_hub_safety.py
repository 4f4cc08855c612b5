"""Where requests go and where files are written, whatever somebody else names: hosts, redirects, ids, revisions, paths."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_gateway import errors
from hf_gateway.hub import HubConnector, names, queries
from hf_gateway.testing import ManualClock
from tests.servers.hub import COMMIT, Listed, ReadHub, Storage, whoami
from tests.servers.loopback import Recorded, Reply, redirect

TOKEN = "hf_abcDEF0123456789"
NEVER_CALLED = [
    "http://169.254.169.254",
    "http://169.254.169.254:80/latest/meta-data",
    "https://169.254.0.7/",
    "http://[fe80::1]",
    "http://[::ffff:169.254.169.254]",
    "http://[64:ff9b::a9fe:a9fe]",
    "http://[2002:a9fe:a9fe::1]",
    "http://[fd00:ec2::254]",
    "http://100.100.100.200",
    "http://192.0.0.192",
    "http://0.0.0.0",
    "http://[::]",
    "http://224.0.0.1",
    "http://metadata.google.internal",
    "http://METADATA.google.internal.",
]
RESOLVED = ["http://2852039166", "http://0xa9fea9fe", "http://0251.0376.0251.0376", "http://169.254.43518"]
"""169.254.169.254 as the resolver of most systems reads it."""


@pytest.mark.parametrize("url", NEVER_CALLED)
def test_a_hub_at_a_metadata_service_or_a_link_local_address_is_refused_when_it_is_named(
    url: str, tmp_path: Path
) -> None:
    with pytest.raises(errors.ConfigError, match="never called"):
        HubConnector(endpoint=url, cache=tmp_path)


@pytest.mark.parametrize("url", NEVER_CALLED)
def test_so_is_one_that_the_environment_names(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", url)
    with pytest.raises(errors.ConfigError, match="never called"):
        HubConnector()


@pytest.mark.parametrize("url", RESOLVED)
def test_a_name_that_leads_there_is_refused_before_anything_is_sent(url: str, tmp_path: Path) -> None:
    with pytest.raises(errors.ConnectFailed, match="never called"):
        HubConnector(endpoint=url, cache=tmp_path, environment={}).get_model_metadata("a/b")


def test_a_name_that_resolves_to_it_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answer = [(2, 1, 6, "", ("10.0.0.1", 443)), (10, 1, 6, "", ("fe80::5%eth0", 443, 0, 2))]
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: answer)
    with pytest.raises(errors.ConnectFailed, match="link-local"):
        HubConnector(endpoint="https://rebound.example", cache=tmp_path, environment={}).get_model_metadata("a/b")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://user:secret@hub.example", "user name or password"),
        ("http://user@hub.example", "user name or password"),
        ("http://hub.example#part", "fragment"),
        ("file:///etc/passwd", "not an http or https URL"),
        ("ftp://hub.example", "not an http or https URL"),
        ("gopher://hub.example", "not an http or https URL"),
        ("hub.example", "not an http or https URL"),
        ("http://", "not an http or https URL"),
        ("http://hub.example:99999", "is not a URL"),
    ],
)
def test_a_url_that_is_none_or_carries_a_password_is_refused_without_showing_it(
    url: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(errors.ConfigError, match=said) as caught:
        HubConnector(endpoint=url, cache=tmp_path)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8090", "http://10.0.0.5", "http://hub.internal", "https://[::1]:8"])
def test_a_mirror_in_the_house_is_a_hub_like_any_other(url: str, tmp_path: Path) -> None:
    assert HubConnector(endpoint=url, cache=tmp_path).connect(TOKEN).endpoint == url


# Redirects


@pytest.fixture
def connect(tmp_path: Path) -> Iterator[Callable[[ReadHub], HubConnector]]:
    made = []

    def make(hub: ReadHub) -> HubConnector:
        made.append(HubConnector(endpoint=hub.url, cache=tmp_path / "cache", clock=ManualClock(), environment={}))
        return made[-1].connect(TOKEN)

    yield make
    for each in made:
        each.close()


ACCOUNTS = {TOKEN: whoami("ada")}


@pytest.mark.parametrize(
    "where", ["http://127.0.0.1:9/x", "http://169.254.169.254/latest/meta-data", "//127.0.0.1:9/x"]
)
def test_metadata_that_are_elsewhere_are_not_fetched(connect: Callable[[ReadHub], HubConnector], where: str) -> None:
    with ReadHub({"a/b": Listed()}, accounts=ACCOUNTS) as hub:
        hub.fail(redirect(where))
        with pytest.raises(errors.BadResponse, match="redirects to another server"):
            connect(hub).get_model_metadata("a/b")


def test_a_circle_of_redirects_ends(connect: Callable[[ReadHub], HubConnector]) -> None:
    with ReadHub(accounts=ACCOUNTS) as hub:
        hub.always(redirect("/api/models/a/b"))
        with pytest.raises(errors.BadResponse):
            connect(hub).get_model_metadata("a/b")
        assert hub.count() < 10


def _itself(target: str, number: int) -> str:
    return target


def _in_turn(target: str, number: int) -> str:
    return f"{target.partition('&turn=')[0]}&turn={number % 3}"


def _on_and_on(target: str, number: int) -> str:
    return f"{target.partition('&turn=')[0]}&turn={number}"


ENDLESS: dict[str, tuple[Callable[[str, int], str], bool, str]] = {
    "a page that is its own next one": (_itself, False, "form a cycle"),
    "pages in a circle": (_in_turn, False, "form a cycle"),
    "a page with nothing on it": (_on_and_on, True, "after an empty page"),
    "pages without an end": (_on_and_on, False, "more than 40 files on 20 pages"),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_a_list_of_files_without_an_end_is_given_up(
    connect: Callable[[ReadHub], HubConnector], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    following, empty, said = ENDLESS[name]

    class Endless(ReadHub):
        def handle(self, request: Recorded) -> Reply:
            if "/tree/" not in request.path:
                return super().handle(request)
            files = [
                {"type": "file", "path": each, "oid": "0" * 40, "size": 1} for each in ("a.json", "model.safetensors")
            ]
            target = following(request.target, self.count(request.path))
            return Reply(200, [] if empty else files, {"link": f'<{self.url}{target}>; rel="next"'})

    monkeypatch.setattr(queries, "MAX_PAGES", 20)
    with Endless({"a/b": Listed(declared={"model.safetensors": 5})}, accounts=ACCOUNTS) as hub:
        with pytest.raises(errors.BadResponse, match=said):
            connect(hub).download_model("a/b", cache_dir=tmp_path / "files")
        assert hub.count() <= 25
        said_of_it = {"id": "a/b", "sha": COMMIT, "siblings": [{"rfilename": "model.safetensors"}]}
        hub.always(Reply(200, said_of_it), path="/api/models/a/b/revision/main")
        assert connect(hub).get_model_metadata("a/b") is not None  # without sizes
    assert not (tmp_path / "files").exists()


def test_a_search_whose_pages_go_round_in_a_circle_ends(connect: Callable[[ReadHub], HubConnector]) -> None:
    with ReadHub(accounts=ACCOUNTS) as hub:
        hub.always(Reply(200, [{"id": "a/b"}], {"link": '</api/models?cursor=1>; rel="next"'}), path="/api/models")
        assert [each.id for each in connect(hub).search_models(limit=9)] == ["a/b", "a/b"]


def test_a_next_page_that_is_no_url_is_a_bad_answer(connect: Callable[[ReadHub], HubConnector]) -> None:
    with ReadHub(accounts=ACCOUNTS) as hub:
        hub.always(Reply(200, [{"id": "a/b"}], {"link": '<http://[x>; rel="next"'}), path="/api/models")
        assert "invalid URL" in str(connect(hub).search_models(limit=9).reason)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    made.mkdir()
    (made / "config.json").write_text("{}")
    (made / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}" + b"w" * 5000)
    return made


def test_large_files_come_from_storage_elsewhere_and_the_token_does_not_go_there(
    connect: Callable[[ReadHub], HubConnector], folder: Path, tmp_path: Path
) -> None:
    with Storage() as storage, ReadHub({"a/b": Listed(folder)}, accounts=ACCOUNTS, storage=storage) as hub:
        found = connect(hub).download_model("a/b", cache_dir=tmp_path / "files")
        assert (found.path / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
        assert storage.count() > 0
        assert all("authorization" not in request.headers for request in storage.requests)
        assert all(request.bearer == TOKEN for request in hub.requests)


@pytest.mark.parametrize(
    "where",
    ["http://169.254.169.254/latest/meta-data/iam", "http://[fd00:ec2::254]/x", "http://metadata.google.internal/x"],
)
def test_a_file_that_a_mirror_sends_to_a_metadata_service_is_not_fetched(
    connect: Callable[[ReadHub], HubConnector], folder: Path, tmp_path: Path, where: str
) -> None:
    linked = {"location": where, "x-linked-size": "5", "x-linked-etag": '"x"', "x-repo-commit": COMMIT}
    with ReadHub({"a/b": Listed(folder)}, accounts=ACCOUNTS) as hub:
        hub.always(Reply(302, b"", linked), path=f"/a/b/resolve/{COMMIT}/model.safetensors")
        with pytest.raises(errors.ConnectFailed, match="never called"):
            connect(hub).download_model("a/b", cache_dir=tmp_path / "files")
    assert not list((tmp_path / "files").rglob("model.safetensors"))


# Paths


BAD_PATHS = [
    "../outside.json",
    "a/../../outside.json",
    "/etc/outside.json",
    "C:/outside.json",
    "c:\\outside.json",
    "a\\..\\..\\outside.json",
    "\\\\server\\share\\outside.json",
    "a//b.json",
    "./b.json",
    "a/./b.json",
    "a\0b.json",
    "a\nb.json",
    "",
]


@pytest.mark.parametrize("path", BAD_PATHS)
def test_a_listing_that_leads_out_of_its_folder_downloads_nothing(
    connect: Callable[[ReadHub], HubConnector], folder: Path, tmp_path: Path, path: str
) -> None:
    listed = [{"type": "file", "path": each, "size": 1, "oid": "0" * 40} for each in ("config.json", path)]
    with ReadHub({"a/b": Listed(folder)}, accounts=ACCOUNTS) as hub:
        hub.always(Reply(200, listed), path=f"/api/models/a/b/tree/{COMMIT}")
        with pytest.raises(errors.BadResponse, match="outside of its folder"):
            connect(hub).download_model("a/b", cache_dir=tmp_path / "files", include=["*"])
    assert not (tmp_path / "files").exists()


@pytest.mark.parametrize("name", ["../../etc", "a/b\x1b[2J", "a\\b", "a/b\0"])
def test_a_name_that_is_none_downloads_nothing(
    connect: Callable[[ReadHub], HubConnector], tmp_path: Path, name: str
) -> None:
    with ReadHub(accounts=ACCOUNTS) as hub:
        hub.always(Reply(200, {"id": name, "sha": COMMIT}), path="/api/models/a/b/revision/main")
        with pytest.raises(errors.BadResponse, match="an invalid model name"):
            connect(hub).download_model("a/b", cache_dir=tmp_path / "files")
    assert not (tmp_path / "files").exists()


@pytest.mark.parametrize("commit", ["../../etc", "main", "g" * 40, "", None, COMMIT.upper(), f"{COMMIT}\n"])
def test_a_commit_that_is_none_downloads_nothing(
    connect: Callable[[ReadHub], HubConnector], tmp_path: Path, commit: Any
) -> None:
    with ReadHub(accounts=ACCOUNTS) as hub:
        hub.always(Reply(200, {"id": "a/b", "sha": commit}), path="/api/models/a/b/revision/main")
        with pytest.raises(errors.BadResponse, match="an invalid commit"):
            connect(hub).download_model("a/b", cache_dir=tmp_path / "files")


@pytest.mark.parametrize(
    "revision",
    [
        "../main",
        "a/../b",
        "/main",
        "a//b",
        "x@{1}",
        "main.lock",
        "",
        "-x",
        "a b",
        "a\\b",
        "x/",
        "ä\x00",
        "x~1",
        "x.lock/y",
    ],
)
def test_a_revision_that_git_would_not_take_is_refused(
    connect: Callable[[ReadHub], HubConnector], tmp_path: Path, revision: str
) -> None:
    with ReadHub(accounts=ACCOUNTS) as hub:
        with pytest.raises(ValueError, match="is not a revision"):
            connect(hub).download_model("a/b", revision, tmp_path)
        assert hub.count() == 0


def test_a_revision_with_a_slash_is_one_part_of_the_url(
    connect: Callable[[ReadHub], HubConnector], folder: Path, tmp_path: Path
) -> None:
    seen: list[Recorded] = []
    with ReadHub({"a/b": Listed(folder, refs=("refs/pr/1",))}, accounts=ACCOUNTS) as hub:
        hub.on_request = seen.append
        found = connect(hub).download_model("a/b", "refs/pr/1", tmp_path / "files")
    assert found.commit == COMMIT
    assert seen[0].target.startswith("/api/models/a/b/revision/refs%2Fpr%2F1?")
    assert (tmp_path / "files" / "models--a--b" / "refs" / "refs" / "pr" / "1").read_text() == COMMIT


TEXT = st.text(st.sampled_from("ab.-_/\\: A9é?#%@\0\n"), max_size=12) | st.text(max_size=8)


@given(TEXT)
def test_an_id_that_is_taken_is_one_that_huggingface_hub_takes(name: str) -> None:
    from huggingface_hub.utils import validate_repo_id

    try:
        found = names.model_id(name)
    except errors.InvalidRequest:
        return
    validate_repo_id(found)


@given(TEXT)
def test_a_path_that_is_taken_stays_in_its_folder(path: str) -> None:
    try:
        found = names.file_path(path)
    except errors.BadResponse:
        return
    inside = Path("/somewhere/inside")
    assert (inside / found).resolve().is_relative_to(inside)
    assert "\\" not in found


@pytest.mark.parametrize("name", ["gpt2", "BAAI/bge-small-en-v1.5", "a/b", "A-b_c.d/E_f-1.0", "all-MiniLM-L6-v2"])
def test_ids_as_they_are_on_the_hub_are_taken(name: str) -> None:
    assert names.model_id(name).endswith(name)
