"""Real keyrings for tests: gnome-keyring on a D-Bus of its own, and keyrings.alt's encrypted file."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import pytest

from tests.support.late import COLLECTED

if COLLECTED:
    import keyring


PROGRAMS = ("dbus-daemon", "gnome-keyring-daemon")
PATIENCE = 20.0
"""Seconds for what takes a tenth of one."""

# A bus that starts nothing by itself: with the desktop's services a locked keyring would open a window.
_BUS = """\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:path={folder}/bus</listen>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/>
  </policy>
</busconfig>
"""


class SecretService:
    """gnome-keyring with an unlocked collection; entering starts it, leaving ends it and its bus."""

    def __enter__(self) -> Self:
        """Start both, and wait until the service is on the bus."""
        with ExitStack() as undo:
            # Not tmp_path: the path of a socket has 107 characters at most.
            folder = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="hfg-")))
            (folder / "bus.conf").write_text(_BUS.format(folder=folder))
            self.address = f"unix:path={folder}/bus"
            own = {
                **os.environ,
                "HOME": str(folder),
                "XDG_RUNTIME_DIR": str(folder),
                "XDG_DATA_HOME": str(folder / "data"),
                "DBUS_SESSION_BUS_ADDRESS": self.address,
            }
            (folder / "data" / "keyrings").mkdir(parents=True)
            bus = ["dbus-daemon", f"--config-file={folder}/bus.conf", "--nofork", "--nopidfile", "--print-address"]
            started = undo.enter_context(_running(bus, own, stdout=subprocess.PIPE))
            assert started.stdout is not None
            started.stdout.readline()  # the address: from now on it listens
            service = ["gnome-keyring-daemon", "--unlock", "--components=secrets", "--foreground"]
            self._service = undo.enter_context(_running(service, own, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL))
            assert self._service.stdin is not None
            self._service.stdin.write(b"a password")
            self._service.stdin.close()
            self._wait_for_name()
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """End both."""
        self._undo.close()

    def lock(self) -> None:
        """Lock the collection; nobody is there to unlock it."""
        import secretstorage

        connection = self._connection()
        secretstorage.get_default_collection(connection).lock()
        connection.close()

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Stop the service meanwhile, so that it answers nobody."""
        self._service.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._service.send_signal(signal.SIGCONT)

    def _connection(self) -> Any:
        from jeepney.io.blocking import open_dbus_connection

        return open_dbus_connection(self.address)

    def _wait_for_name(self) -> None:
        from jeepney import MatchRule, message_bus
        from jeepney.io.blocking import Proxy

        connection = self._connection()
        bus = Proxy(message_bus, connection)
        rule = MatchRule(type="signal", interface="org.freedesktop.DBus", member="NameOwnerChanged")
        bus.AddMatch(rule)
        with connection.filter(rule) as changes:
            while not bus.NameHasOwner("org.freedesktop.secrets")[0]:
                connection.recv_until_filtered(changes, timeout=PATIENCE)
        connection.close()


@contextmanager
def _running(command: list[str], environment: dict[str, str], **pipes: Any) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, **pipes)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def require_secret_service() -> None:
    """Skip where the programs are missing."""
    if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
        pytest.skip(f"{' and '.join(missing)} not installed (Debian: gnome-keyring, dbus)")


@contextmanager
def in_force(backend: Any) -> Iterator[None]:
    """Have keyring use this backend meanwhile, and ask it anew for everything."""
    before = keyring.get_keyring()
    keyring.set_keyring(backend)
    try:
        yield
    finally:
        keyring.set_keyring(before)


def encrypted_file(folder: Path, password: str = "a password") -> Any:
    """Return keyrings.alt's encrypted file, which knows its password already."""
    pytest.importorskip("Cryptodome", reason="keyrings.alt encrypts with pycryptodomex")
    from keyrings.alt.file import EncryptedKeyring

    backend = EncryptedKeyring()
    backend.file_path = str(folder / "encrypted.cfg")
    backend.keyring_key = password
    return backend


KINDS = ("gnome-keyring", "encrypted file")


@contextmanager
def real_keyring(kind: str, folder: Path, patch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Have one of the real keyrings in force; skips where its programs are missing."""
    if kind == "encrypted file":
        with in_force(encrypted_file(folder)):
            yield keyring.get_keyring()
        return
    require_secret_service()
    from keyring.backends.SecretService import Keyring

    with SecretService() as started, in_force(Keyring()):
        patch.setenv("DBUS_SESSION_BUS_ADDRESS", started.address)
        yield started
