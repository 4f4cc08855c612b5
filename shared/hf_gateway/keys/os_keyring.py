"""Keys in the keyring of the operating system, one per origin: `hf-gateway login` stores them, requests read them.

The keyring is read only for origins that a key was stored for: a small marker file in the data folder says which, and contains no
secret. So a user who never logged in pays for one look at a missing file, and a user who did reads the keyring once per process.
It is read by a thread of its own for at most LOOKUP_TIMEOUT_S seconds, since a locked keyring waits for a person.
"""

import functools
import hashlib
import json
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from hf_gateway.errors import GatewayError
from hf_gateway.storage.files import data_home, write_atomically
from hf_gateway.storage.notices import notice_once
from hf_gateway.values.event_loops import running_loop
from hf_gateway.values.forks import fork_lock
from hf_gateway.values.logs import logger
from hf_gateway.values.secret import Secret

log = logger(__name__)

SERVICE = "hf-gateway"
"""The service name of the keys in the keyring; the user name there is the origin."""
LOOKUP_TIMEOUT_S = 5.0
"""How long a request waits for the keyring, once per process."""
INTERACTIVE_TIMEOUT_S = 120.0
"""How long a command waits, during which a user may type the keyring's password."""

INSTEAD = (
    "set the token in the environment instead (HF_TOKEN; for another server a variable that its target names: env:NAME)"
)

T = TypeVar("T")


class KeyringUnusable(GatewayError):
    """There is no keyring that may hold a key, or it failed to store or return one."""

    counts = False


@dataclass(frozen=True)
class Stored:
    """The record of a stored key in its marker file."""

    origin: str
    """The origin that the key is for."""
    backend: str
    """The class of the keyring's backend."""
    since: str
    """When it was stored: ISO 8601, UTC."""


def stored_keys() -> list[Stored]:
    """List the stored keys without reading the keyring; for damaged marker files see `unreadable_files`."""
    found = [_read_mark(path) for path in sorted(_folder().glob("*.json"))]
    return sorted((each for each in found if each is not None), key=lambda each: each.origin)


def has_stored_key(origin: str) -> bool:
    """Return whether a key was stored for an origin, without reading the keyring; True also for a damaged marker file."""
    return _mark(origin).is_file()


def unreadable_files() -> list[Path]:
    """List the marker files from which the origin cannot be read."""
    return [path for path in sorted(_folder().glob("*.json")) if _read_mark(path) is None and path.is_file()]


def store(origin: str, secret: Secret) -> Stored | None:
    """Store a key in the keyring and read it back.

    Args:
        origin: scheme, host and port that the key is for.
        secret: the key.

    Returns:
        The record of the key that was stored there before, or None.

    Raises:
        ImportError: the extra `keyring` is not installed.
        KeyringUnusable: no keyring is fit for it, or it did not return the key. A key stored before is still there.
    """
    before = _read_mark(_mark(origin))
    _run_lookup(functools.partial(_write, origin, secret, _mark(origin)), INTERACTIVE_TIMEOUT_S, secret)
    return before


def erase(origin: str) -> bool:
    """Remove a key from the keyring, and its marker file; returns whether there was a key.

    Raises:
        ImportError: the extra `keyring` is not installed.
        KeyringUnusable: the keyring could not be read. The marker file is removed nevertheless, so no request reads it again.
    """
    try:
        there = _run_lookup(functools.partial(_delete, origin), INTERACTIVE_TIMEOUT_S)
    except (ImportError, KeyringUnusable):
        _mark(origin).unlink(missing_ok=True)
        raise
    _mark(origin).unlink(missing_ok=True)
    return there


def look(origin: str) -> Secret | None:
    """Read a key from the keyring now, for a command whose user waits; None if it has no key.

    Raises:
        ImportError: the extra `keyring` is not installed.
        KeyringUnusable: the keyring could not be read.
    """
    value = _run_lookup(functools.partial(_read, origin), INTERACTIVE_TIMEOUT_S)
    return Secret(value, f"the key in the keyring for {origin}") if value else None


