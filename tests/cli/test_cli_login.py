"""`hf-gateway login`, `logout` and `whoami`, with a real keyring and a Hub that knows whose token is whose."""

import fcntl
import io
import json
import os
import select
import subprocess
import sys
import termios
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from hf_gateway.cli import main
from hf_gateway.keys import os_keyring
from hf_gateway.keys.credentials import HUB, find_credential, origin_of
from hf_gateway.storage.files import data_home
from hf_gateway.values.secret import Secret
from tests.servers.hub_commits import FakeHubCommits, User
from tests.servers.loopback import dead_url, html
from tests.support.keyrings import KINDS, SecretService, encrypted_file, in_force, real_keyring, require_secret_service
from tests.support.late import COLLECTED

if COLLECTED:
    import keyring


SECRET = "sk-SuperSecretValue"
TOKEN, NEW, WRONG = "hf_AdasToken0123456789abcdef", "hf_AdasNewToken0123456789abc", "hf_NobodysToken0123456789abc"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHubCommits]:
    ada = User("ada", orgs={"acme": "write"})
    with FakeHubCommits({TOKEN: ada, NEW: ada}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


@pytest.fixture(params=KINDS)
def ring(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with real_keyring(request.param, tmp_path, monkeypatch) as started:
        yield started


@pytest.fixture
def file_ring(tmp_path: Path) -> Iterator[None]:
    with in_force(encrypted_file(tmp_path)):
        yield


class Run:
    """Runs commands in this process, with a token at stdin where one is given; nothing printed may hold a token."""

    def __init__(self, capsys: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch) -> None:
        self._capsys, self._patch = capsys, patch
        self.out = self.err = ""

    def __call__(self, *arguments: str, token: str | None = None) -> int:
        self._patch.setattr(sys, "stdin", io.StringIO("" if token is None else f"{token}\n"))
        try:
            code = main([*arguments, "--token-stdin"] if token is not None else list(arguments))
        except SystemExit as exited:  # argparse
            code = int(str(exited.code))
        self.out, self.err = self._capsys.readouterr()
        for each in (TOKEN, NEW, WRONG):
            assert each not in self.out + self.err
        return code

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    return Run(capsys, monkeypatch)


def kept(url: str) -> str | None:
    found = find_credential(url, environment={})
    return found.secret.reveal() if found else None


def test_login_stores_a_token_and_says_whose_it_is_and_what_it_may_do(ring: Any, run: Run, hub: FakeHubCommits) -> None:
    assert run("login", token=TOKEN) == 0
    assert "stored for" in run.out
    assert "read back" in run.out
    assert (
        "it is ada's: a write token; may read private repositories; may call Inference Providers; may write" in run.out
    )
    assert kept(hub.url) == TOKEN
    assert [request.bearer for request in hub.requests] == [TOKEN]


def test_login_again_replaces_the_token(ring: Any, run: Run, hub: FakeHubCommits) -> None:
    assert run("login", token=TOKEN) == 0
    assert run("login", token=NEW) == 0
    assert "replaced (the previous one was stored 20" in run.out
    assert kept(hub.url) == NEW


def test_logout_erases_it(ring: Any, run: Run, hub: FakeHubCommits) -> None:
    run("login", token=TOKEN)
    assert run("logout") == 0
    assert "erased from the keyring" in run.out
    assert kept(hub.url) is None
    assert keyring.get_password("hf-gateway", origin_of(hub.url)) is None
    assert run("logout") == 0
    assert "nothing was stored" in run.out


def test_whoami_says_which_token_is_in_force(ring: Any, run: Run, hub: FakeHubCommits) -> None:
    assert run("whoami") == 1
    assert "there is no key for" in run.err
    run("login", token=TOKEN)
    assert run("whoami") == 0
    for part in ("ada\n", "in acme", "the keyring of the operating system"):
        assert part in run.out


ROLES: dict[str, tuple[User, dict[str, Any]]] = {
    "read": (User("ada", "read"), {"can_read": True, "can_infer": None, "can_write": False}),
    "write": (User("ada", "write"), {"can_read": True, "can_infer": True, "can_write": True}),
    "inference only": (
        User("ada", "fineGrained", everywhere=["inference.serverless.write"]),
        {"can_read": False, "can_infer": True, "can_write": False},
    ),
    "inference for oneself": (
        User("ada", "fineGrained", scoped={("user", "ada"): ["inference.serverless.write", "repo.content.read"]}),
        {"can_read": True, "can_infer": True, "can_write": False},
    ),
    "one repository": (
        User("ada", "fineGrained", scoped={("model", "ada/x"): ["repo.write"]}),
        {"can_read": True, "can_infer": False, "can_write": True},
    ),
    "nothing": (User("ada", "fineGrained"), {"can_read": False, "can_infer": False, "can_write": False}),
    "a role nobody knows": (User("ada", "god"), {"can_read": None, "can_infer": None, "can_write": None}),
}


@pytest.mark.parametrize(("user", "may"), ROLES.values(), ids=ROLES.keys())
@pytest.mark.usefixtures("file_ring")
def test_what_a_token_may_do_is_said(user: User, may: dict[str, Any], run: Run, hub: FakeHubCommits) -> None:
    hub.users[TOKEN] = user
    assert run("login", "--json", token=TOKEN) == 0
    account = run.json["account"]
    assert {name: account[name] for name in may} == may
    assert run("whoami") == 0
    words = {True: "may ", False: "may not ", None: "perhaps may "}
    for name, what in (
        ("can_read", "read private"), ("can_infer", "call Inference"), ("can_write", "write to repositories"),
    ):  # fmt: skip
        assert f"\n{words[may[name]]}{what}" in run.out


@pytest.mark.usefixtures("file_ring")
def test_a_token_that_the_hub_refuses_is_not_stored(run: Run, hub: FakeHubCommits) -> None:
    assert run("login", token=WRONG) == 1
    assert "refuses this token, so it was not stored" in run.err
    assert os_keyring.stored_keys() == []


@pytest.mark.usefixtures("file_ring")
def test_a_wrong_token_does_not_replace_a_right_one(run: Run, hub: FakeHubCommits) -> None:
    run("login", token=TOKEN)
    assert run("login", token=WRONG) == 1
    assert kept(hub.url) == TOKEN


@pytest.mark.usefixtures("file_ring")
def test_without_the_hub_it_is_stored_and_said_to_be_unchecked(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    url = dead_url()
    monkeypatch.setenv("HF_ENDPOINT", url)
    assert run("login", token=TOKEN) == 0
    assert f"the token could not be checked: the Hub: no connection to {url}" in run.out
    assert kept(url) == TOKEN
    assert run("whoami") == 1
    assert "its permissions are unknown" in run.out


@pytest.mark.usefixtures("file_ring")
def test_a_proxy_in_the_hubs_place_is_no_reason_to_trust_or_to_fail(run: Run, hub: FakeHubCommits) -> None:
    hub.always(html(502))
    assert run("login", "--json", token=TOKEN) == 0
    assert (run.json["account"], "502" in run.json["unchecked"]) == (None, True)


@pytest.mark.usefixtures("file_ring")
def test_a_key_for_a_server_of_ones_own_is_nobody_elses_business(run: Run, hub: FakeHubCommits) -> None:
    assert run("login", "--origin", "https://my-tei:8080/v1", token="my-own-key") == 0
    assert hub.requests == []
    assert kept("https://my-tei:8080/embed") == "my-own-key"
    assert kept(hub.url) is None
    assert run("whoami", "--origin", "https://my-tei:8080", "--json") == 0
    assert (run.json["origin"], run.json["account"]) == ("https://my-tei:8080", None)
    assert run("login", "--origin", "http://far-away:8080", token="my-own-key") == 0
    assert "plain http" in run.out
    assert run("logout", "--all") == 0
    assert os_keyring.stored_keys() == []


@pytest.mark.usefixtures("file_ring")
@pytest.mark.parametrize(
    ("url", "said"), [("my-tei:8080", "is not an http or https URL"), ("https://ada:pw@my-tei", "carries a user name")]
)
def test_an_origin_that_is_none_is_refused(url: str, said: str, run: Run) -> None:
    for command in ("login", "logout", "whoami"):
        assert run(command, "--origin", url) == 2
        assert said in run.err
        assert "pw" not in run.err


def test_something_else_is_not_taken_for_a_hugging_face_token(run: Run) -> None:
    assert run("login", token="sk-0123456789abcdef0123456789") == 2
    assert "begins with hf_, and this one does not; for another server give its --origin" in run.err
    assert "sk-0" not in run.err


@pytest.mark.parametrize(
    "arguments",
    [
        [TOKEN],
        ["--token", TOKEN],
        [f"--token={TOKEN}"],
        ["--token-stdin", TOKEN],
        [f"--tok={TOKEN}"],
        [f"--key={TOKEN}"],
    ],
)
def test_a_token_on_the_command_line_is_refused_and_not_repeated(arguments: list[str], run: Run) -> None:
    assert run("login", *arguments) == 2
    if arguments[0].startswith("--to") and "tok=" not in arguments[0]:
        assert "the shell stores it in its history" in run.err


@pytest.mark.parametrize(
    "arguments",
    [
        [f"--token-stdin={SECRET}"],
        [f"--key={SECRET}"],
        ["--key", SECRET],
        [f"--tok={SECRET}"],
        [f"--{SECRET}"],
        [f"--json={SECRET}"],
        [SECRET],
        ["--token", SECRET],
        ["--origin", SECRET],
        ["--origin", f"https://{SECRET}@my-tei"],
    ],
)
def test_a_key_of_any_form_on_the_command_line_is_not_repeated(arguments: list[str], run: Run) -> None:
    assert run("login", *arguments) == 2
    assert run.err
    assert SECRET not in run.out + run.err


@pytest.mark.usefixtures("file_ring")
def test_what_cannot_be_marked_as_stored_is_not_stored(
    run: Run, hub: FakeHubCommits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "no-folder").write_text("")
    monkeypatch.setenv("HF_GATEWAY_HOME", str(tmp_path / "no-folder" / "home"))
    assert run("login", token=TOKEN) == 1
    assert "nothing was stored, since" in run.err
    assert keyring.get_password("hf-gateway", origin_of(hub.url)) is None


GONE: dict[str, str] = {
    "no keyring any more": "keyring.backends.null",
    "none, as on a server": "keyring.backends.fail",
}


@pytest.mark.parametrize("module", GONE.values(), ids=GONE.keys())
@pytest.mark.parametrize("arguments", [["logout"], ["logout", "--all"]], ids=["one", "all"])
def test_a_key_in_a_keyring_that_is_gone_is_forgotten_and_said_to_be_there_perhaps(
    arguments: list[str], module: str, run: Run, hub: FakeHubCommits, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with in_force(encrypted_file(tmp_path)):
        run("login", token=TOKEN)
    with in_force(import_module(module).Keyring()):
        assert run(*arguments) == 1
        assert f"{origin_of(hub.url)}: forgotten, and not used any more" in run.out
        assert "so the key may still be there, under the name 'hf-gateway'" in run.out
        assert os_keyring.stored_keys() == []
        assert kept(hub.url) is None
        assert caplog.text == ""
        assert run("logout") == 0


def damage() -> None:
    (mark,) = (data_home() / "keyring").glob("*.json")
    mark.write_text('{"origin": ')


@pytest.mark.usefixtures("file_ring")
@pytest.mark.parametrize("arguments", [["logout"], ["logout", "--all"]], ids=["one", "all"])
def test_a_damaged_note_of_what_is_stored_does_not_keep_the_key(
    arguments: list[str], run: Run, hub: FakeHubCommits
) -> None:
    run("login", token=TOKEN)
    damage()
    assert run("whoami") == 0
    assert run(*arguments) == 0
    assert f"{origin_of(hub.url)}: erased from the keyring" in run.out
    assert keyring.get_password("hf-gateway", origin_of(hub.url)) is None


@pytest.mark.usefixtures("file_ring")
def test_a_damaged_note_is_written_anew_by_login(run: Run, hub: FakeHubCommits) -> None:
    run("login", token=TOKEN)
    damage()
    assert run("login", token=NEW) == 0
    assert kept(hub.url) == NEW
    assert [each.origin for each in os_keyring.stored_keys()] == [origin_of(hub.url)]


@pytest.mark.usefixtures("file_ring")
def test_a_damaged_note_of_a_server_that_nobody_names_is_dropped_and_said(run: Run) -> None:
    run("login", "--origin", "https://my-tei:8080", token="my-own-key")
    damage()
    assert run("logout", "--all", "--json") == 1
    assert list(run.json["forgotten"].values()) == ["it was damaged, and did not name a server any more"]
    assert run("logout", "--all") == 0


@pytest.mark.parametrize(("text", "said"), [("", "is empty"), ("hf_with blank", "has a blank")])
def test_a_token_that_is_none_is_refused(text: str, said: str, run: Run, hub: FakeHubCommits) -> None:
    assert run("login", token=text) == 2
    assert said in run.err
    assert "with blank" not in run.err


def test_without_a_terminal_it_is_said_to_pipe_the_token_in(run: Run) -> None:
    assert run("login") == 2
    assert "pipe it in with --token-stdin" in run.err


def test_a_machine_without_a_keyring_is_told_to_use_the_environment(run: Run, hub: FakeHubCommits) -> None:
    from keyring.backends.fail import Keyring

    with in_force(Keyring()):  # type: ignore[no-untyped-call]
        assert run("login", token=TOKEN) == 1
        assert "this machine offers none" in run.err
        assert "set the token in the environment instead (HF_TOKEN" in run.err
        # Nothing was ever stored, so there is nothing to complain of.
        assert run("logout") == 0
        assert "nothing was stored" in run.out


def test_logout_says_where_a_token_is_still_found(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert run("logout", "--json") == 0
    assert run.json == {"erased": [], "forgotten": {}, "still": ["the environment variable HF_TOKEN"]}


@pytest.mark.usefixtures("file_ring")
def test_hugging_faces_hosts_share_one_key(run: Run) -> None:
    os_keyring.store(origin_of(HUB), Secret(TOKEN))
    assert run("logout", "--origin", "https://router.huggingface.co/v1", "--json") == 0
    assert run.json["erased"] == [origin_of(HUB)]


def test_at_the_prompt_nothing_of_the_token_is_shown(hub: FakeHubCommits) -> None:
    require_secret_service()
    with SecretService() as started:
        master, slave = os.openpty()
        own = os.environ | {"DBUS_SESSION_BUS_ADDRESS": started.address, "TERM": "dumb"}

        def take_terminal() -> None:
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

        with subprocess.Popen(
            [sys.executable, "-m", "hf_gateway", "login"], stdin=slave, stdout=slave, stderr=slave, env=own,
            start_new_session=True, preexec_fn=take_terminal,
        ) as process:  # fmt: skip
            os.close(slave)
            shown = until(master, b"(it is not shown): ")
            os.write(master, f"{TOKEN}\n".encode())
            shown += until(master, None)
            assert process.wait(300) == 0, shown
        os.close(master)
    assert b"it is ada's" in shown
    assert TOKEN.encode() not in shown


def until(terminal: int, text: bytes | None) -> bytes:
    """Read from a terminal until a text was shown; None: until nobody writes to it any more."""
    shown = b""
    while text is None or text not in shown:
        ready, _, _ = select.select([terminal], [], [], 300)
        assert ready, shown
        try:
            piece = os.read(terminal, 4096)
        except OSError:  # how Linux says that the other side is closed
            piece = b""
        if not piece:
            return shown
        shown += piece
    return shown
