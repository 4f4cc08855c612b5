"""Publishing: one commit or none, private, where the token may write, and again after whatever broke off."""

import json
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from hf_gateway import errors
from hf_gateway.cli import main
from hf_gateway.hub import HubConnector
from hf_gateway.hub.errors import NotConnected
from hf_gateway.hub.publish import PublishConflict, publish
from hf_gateway.keys import os_keyring
from hf_gateway.keys.credentials import Credential, origin_of
from hf_gateway.values.secret import Secret
from tests.servers.hub_commits import AnswerLost, Blob, Repo, User
from tests.servers.loopback import Reply, cut, dead_url, disconnect, hang, html
from tests.support.keyrings import encrypted_file, in_force
from tests.support.publishing import BASE, READER, REPO, STRANGER, TOKEN, Hub, adapter

FILES = {".gitattributes", "README.md", "adapter_config.json", "adapter_model.safetensors"}
PREUPLOAD, COMMIT = f"/api/models/{REPO}/preupload/main", f"/api/models/{REPO}/commit/main"
BATCH, VERIFY = f"/{REPO}.git/info/lfs/objects/batch", f"/{REPO}.git/info/lfs/objects/verify"
CREATE, VALIDATE, INFO = "/api/repos/create", "/api/validate-yaml", f"/api/models/{REPO}"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return adapter(tmp_path / "adapter")


def test_an_adapter_is_published_in_one_commit(hub: Hub, folder: Path) -> None:
    done = hub.publish(folder)
    (commit,) = hub.repos[REPO].ours
    assert set(commit.files) == FILES
    assert commit.files["adapter_model.safetensors"].large
    assert (done.commit, done.created, done.already_there) == (commit.oid, True, False)
    assert done.url == f"{hub.url}/{REPO}"
    assert hub.files["README.md"].decode() == done.plan.card


def test_it_is_private_unless_said_otherwise(hub: Hub, folder: Path) -> None:
    assert hub.publish(folder).private is True
    assert hub.repos[REPO].private is True
    assert hub.publish(folder, repo_id="ada/open", private=False).private is False
    assert hub.repos["ada/open"].private is False


@pytest.mark.parametrize(
    ("said", "private"),
    [
        ({"private": None}, True),
        ({"public": None}, True),
        ({"private": False}, False),
        ({"public": True}, False),
        ({"public": False}, True),
        ({"public": True, "private": False}, False),
    ],
)
def test_metadata_say_whether_it_is_private(said: dict[str, Any], private: bool, hub: Hub, folder: Path) -> None:
    with HubConnector(endpoint=hub.url) as connector:
        connector.connect(TOKEN).upload_artifact(folder, {"repo_id": REPO, "license": "mit", **said})
    assert hub.repos[REPO].private is private


@pytest.mark.parametrize("value", ["false", "no", "true", 0, 1, []])
@pytest.mark.parametrize("name", ["private", "public", "dry_run", "license_checked"])
def test_a_switch_is_true_or_false_and_nothing_like_it(name: str, value: Any, hub: Hub, folder: Path) -> None:
    with HubConnector(endpoint=hub.url) as connector:
        connector.connect(TOKEN)
        with pytest.raises(errors.InvalidRequest, match=f"{name} is true or false, not"):
            connector.upload_artifact(folder, {"repo_id": REPO, "license": "mit", name: value})
    if name != "public":
        with pytest.raises(errors.InvalidRequest, match=f"{name} is true or false, not"):
            hub.publish(folder, **{name: value})
    assert hub.requests == []


@pytest.mark.parametrize("value", [True, False])
def test_private_and_public_at_once_are_refused(value: bool, hub: Hub, folder: Path) -> None:
    with pytest.raises(errors.InvalidRequest, match="contradict each other"):
        hub.publish(folder, metadata={"private": value, "public": value})
    assert hub.requests == []


def test_a_repository_that_is_public_already_is_not_taken_for_a_private_one(hub: Hub, folder: Path) -> None:
    hub.repos[REPO] = Repo()
    with pytest.raises(errors.InvalidRequest, match="is public, but the adapter is to be private"):
        hub.publish(folder)
    assert hub.writes == []
    assert hub.publish(folder, private=False).commit == hub.repos[REPO].head.oid


