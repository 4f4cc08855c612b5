"""Keys in the keyring of the operating system: a real one, stored for one origin, found by requests, never in the way."""

import asyncio
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hf_gateway import Gateway
from hf_gateway.keys import os_keyring
from hf_gateway.keys.credentials import HUB, KEYRING, find_credential, origin_of
from hf_gateway.keys.os_keyring import KeyringUnusable
from hf_gateway.storage.files import data_home
from hf_gateway.values.secret import Secret
from tests.servers import unit_vectors
from tests.servers.openai import FakeOpenAI
from tests.support.keyrings import KINDS, SecretService, encrypted_file, in_force, real_keyring, require_secret_service
from tests.support.late import COLLECTED

if COLLECTED:
    import keyring
    import keyring.backend
    import keyring.errors


KEY, NEW = "hf_SuperSecretValue0123456789", "hf_AnotherSecretValue987654321"
OURS = origin_of(HUB)
MINE = "https://my-tei:8080"


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SecretService]:
    """gnome-keyring, on a bus of its own."""
    with real_keyring("gnome-keyring", tmp_path, monkeypatch) as started:
        yield started


@pytest.fixture(params=KINDS)
def ring(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Each of the real keyrings."""
    with real_keyring(request.param, tmp_path, monkeypatch) as started:
        yield started


def revealed(url: str, **arguments: Any) -> str | None:
    found = find_credential(url, environment={}, **arguments)
    return found.secret.reveal() if found else None


def test_a_key_is_stored_read_back_and_found(ring: Any) -> None:
    assert os_keyring.store(OURS, Secret(KEY)) is None
    found = find_credential(HUB, environment={})
    assert found is not None
    assert (found.secret.reveal(), found.source) == (KEY, KEYRING)
    assert keyring.get_password("hf-gateway", OURS) == KEY
    assert KEY not in f"{found!r} {os_keyring.stored_keys()!r}"


def test_hugging_faces_key_serves_all_of_its_hosts_and_nobody_else(ring: Any) -> None:
    os_keyring.store(OURS, Secret(KEY))
    for url in (HUB, "https://router.huggingface.co/v1", "https://abc.us-east-1.aws.endpoints.huggingface.cloud"):
        found = find_credential(url, environment={})
        assert found is not None
        assert found.origin == origin_of(url)
    for url in ("http://huggingface.co", "https://huggingface.co.evil.example", "http://127.0.0.1:8080"):
        assert revealed(url) is None


def test_a_key_for_a_server_of_ones_own_goes_to_that_origin_only(ring: Any) -> None:
    os_keyring.store(MINE, Secret("mine"))
    assert revealed(f"{MINE}/embed") == "mine"
    for other in ("http://my-tei:8080", "https://my-tei:8081", "https://my-tei", HUB):
        assert revealed(other) is None


def test_a_request_takes_the_key_that_was_stored_for_its_server(ring: Any) -> None:
    with FakeOpenAI(models=None, api_key="mine") as server, FakeOpenAI(models=None) as other:
        os_keyring.store(origin_of(server.url), Secret("mine"))
        for each in (server, other):
            with Gateway("m", [f"openai:{each.url}"]) as gateway:
                assert gateway.embed(["one"]).vectors.tolist() == unit_vectors(["one"])
        assert {request.bearer for request in server.requests} == {"mine"}
        assert {request.bearer for request in other.requests} == {None}


def test_the_order_is_argument_environment_keyring_login(ring: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_login")
    os_keyring.store(OURS, Secret("hf_keyring"))
    steps: list[tuple[dict[str, Any], str]] = [
        ({"bound": Secret("bound"), "given": Secret("given"), "environment": {"HF_TOKEN": "hf_env"}}, "bound"),
        ({"given": Secret("given"), "environment": {"HF_TOKEN": "hf_env"}}, "given"),
        ({"environment": {"HF_TOKEN": "hf_env"}}, "hf_env"),
        ({"environment": {}}, "hf_keyring"),
    ]
    for arguments, expected in steps:
        found = find_credential(HUB, **arguments)
        assert found is not None
        assert found.secret.reveal() == expected
    os_keyring.erase(OURS)
    assert revealed(HUB) == "hf_login"


def test_the_switch_against_implicit_tokens_is_for_the_keyring_too(ring: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    os_keyring.store(OURS, Secret(KEY))
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
    assert revealed(HUB) is None


def test_storing_again_replaces_and_a_running_process_notices(ring: Any) -> None:
    os_keyring.store(OURS, Secret(KEY))
    assert revealed(HUB) == KEY
    before = os_keyring.store(OURS, Secret(NEW))
    assert before is not None
    assert before.origin == OURS
    assert revealed(HUB) == NEW


def test_erasing_leaves_nothing_behind(ring: Any) -> None:
    os_keyring.store(OURS, Secret(KEY))
    os_keyring.store(MINE, Secret("mine"))
    assert revealed(HUB) == KEY
    assert os_keyring.erase(OURS) is True
    assert revealed(HUB) is None
    assert keyring.get_password("hf-gateway", OURS) is None
    assert [each.origin for each in os_keyring.stored_keys()] == [MINE]
    assert os_keyring.erase(OURS) is False


def test_no_file_of_ours_holds_the_key(ring: Any, tmp_path: Path) -> None:
    os_keyring.store(OURS, Secret(KEY))
    files = [path for folder in (data_home(), tmp_path) for path in folder.rglob("*") if path.is_file()]
    assert files
    for path in files:
        assert KEY.encode() not in path.read_bytes()


def test_another_process_finds_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_secret_service()
    with SecretService() as started:
        own = os.environ | {"DBUS_SESSION_BUS_ADDRESS": started.address}
        # As an interpreter finds it by itself, among all the backends that are installed here.
        code = "from hf_gateway.keys import os_keyring as k, credentials as c\n"
        put = f"{code}print(k.store({OURS!r}, c.Secret({KEY!r})), k.stored_keys()[0].backend)"
        got = f"{code}print(c.find_credential(c.HUB, environment={{}}).secret.reveal() == {KEY!r})"
        for script, said in ((put, "None keyring.backends.SecretService.Keyring"), (got, "True")):
            done = subprocess.run(
                [sys.executable, "-c", script], env=own, capture_output=True, text=True, check=False, timeout=300
            )
            assert (done.stdout.strip(), done.stderr) == (said, "")


# Cheap for those who store nothing, bounded for the rest.


def test_keyring_is_not_even_imported_where_nothing_was_stored() -> None:
    code = (
        "import sys\nfrom hf_gateway.keys.credentials import find_credential\n"
        f"for url in ({HUB!r}, {MINE!r}): find_credential(url, environment={{}})\n"
        "print(sorted(name for name in sys.modules if name.split('.')[0] in ('keyring', 'secretstorage')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout.strip() == "[]"


class Counting:
    """A backend that counts how often it is asked, in front of a real one."""

    def __init__(self, real: Any) -> None:
        self.real, self.asked, self.threads = real, 0, set[str]()

    def get_password(self, service: str, name: str) -> str | None:
        self.asked += 1
        self.threads.add(threading.current_thread().name)
        found: str | None = self.real.get_password(service, name)
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


def test_the_keyring_is_asked_once_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with in_force(encrypted_file(tmp_path)):
        os_keyring.store(OURS, Secret(KEY))
        counting = Counting(keyring.get_keyring())
        monkeypatch.setattr(keyring, "get_keyring", lambda: counting)
        for _ in range(5):
            assert revealed(HUB) == KEY
        assert counting.asked == 1
        assert counting.threads == {"hf-gateway-keyring"}


def test_a_locked_keyring_is_said_once_and_passed_over(
    service: SecretService, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    os_keyring.store(OURS, Secret(KEY))
    service.lock()
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_login")
    assert [revealed(HUB), revealed(HUB)] == ["hf_login", "hf_login"]
    assert caplog.text.count("the keyring does not give it") == 1
    assert "KeyringLocked" in caplog.text
    assert KEY not in caplog.text


def test_a_keyring_that_hangs_holds_a_request_up_for_a_moment_only_and_its_late_answer_counts(
    service: SecretService, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    os_keyring.store(OURS, Secret(KEY))
    monkeypatch.setattr(os_keyring, "LOOKUP_TIMEOUT_S", 0.05)
    with service.hanging():
        assert revealed(HUB) is None
        assert "has not answered in time" in caplog.text
        asking = [thread for thread in threading.enumerate() if thread.name == "hf-gateway-keyring"]
        assert len(asking) == 1
        assert revealed(HUB) is None
        assert [thread for thread in threading.enumerate() if thread.name == "hf-gateway-keyring"] == asking
    asking[0].join(30)
    assert revealed(HUB) == KEY


def test_a_command_does_not_wait_for_ever_either(service: SecretService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os_keyring, "INTERACTIVE_TIMEOUT_S", 0.05)
    with service.hanging():
        with pytest.raises(KeyringUnusable, match="may be locked") as caught:
            os_keyring.store(OURS, Secret(KEY))
        assert KEY not in str(caught.value)
        assert os_keyring.stored_keys() == []
    # What was begun is ended before the bus goes.
    for thread in threading.enumerate():
        if thread.name == "hf-gateway-keyring":
            thread.join(30)


async def test_on_an_event_loop_it_is_what_was_found_before(ring: Any) -> None:
    await asyncio.to_thread(os_keyring.store, OURS, Secret(KEY))
    assert os_keyring.load(OURS) is None
    assert (await asyncio.to_thread(os_keyring.load, OURS)) == Secret(KEY)
    assert os_keyring.load(OURS) == Secret(KEY)
    await asyncio.to_thread(os_keyring.erase, OURS)
    assert (await asyncio.to_thread(os_keyring.load, OURS)) is None
    assert os_keyring.load(OURS) is None


async def test_an_async_request_takes_the_stored_key(ring: Any) -> None:
    with FakeOpenAI(models=None, api_key="mine") as server:
        await asyncio.to_thread(os_keyring.store, origin_of(server.url), Secret("mine"))
        async with Gateway("m", [f"openai:{server.url}"]) as gateway:
            assert (await gateway.aembed(["one"])).vectors.tolist() == unit_vectors(["one"])


def test_a_key_that_somebody_took_out_of_the_keyring_is_said_to_be_gone(
    ring: Any, caplog: pytest.LogCaptureFixture
) -> None:
    os_keyring.store(MINE, Secret("mine"))
    keyring.delete_password("hf-gateway", MINE)
    assert revealed(MINE) is None
    assert "it has no key for it any more" in caplog.text


# Keyrings that are none.


if COLLECTED:

    class Forgetful(keyring.backend.KeyringBackend):
        """Gives back something else."""

        priority = 1  # type: ignore[assignment]

        def __init__(self) -> None:
            super().__init__()
            self.kept: dict[str, str] = {}

        def get_password(self, service: str, username: str) -> str | None:
            return self.kept.get(username)

        def set_password(self, service: str, username: str, password: str) -> None:
            self.kept[username] = password[:4]

        def delete_password(self, service: str, username: str) -> None:
            del self.kept[username]

    class Talkative(Forgetful):
        """Fails, and quotes the key."""

        def set_password(self, service: str, username: str, password: str) -> None:
            raise keyring.errors.PasswordSetError(f"cannot store {password!r}")

    class InAFile(Forgetful):
        """Writes keys to a file in clear text, and says nothing of it."""

        def __init__(self, path: Path) -> None:
            super().__init__()
            self.file_path = str(path)

        def set_password(self, service: str, username: str, password: str) -> None:
            self.kept[username] = password
            Path(self.file_path).write_text(json.dumps(self.kept))

        def delete_password(self, service: str, username: str) -> None:
            super().delete_password(service, username)
            Path(self.file_path).write_text(json.dumps(self.kept))


def fail() -> Any:
    from keyring.backends.fail import Keyring

    return Keyring()  # type: ignore[no-untyped-call]


def null() -> Any:
    from keyring.backends.null import Keyring

    return Keyring()


def plain(folder: Path) -> Any:
    from keyrings.alt.file import PlaintextKeyring

    backend = PlaintextKeyring()
    backend.file_path = str(folder / "plain.cfg")
    return backend


def chain(*backends: Any) -> Any:
    from keyring.backends.chainer import ChainerBackend

    class Chain(ChainerBackend):
        pass

    Chain.__module__, Chain.backends = ChainerBackend.__module__, list(backends)
    return Chain()


def asks_at_the_terminal(folder: Path) -> Any:
    backend = encrypted_file(folder)
    del backend.keyring_key
    return backend


UNFIT: dict[str, tuple[Callable[[Path], Any], str]] = {
    "none, as on a server": (lambda _: fail(), "this machine offers none, as is usual for servers and containers"),
    "one that throws everything away": (lambda _: null(), "it throws away what it is given"),
    "one in clear text": (plain, "it keeps keys in clear text"),
    "a chain of such": (lambda folder: chain(plain(folder), null()), "clear text.*throws away"),
    "an empty chain": (lambda _: chain(), "this machine offers none"),
    "one that asks at the terminal": (asks_at_the_terminal, "it asks for its password at a terminal"),
    "one that does not give back": (lambda _: Forgetful(), "it did not give back what was stored"),
    "one in clear text that nobody knows": (
        lambda folder: InAFile(folder / "keys"),
        "it wrote the key to .*keys in clear",
    ),
    "one that quotes the key": (lambda _: Talkative(), "PasswordSetError: cannot store"),
}


@pytest.mark.parametrize(("make", "said"), UNFIT.values(), ids=UNFIT.keys())
def test_a_keyring_that_is_not_fit_is_refused_with_the_reason_and_another_way(
    make: Callable[[Path], Any], said: str, tmp_path: Path
) -> None:
    with in_force(make(tmp_path)), pytest.raises(KeyringUnusable, match=said) as caught:
        os_keyring.store(OURS, Secret(KEY))
    assert "set the token in the environment instead (HF_TOKEN" in str(caught.value)
    assert KEY not in str(caught.value)
    assert caught.value.__context__ is None
    assert os_keyring.stored_keys() == []
    assert KEY.encode() not in b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_of_a_chain_the_safe_member_is_taken_itself(tmp_path: Path) -> None:
    safe, open_one = encrypted_file(tmp_path), plain(tmp_path)
    with in_force(chain(open_one, safe)):
        os_keyring.store(OURS, Secret(KEY))
        assert os_keyring.stored_keys()[0].backend == "keyrings.alt.file.EncryptedKeyring"
        assert revealed(HUB) == KEY
    assert safe.get_password("hf-gateway", OURS) == KEY
    assert open_one.get_password("hf-gateway", OURS) is None


def test_what_stood_there_before_is_put_back_when_the_new_key_does_not_stay(tmp_path: Path) -> None:
    backend = Forgetful()
    backend.kept[OURS] = "hf_a"
    with in_force(backend), pytest.raises(KeyringUnusable):
        os_keyring.store(OURS, Secret(KEY))
    assert backend.kept[OURS] == "hf_a"


if COLLECTED:

    class Failing(Forgetful):
        """Stores, and is locked from then on."""

        def get_password(self, service: str, username: str) -> str | None:
            if self.kept:
                raise keyring.errors.KeyringLocked("locked")
            return None


def test_a_key_that_may_have_stayed_in_the_keyring_is_looked_for_by_logout() -> None:
    with in_force(Failing()), pytest.raises(KeyringUnusable, match="KeyringLocked"):
        os_keyring.store(OURS, Secret(KEY))
    assert os_keyring.has_stored_key(OURS)


def test_what_was_noted_before_is_put_back_when_the_new_key_does_not_stay(tmp_path: Path) -> None:
    with in_force(encrypted_file(tmp_path)):
        os_keyring.store(OURS, Secret(KEY))
    before = os_keyring.stored_keys()
    with in_force(Forgetful()), pytest.raises(KeyringUnusable):
        os_keyring.store(OURS, Secret(NEW))
    assert os_keyring.stored_keys() == before


def test_without_the_extra_it_is_said_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with in_force(encrypted_file(tmp_path)):
        os_keyring.store(OURS, Secret(KEY))
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(ImportError, match=r"pip install 'hf-gateway\[keyring\]'"):
        os_keyring.store(OURS, Secret(KEY))
    caplog.set_level(logging.WARNING)
    assert revealed(HUB) is None
    assert "pip install 'hf-gateway[keyring]'" in caplog.text