def load(origin: str) -> Secret | None:
    """Return the key stored for an origin, for a request; None if no key was stored or the keyring does not return it.

    A failure is logged once as a warning. The keyring is read once per process, and again after a login or logout. On an event
    loop it is not read: the result is what an earlier lookup found.
    """
    mark = _mark(origin)
    if running_loop() is not None:
        with _lock:
            known = _lookups.get(mark)
        return known.answer(0.0) if known is not None else None
    try:
        stat = os.stat(mark)  # noqa: PTH116 - a third of the time of Path's, once a request
    except OSError:
        if mark in _lookups:
            with _lock:
                _lookups.pop(mark, None)
        return None
    stamp = (stat.st_mtime_ns, stat.st_ino, os.getpid())
    with _lock:
        asked = _lookups.get(mark)
        if asked is None or asked.stamp != stamp:
            reading = _start_thread(functools.partial(_read, origin))
            asked = _lookups[mark] = _Lookup(origin, stamp, time.monotonic() + LOOKUP_TIMEOUT_S, reading)
    return asked.answer(asked.until - time.monotonic())


@dataclass(frozen=True)
class _Lookup:
    """One lookup in the keyring; its result is used as soon as it arrives."""

    origin: str
    stamp: tuple[int, int, int]
    until: float
    reading: "Future[str | None]"

    def answer(self, patience: float) -> Secret | None:
        problem = "it has no key for it any more"
        try:
            if value := self.reading.result(max(0.0, patience)):
                return Secret(value, f"the key in the keyring for {self.origin}")
        except NotYet:
            if patience <= 0 and time.monotonic() < self.until:
                return None  # on an event loop, while another thread still waits for it
            problem = "it has not answered in time; it may be locked, and waiting for its password"
        except (GatewayError, ImportError) as error:
            problem = str(error)
        notice_once(
            f"a key was stored for {self.origin}, but the keyring does not give it: {problem}. "
            "Going on without; `hf-gateway login` stores it again, `hf-gateway logout` forgets it"
        )
        return None


_lock = fork_lock()
_lookups: dict[Path, _Lookup] = {}


def _write(origin: str, secret: Secret, mark: Path) -> None:
    """Store a key with its marker file, read it back, and check that the keyring did not write it in clear text."""
    backend = _fit_backend()
    before = backend.get_password(SERVICE, origin)
    marked_before = mark.read_bytes() if mark.is_file() else None
    now = datetime.now(UTC).isoformat(timespec="seconds")
    written = json.dumps({"origin": origin, "backend": _name(backend), "since": now}, indent=2).encode()
    try:
        # The marker first: a key without one would be found by no request, and erased by no logout.
        write_atomically(mark, written)
    except OSError as error:
        raise KeyringUnusable(
            f"nothing was stored, since {mark} cannot be written ({error.strerror}); {INSTEAD}"
        ) from None
    try:
        _set(backend, origin, secret, before)
    except Exception:
        # If the key may have stayed in the keyring, its marker stays too, so that a logout looks there.
        if _has(backend, origin, before):
            _restore_mark(mark, marked_before)
        raise
    with suppress(OSError):
        # Once more: a request that asked meanwhile got the old key, and asks again when the marker is a newer file.
        write_atomically(mark, written)


def _has(backend: Any, origin: str, value: str | None) -> bool:
    try:
        return bool(backend.get_password(SERVICE, origin) == value)
    except Exception:  # noqa: BLE001 - keyring backends are plugins and may raise any exception
        return False


def _restore_mark(mark: Path, content: bytes | None) -> None:
    with suppress(OSError):
        if content is None:
            mark.unlink(missing_ok=True)
        else:
            write_atomically(mark, content)


def _set(backend: Any, origin: str, secret: Secret, before: str | None) -> None:
    backend.set_password(SERVICE, origin, secret.reveal())
    problem = None
    if backend.get_password(SERVICE, origin) != secret.reveal():
        problem = "it did not give back what was stored"
    elif (file := _clear_text(backend, secret)) is not None:
        problem = f"it wrote the key to {file} in clear text"
    if problem is not None:
        if before is None:
            _delete(origin)
        else:
            backend.set_password(SERVICE, origin, before)
        raise KeyringUnusable(f"{_name(backend)} is not fit for keys: {problem}, so it was taken out again; {INSTEAD}")


def _read(origin: str) -> str | None:
    value: str | None = _fit_backend().get_password(SERVICE, origin)
    return value


def _delete(origin: str) -> bool:
    from keyring.errors import PasswordDeleteError

    backend = _fit_backend()
    if backend.get_password(SERVICE, origin) is None:
        return False
    try:
        backend.delete_password(SERVICE, origin)
    except PasswordDeleteError:  # another process deleted it first
        return False
    return True