def test_a_private_repository_stays_private(hub: Hub, folder: Path) -> None:
    hub.repos[REPO] = Repo(private=True)
    done = hub.publish(folder, private=False)
    assert done.private is True
    assert hub.repos[REPO].private is True


def test_a_dry_run_shows_all_of_it_and_sends_nothing(hub: Hub, folder: Path) -> None:
    shown = hub.publish(folder, dry_run=True)
    assert hub.requests == []
    assert (shown.commit, shown.url) == (None, None)
    done = hub.publish(folder)
    assert shown.plan.card == done.plan.card == hub.files["README.md"].decode()
    assert [file.path for file in shown.plan.files] == sorted(FILES - {".gitattributes"})
    assert {file.path: file.size for file in shown.plan.files} == {
        name: len(content) for name, content in hub.files.items() if name != ".gitattributes"
    }


def test_a_dry_run_needs_neither_network_nor_token_and_says_what_it_could_not_ask(folder: Path) -> None:
    shown = publish(folder, repo_id=REPO, endpoint=dead_url(), metadata={"license": "mit"}, dry_run=True)
    assert shown.plan.unchecked == (
        "whether the token has write access",
        "whether the repository exists already, and is public",
        f"the licence of {BASE}",
    )


def test_a_dry_run_knows_the_licences_that_the_hub_was_asked_for_before(folder: Path) -> None:
    with Hub("cc-by-nd-4.0") as hub:
        with HubConnector(endpoint=hub.url) as connector:
            assert connector.get_model_metadata(BASE) is not None
        before = len(hub.requests)
        with pytest.raises(errors.InvalidRequest, match="does not allow derived works"):
            hub.publish(folder, dry_run=True)
        assert len(hub.requests) == before


def test_publishing_again_commits_nothing_twice(hub: Hub, folder: Path) -> None:
    first = hub.publish(folder)
    again = hub.publish(folder)
    assert (again.commit, again.already_there, again.created) == (first.commit, True, False)
    assert len(hub.repos[REPO].ours) == 1


def test_a_change_is_one_more_commit(hub: Hub, folder: Path) -> None:
    first = hub.publish(folder)
    second = hub.publish(folder, metadata={"title": "Better"})
    assert second.commit != first.commit
    assert len(hub.repos[REPO].ours) == 2
    assert hub.files["README.md"].startswith(b"---")
    assert b"# Better" in hub.files["README.md"]


def test_what_is_in_the_repository_already_stays(hub: Hub, folder: Path) -> None:
    hub.repos[REPO] = Repo(private=True, files={"eval.txt": b"good"})
    hub.publish(folder)
    assert set(hub.files) == FILES | {"eval.txt"}


def test_a_repository_that_was_moved_gets_it_under_its_new_name(hub: Hub, folder: Path) -> None:
    hub.repos["ada/new-name"] = Repo(private=True)
    hub.moved[REPO] = "ada/new-name"
    done = hub.publish(folder)
    assert done.plan.repo_id == "ada/new-name"
    assert done.url == f"{hub.url}/ada/new-name"
    assert set(hub.repos["ada/new-name"].head.files) == FILES
    assert len(hub.repos["ada/new-name"].ours) == 1


def test_a_repository_that_somebody_makes_meanwhile_is_no_hindrance(hub: Hub, folder: Path) -> None:
    def make(request: Any) -> None:
        if request.path == CREATE:
            hub.repos[REPO] = Repo(private=True)

    hub.on_request = make
    assert hub.publish(folder).commit == hub.repos[REPO].head.oid  # create was answered by 409


def test_a_public_repository_that_somebody_makes_meanwhile_gets_nothing(hub: Hub, folder: Path) -> None:
    def make(request: Any) -> None:
        if request.path == CREATE:
            hub.repos[REPO] = Repo()

    hub.on_request = make
    with pytest.raises(errors.InvalidRequest, match="is public"):
        hub.publish(folder)
    assert hub.repos[REPO].ours == []


def test_a_commit_of_somebody_else_meanwhile_is_not_overwritten(hub: Hub, folder: Path) -> None:
    hub.repos[REPO] = Repo(private=True)

    def change(request: Any) -> None:
        if request.path == COMMIT and len(hub.repos[REPO].commits) == 1:
            hub.repos[REPO].add("theirs", {"README.md": Blob(b"# Theirs")})

    hub.on_request = change
    with pytest.raises(PublishConflict, match="ada/tiny-adapter was changed meanwhile"):
        hub.publish(folder)
    assert [commit.title for commit in hub.repos[REPO].ours] == ["theirs"]
    hub.publish(folder)
    assert len(hub.repos[REPO].ours) == 2


def test_a_409_at_the_commit_is_a_conflict_too(hub: Hub, folder: Path) -> None:
    hub.fail(Reply(409, {"error": "another conflicting operation is in progress"}), path=COMMIT)
    with pytest.raises(PublishConflict):
        hub.publish(folder)
    assert hub.publish(folder).commit == hub.repos[REPO].head.oid


def test_what_the_repositorys_gitignore_leaves_out_is_noticed(hub: Hub, folder: Path) -> None:
    hub.repos[REPO] = Repo(private=True, files={".gitignore": b"*.safetensors"})
    with pytest.raises(errors.BadResponse, match=r"lacks adapter_model.safetensors; is it excluded by a .gitignore"):
        hub.publish(folder)


def test_a_card_that_the_hub_does_not_take_is_said_before_anything_is_uploaded(hub: Hub, folder: Path) -> None:
    hub.fail(Reply(400, {"errors": [{"message": '"license" must be one of …'}], "warnings": []}), path=VALIDATE)
    with pytest.raises(errors.InvalidRequest, match='"license" must be one of'):
        hub.publish(folder)
    assert hub.count(PREUPLOAD) == 0


# Who may write.