def _fit_backend() -> Any:
    """Return the keyring's backend that may hold a key. Raises ImportError, KeyringUnusable.

    Of a chain of backends this is the first fit member: the chain itself would fall back to clear text.
    """
    try:
        import keyring
    except ImportError:
        raise ImportError("the keyring needs a package: pip install 'hf-gateway[keyring]'") from None
    chosen = keyring.get_keyring()
    unfit = []
    for backend in _members(chosen):
        reason = _unfit(backend)
        if reason is None:
            return backend
        unfit.append(f"{_name(backend)}: {reason}")
    raise KeyringUnusable(f"there is no keyring here that may hold a key ({'; '.join(unfit)}); {INSTEAD}")


def _members(backend: Any) -> list[Any]:
    """Return the members of a chain of backends, which may be empty; for any other backend, itself."""
    if _name(backend).startswith("keyring.backends.chainer."):
        return list(backend.backends) or [_fail()]
    return [backend]


def _fail() -> Any:
    from keyring.backends import fail

    none: Any = fail.Keyring
    return none()


def _unfit(backend: Any) -> str | None:
    """Return why a key must not be stored in a backend; None if there is no known reason."""
    name = _name(backend)
    if name.startswith("keyring.backends.fail."):
        return "this machine offers none, as is usual for servers and containers"
    if name.startswith("keyring.backends.null."):
        return "it throws away what it is given"
    if name.startswith("keyrings.alt.") and "Encrypted" not in name:
        return "it keeps keys in clear text, or with others on the network"
    if name == "keyrings.alt.file.EncryptedKeyring" and "keyring_key" not in vars(backend):
        # Read from the instance: the property would ask at the terminal.
        return "it asks for its password at a terminal, in each process again"
    if "no enc" in str(getattr(backend, "scheme", "")):
        return "it does not encrypt"
    return None


def _clear_text(backend: Any, secret: Secret) -> str | None:
    """Return the backend's file if the key can be read in it, in clear text or in base64."""
    import base64

    path = getattr(backend, "file_path", None)
    if not isinstance(path, str | os.PathLike):
        return None
    try:
        content = Path(path).read_bytes()
    except OSError:
        return None
    raw = secret.reveal().encode()
    joined = b"".join(content.split())  # files of this kind break base64 into lines
    return str(path) if raw in content or base64.b64encode(raw) in joined else None


def _name(backend: Any) -> str:
    return f"{type(backend).__module__}.{type(backend).__qualname__}"


def _run_lookup(work: Callable[[], T], patience: float, secret: Secret | None = None) -> T:
    """Call the keyring in a thread of its own, and wait for it. Raises ImportError, KeyringUnusable."""
    failure: Exception
    try:
        return _start_thread(work, secret).result(patience)
    except NotYet:
        failure = KeyringUnusable(
            f"the keyring has not answered in {patience:.0f} s; it may be locked and waiting for its password; {INSTEAD}"
        )
    except (GatewayError, ImportError) as error:
        failure = error
    raise failure


def _start_thread(work: Callable[[], T], secret: Secret | None = None) -> "Future[T]":
    """Start a thread that calls the keyring; any exception becomes an error that does not contain the key."""
    future: Future[T] = Future()

    def ask() -> None:
        failure: Exception | None = None
        try:
            future.set_result(work())
        except (GatewayError, ImportError) as error:
            failure = error
        except Exception as error:  # noqa: BLE001 - keyring backends are plugins and may raise any exception
            said = f"{type(error).__name__}: {error}"
            failure = KeyringUnusable(f"the keyring failed: {secret.scrub(said) if secret else said}; {INSTEAD}")
        if failure is not None:
            # Without a traceback, whose frames would hold the key.
            future.set_exception(failure.with_traceback(None))

    # Not a pool: at its exit the interpreter would wait for a thread that waits for a person.
    threading.Thread(target=ask, name="hf-gateway-keyring", daemon=True).start()
    return future


def _folder() -> Path:
    return data_home() / "keyring"


def _mark(origin: str) -> Path:
    return _mark_of(origin, *map(os.environ.get, ("HF_GATEWAY_HOME", "XDG_DATA_HOME", "LOCALAPPDATA", "HOME")))


@functools.lru_cache(maxsize=256)
def _mark_of(origin: str, *_where: str | None) -> Path:
    """Return the marker file of an origin; cached by the variables that the folder depends on, since each request asks."""
    return _folder() / f"{hashlib.sha256(origin.encode()).hexdigest()[:16]}.json"


def _read_mark(path: Path) -> Stored | None:
    try:
        data = json.loads(path.read_bytes())
        return Stored(str(data["origin"]), str(data["backend"]), str(data["since"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None  # the file still says that there is a key, which is what requests go by