REFUSED: dict[str, tuple[str | None, User | None, str, type[Exception], str]] = {
    # name: (token, whose it is, repository, error, what it says)
    "no token": (None, None, REPO, errors.KeyMissing, "run `hf-gateway login --origin http://127.0.0.1:"),
    "a token that is not valid": ("hf_WrongToken0123456789abcd", None, REPO, errors.AuthenticationFailed, "refuses the token"),
    "a read token": (READER, None, REPO, errors.PermissionDenied, "a read token"),
    "somebody else's name": (STRANGER, None, REPO, errors.PermissionDenied, "the token of bob has no write access to ada/"),
    "an organisation that one only reads": (
        TOKEN, User("ada", orgs={"acme": "read"}), "acme/x", errors.PermissionDenied, "has no write access to acme/x",
    ),
    "a fine-grained token for another repository": (
        TOKEN, User("ada", "fineGrained", scoped={("model", "ada/other"): ["repo.write"]}), REPO, errors.PermissionDenied,
        "has no write access to ada/tiny-adapter",
    ),
    "a fine-grained token for inference": (
        TOKEN, User("ada", "fineGrained", everywhere=["inference.serverless.write"]), REPO, errors.PermissionDenied,
        "may not write to repositories",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("token", "user", "repo", "kind", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_who_may_not_write_is_told_before_anything_is_sent(
    token: str | None, user: User | None, repo: str, kind: type[Exception], said: str, hub: Hub, folder: Path
) -> None:
    if user is not None:
        hub.users[TOKEN] = user
    with pytest.raises(kind, match=said):
        hub.publish(folder, token, repo_id=repo)
    assert hub.writes == []


def test_who_may_not_write_to_a_repository_that_is_there_is_told_too(hub: Hub, folder: Path) -> None:
    hub.repos[REPO] = Repo(private=True)
    with pytest.raises(errors.PermissionDenied, match="may not do this to ada/tiny-adapter"):
        hub.publish(folder, READER)
    assert hub.writes == []


@pytest.mark.parametrize(
    "user",
    [
        User("ada", orgs={"acme": "write"}),
        User("ada", "fineGrained", {"acme": "write"}, scoped={("org", "acme"): ["repo.write"]}),
    ],
)
def test_an_organisation_that_one_writes_for_is_fine(user: User, hub: Hub, folder: Path) -> None:
    hub.users[TOKEN] = user
    assert hub.publish(folder, repo_id="acme/x").created


def test_a_key_for_another_origin_is_not_sent(hub: Hub, folder: Path) -> None:
    key = Credential(Secret(TOKEN), origin_of("https://huggingface.co"), "a test")
    with pytest.raises(errors.InvalidRequest, match="is bound to https://huggingface"):
        publish(folder, repo_id=REPO, endpoint=hub.url, credential=key, metadata={"license": "mit"})
    assert hub.requests == []


def test_a_token_for_hugging_face_is_said_not_to_go_to_a_mirror(
    hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    said = (
        f"the token in the environment variable HF_TOKEN is for https://huggingface.co, and is not sent to {hub.url};"
    )
    with pytest.raises(errors.KeyMissing, match=said):
        hub.publish(folder, None)
    with HubConnector(endpoint=hub.url) as connector, pytest.raises(NotConnected, match=said) as caught:
        connector.connect()
    assert "set HF_TOKEN" not in str(caught.value)
    assert hub.writes == []
    monkeypatch.delenv("HF_TOKEN")
    with (
        HubConnector(environment={}) as connector,
        pytest.raises(NotConnected, match="run `hf-gateway login`, or set HF_TOKEN"),
    ):
        connector.connect()


def test_the_token_goes_to_the_hub_and_not_to_its_storage(hub: Hub, folder: Path) -> None:
    hub.publish(folder)
    stored = [request for request in hub.requests if request.path.startswith("/lfs-storage/")]
    assert [request.bearer for request in stored] == [None]
    assert {request.bearer for request in hub.requests if request not in stored} == {TOKEN}


# What breaks off.

FAULTS: dict[str, Callable[[], Any]] = {
    "the connection breaks": lambda: disconnect(reset=True),
    "the answer is cut": lambda: cut(b'{"files": [', status=200),
    "a proxy answers": lambda: html(502),
    "the hub fails": lambda: Reply(500, {"error": "Internal Error - We're working hard to fix this"}),
    "too many requests": lambda: Reply(429, {"error": "slow down"}),
    "it is refused": lambda: Reply(403, {"error": "Forbidden"}),
}
PLACES = {
    "create": CREATE,
    "validate": VALIDATE,
    "preupload": PREUPLOAD,
    "batch": BATCH,
    "upload": "",
    "verify": VERIFY,
    "commit": COMMIT,
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES.keys())
def test_whatever_breaks_off_leaves_nothing_half_published_and_can_be_repeated(
    place: str, fault: Callable[[], Any], hub: Hub, folder: Path
) -> None:
    weights = Blob((folder / "adapter_model.safetensors").read_bytes())
    hub.always(fault(), path=place or f"/lfs-storage/{weights.sha256}")
    with pytest.raises(errors.GatewayError) as caught:
        hub.publish(folder)
    assert REPO not in hub.repos or hub.repos[REPO].ours == []
    said = "".join(traceback.format_exception(caught.value)) + repr(vars(caught.value))
    assert TOKEN not in said
    assert caught.value.__cause__ is caught.value.__context__ is None
    hub.recover()
    done = hub.publish(folder)
    (commit,) = hub.repos[REPO].ours
    assert (done.commit, set(commit.files)) == (commit.oid, FILES)


@pytest.mark.parametrize("place", [COMMIT, CREATE], ids=["commit", "create"])
def test_an_answer_that_is_lost_does_not_make_it_happen_twice(place: str, hub: Hub, folder: Path) -> None:
    hub.fail(AnswerLost(), path=place)
    with pytest.raises(errors.ConnectFailed, match="nothing was published in part"):
        hub.publish(folder)
    done = hub.publish(folder)
    assert [commit.oid for commit in hub.repos[REPO].ours] == [done.commit]
    assert done.already_there is (place == COMMIT)


def test_a_repository_that_was_made_for_it_and_is_still_empty_is_mentioned(hub: Hub, folder: Path) -> None:
    hub.fail(disconnect(reset=True), path=COMMIT)
    with pytest.raises(errors.ConnectFailed, match=f"The repository {REPO} was created and is empty"):
        hub.publish(folder)
    hub.fail(disconnect(reset=True), path=COMMIT)
    with pytest.raises(errors.ConnectFailed) as caught:
        hub.publish(folder)
    assert "was created" not in str(caught.value)


def test_what_was_uploaded_before_it_broke_off_is_not_uploaded_again(hub: Hub, folder: Path) -> None:
    hub.fail(disconnect(reset=True), path=COMMIT)
    with pytest.raises(errors.ConnectFailed):
        hub.publish(folder)
    hub.publish(folder)
    assert sum(request.method == "PUT" for request in hub.requests) == 1


@pytest.mark.parametrize("place", ["upload", "commit"])
def test_a_process_that_is_killed_leaves_nothing_half_published(place: str, hub: Hub, folder: Path) -> None:
    weights = Blob((folder / "adapter_model.safetensors").read_bytes())
    path = COMMIT if place == "commit" else f"/lfs-storage/{weights.sha256}"
    hub.fail(hang(), path=path)
    code = (
        "import sys\nfrom hf_gateway.values.secret import Secret\nfrom hf_gateway.hub.publish import publish\n"
        "folder, repo_id, endpoint = sys.argv[1:]\n"
        "publish(folder, repo_id=repo_id, endpoint=endpoint, credential=Secret(input()), metadata={'license': 'apache-2.0'})"
    )
    arguments = [sys.executable, "-c", code, str(folder), REPO, hub.url]
    nobody = subprocess.DEVNULL
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=nobody, stderr=nobody, text=True) as process:
        try:
            assert process.stdin is not None
            process.stdin.write(f"{TOKEN}\n")
            process.stdin.flush()
            hub.wait_for(1, path=path, timeout=300)
        finally:
            process.kill()
    assert hub.repos[REPO].ours == []
    assert hub.publish(folder).commit == hub.repos[REPO].head.oid
    assert len(hub.repos[REPO].ours) == 1


def test_two_at_once_make_one_commit(hub: Hub, folder: Path) -> None:
    together = threading.Barrier(2)
    ended: list[Any] = []

    def wait(request: Any) -> None:
        if request.path == PREUPLOAD and hub.count(PREUPLOAD) <= 2:
            together.wait(30)

    hub.repos[REPO] = Repo(private=True)
    hub.on_request = wait

    def run() -> None:
        try:
            ended.append(hub.publish(folder).commit)
        except errors.GatewayError as error:
            ended.append(type(error))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(hub.repos[REPO].ours) == 1
    assert set(ended) <= {hub.repos[REPO].head.oid, PublishConflict}


# The card.


def front(card: str) -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return data


def test_the_card_says_what_was_trained_on_what_and_how_well(hub: Hub, folder: Path) -> None:
    hub.publish(
        folder,
        metadata={
            "title": "Tiny and polite",
            "description": "It greets.",
            "limitations": "It does nothing else.",
            "datasets": ["acme/talk", "a file of mine"],
            "language": ["en", "el"],
            "tags": ["greeting"],
            "metrics": {"accuracy": 0.91},
            "training": {"learning_rate": 1e-4, "optimizer": {"name": "adamw", "betas": [0.9, 0.99]}, "seed": None},
        },
    )
    card = hub.files["README.md"].decode()
    data = front(card)
    assert data["base_model"] == BASE
    assert data["base_model_relation"] == "adapter"
    assert (data["library_name"], data["pipeline_tag"], data["license"]) == ("peft", "text-generation", "apache-2.0")
    assert data["datasets"] == ["acme/talk", "a file of mine"]
    assert data["language"] == ["en", "el"]
    assert data["tags"] == ["lora", "transformers", f"base_model:adapter:{BASE}", "greeting"]
    (model,) = data["model-index"]
    assert model["name"] == "Tiny and polite"
    (result,) = model["results"]
    assert result["task"] == {"type": "text-generation"}
    assert result["dataset"] == {"name": "acme/talk", "type": "acme/talk"}
    assert result["metrics"] == [{"type": "accuracy", "value": 0.91, "name": "accuracy"}]
    for line in (
        "# Tiny and polite", "It greets.", "It does nothing else.", "| learning_rate | 0.0001 |", "| optimizer.name | adamw |",
        "| optimizer.betas | 0.9, 0.99 |", "| accuracy | 0.91 | [acme/talk](https://huggingface.co/datasets/acme/talk) |",
        "| target_modules | q_proj, v_proj |", "| parameters | 16 (F32) |", f'PeftModel.from_pretrained(base, "{REPO}")',
    ):  # fmt: skip
        assert line in card
    assert "[More Information Needed]" not in card
    assert "seed" not in card


def test_the_hubs_own_library_reads_the_card(hub: Hub, folder: Path) -> None:
    from huggingface_hub import ModelCard

    hub.publish(
        folder, metadata={"datasets": ["acme/talk"], "metrics": [{"name": "f1", "value": 0.5, "split": "test"}]}
    )
    data = ModelCard(hub.files["README.md"].decode()).data
    assert data.base_model == BASE
    assert [(each.metric_type, each.metric_value, each.dataset_split) for each in data.eval_results or []] == [
        ("f1", 0.5, "test")
    ]


def test_what_one_wrote_oneself_stays_and_the_metadata_are_joined(hub: Hub, folder: Path) -> None:
    own = "---\nlanguage: el\ntags: [mine, 'base_model:adapter:/home/ada/x']\nlicense: mit\n---\n# My adapter\n\nRead this.\n"
    (folder / "README.md").write_text(own)
    hub.publish(folder, metadata={"license": None, "language": "en"})
    card = hub.files["README.md"].decode()
    assert card.endswith("# My adapter\n\nRead this.\n")
    data = front(card)
    assert (data["language"], data["license"]) == ("en", "mit")
    assert data["tags"] == ["mine", "lora", f"base_model:adapter:{BASE}"]
    assert "/home/ada" not in card


def test_text_of_the_caller_cannot_break_out_of_the_metadata(hub: Hub, folder: Path) -> None:
    tags = ["a: b", "x'\"y", "# no comment", "---", "[", "!!python/object:os.system"]
    hub.publish(folder, metadata={"tags": tags, "training": {"a|b": "c\n| d | e |"}})
    card = hub.files["README.md"].decode()
    assert yaml.safe_load(card.split("\n---\n")[0].removeprefix("---\n"))["tags"][-6:] == tags
    assert "| a\\|b | c \\| d \\| e \\| |" in card
    with pytest.raises(errors.InvalidRequest, match="tags is one line"):
        hub.publish(folder, metadata={"tags": ["a\n---\n# evil"]})


def test_metadata_that_are_no_yaml_are_said_to_be_none(hub: Hub, folder: Path) -> None:
    (folder / "README.md").write_text("---\na: [\n---\n# Mine\n")
    with pytest.raises(errors.InvalidRequest, match=r"README.md: the Hub cannot read its metadata"):
        hub.publish(folder)


# Through the connector, and on the command line.


def test_metadata_go_by_the_names_of_other_connectors_too(hub: Hub, folder: Path) -> None:
    metadata = {"dataset": "acme/greetings", "training_config": {"epochs": 3}}
    card = hub.publish(folder, dry_run=True, metadata=metadata).plan.card
    assert front(card)["datasets"] == ["acme/greetings"]
    assert "| epochs | 3 |" in card


def test_the_connector_publishes(hub: Hub, folder: Path) -> None:
    with HubConnector(endpoint=hub.url) as connector:
        connector.connect(TOKEN)
        done = connector.upload_artifact(folder, {"repo_id": REPO, "license": "apache-2.0", "private": False})
    assert done.commit == hub.repos[REPO].head.oid
    assert hub.repos[REPO].private is False


async def test_the_connector_publishes_beside_an_event_loop(hub: Hub, folder: Path) -> None:
    async with HubConnector(endpoint=hub.url) as connector:
        await connector.aconnect(TOKEN)
        done = await connector.aupload_artifact(folder, {"repo_id": REPO, "license": "apache-2.0"})
    assert done.commit == hub.repos[REPO].head.oid


def test_the_command_shows_card_and_files(
    hub: Hub, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    (folder / "notes.csv").write_text("1")
    assert main(["hub", "publish", str(folder), REPO, "--license", "apache-2.0", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    for part in (
        "nothing was sent",
        "adapter_model.safetensors",
        "notes.csv",
        "base_model: acme/tiny-chat",
        "## Use",
        "(private)",
    ):
        assert part in printed
    assert hub.requests == []


def test_the_command_takes_what_the_card_is_to_say_from_options_and_files(
    hub: Hub, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    (tmp_path / "card.toml").write_text('license = "mit"\ntitle = "From the file"\ndatasets = ["a/b"]\n')
    (tmp_path / "training.json").write_text('{"epochs": 3}')
    arguments = ["--metadata", str(tmp_path / "card.toml"), "--training", str(tmp_path / "training.json")]
    arguments += ["--license", "apache-2.0", "--metric", "accuracy=0.5", "--tag", "x", "--tag", "y"]
    assert main(["hub", "publish", str(folder), REPO, "--dry-run", "--json", *arguments]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["dry_run"], said["commit"], said["plan"]["license"]) == (True, None, "apache-2.0")
    card = said["plan"]["card"]
    assert front(card)["tags"][-2:] == ["x", "y"]
    for part in ("# From the file", "| epochs | 3 |", "| accuracy | 0.5 |"):
        assert part in card


def test_the_command_publishes_with_the_token_of_the_keyring_and_prints_none(
    hub: Hub, folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    with in_force(encrypted_file(tmp_path)):
        os_keyring.store(origin_of(hub.url), Secret(TOKEN))
        assert main(["hub", "publish", str(folder), REPO, "--license", "apache-2.0"]) == 0
    printed = capfd.readouterr()
    assert f"published {hub.url}/{REPO} (private, new): 3 files in one commit" in printed.out
    assert hub.repos[REPO].head.oid in printed.out
    assert TOKEN not in printed.out + printed.err


@pytest.mark.parametrize(
    ("file", "option", "private"),
    [
        ("", [], True),
        ("public = true", [], False),
        ("private = false", [], False),
        ("public = true", ["--public"], False),
        ("public = false", ["--public"], False),
        ("private = true", ["--public"], False),
    ],
)
def test_the_command_takes_whether_it_is_public_from_option_and_file(
    file: str, option: list[str], private: bool, hub: Hub, folder: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    (tmp_path / "card.toml").write_text(f'license = "mit"\ndry_run = true\n{file}\n')
    command = ["hub", "publish", str(folder), REPO, "--json", "--metadata", str(tmp_path / "card.toml"), *option]
    assert main(command) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["dry_run"], said["plan"]["private"]) == (True, private)
    assert hub.requests == []


@pytest.mark.parametrize("line", ['public = "false"', 'private = "yes"', "public = 1"])
def test_the_command_takes_no_text_for_true(
    line: str,
    hub: Hub,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    (tmp_path / "card.toml").write_text(f'license = "mit"\n{line}\n')
    assert main(["hub", "publish", str(folder), REPO, "--metadata", str(tmp_path / "card.toml")]) == 1
    assert "is true or false, not" in capsys.readouterr().err
    assert hub.requests == []


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--metric", "accuracy"], 2, "--metric is a name and a number"),
        (["--metric", "accuracy=nan", "--dataset", "a/b"], 2, "--metric is a name and a number"),
        (["--metric", "accuracy=-inf", "--dataset", "a/b"], 2, "--metric is a name and a number"),
        (["--metadata", "nowhere.toml"], 2, "nowhere.toml: cannot be read"),
        (["--license", "mit"], 1, "publishing needs a token with write access"),
        ([], 1, "license: is missing"),
    ],
)
def test_the_command_says_what_is_missing(
    arguments: list[str], code: int, said: str, hub: Hub, folder: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    dry = [] if said.startswith("publishing") else ["--dry-run"]
    assert main(["hub", "publish", str(folder), REPO, *dry, *arguments]) == code
    printed = capsys.readouterr().err
    assert said in printed
    assert "Traceback" not in printed
