"""The part of `doctor` that all chains share: the Hub and its token, access to models, caches on this machine, versions.

The requests to the Hub are sent at once, and together get HUB_TIMEOUT_S seconds.
"""

import os
import platform
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from hf_gateway._version import __version__
from hf_gateway.cli.output import literal
from hf_gateway.errors import (
    AuthenticationFailed,
    GatedModel,
    GatewayError,
    KeyMissing,
    ModelNotFound,
    PermissionDenied,
    RateLimited,
)
from hf_gateway.hub.names import token_of_another_hub
from hf_gateway.keys.credentials import Credential, find_credential
from hf_gateway.keys.policy import parse_flag
from hf_gateway.settings.config_file import hub_url
from hf_gateway.storage.files import data_home, home
from hf_gateway.wire.hub_account import HubAccount

HUB_TIMEOUT_S = 4.0
"""Seconds for all requests to the Hub together."""
SIZE_TIMEOUT_S = 1.0
"""Seconds for adding up the size of one cache; a larger cache is reported as "at least"."""

PACKAGES = (
    "huggingface_hub", "httpx", "numpy", "onnxruntime", "openvino", "tokenizers", "torch", "sentence-transformers",
    "transformers", "diffusers", "peft", "langchain-core", "llama-index-core", "keyring",
)  # fmt: skip

_CACHES = {
    "hub": "metadata of models",
    "converted": "models converted for OpenVINO and ONNX Runtime",
    "fingerprints": "fingerprints of vector spaces",
    "vectors.sqlite": "vectors",
}
# Not caches; they are in the same folder where HF_GATEWAY_HOME is set.
_NOT_CACHES = frozenset({"keyring", "ledger.sqlite", "ledger-waiting"})

_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


@dataclass(frozen=True)
class HubStatus:
    """State of the Hub."""

    url: str
    """Base URL of the Hub."""
    reachable: bool | None
    """Whether it answered; None if it was not asked."""
    detail: str | None = None
    """Why it was not asked or did not answer."""
    key_source: str | None = None
    """Where the token was found; None without a token."""
    account: HubAccount | None = None
    """Account of the token, if the Hub named it."""
    key_error: str | None = None
    """Why the token is not valid, or not used."""
    models: dict[str, str] = field(default_factory=dict)
    """Access to each model, in words, by Hub id."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return {
            "url": self.url,
            "reachable": self.reachable,
            "detail": self.detail,
            "key_source": self.key_source,
            "account": self.account.to_dict() if self.account else None,
            "key_error": self.key_error,
            "models": self.models,
        }


@dataclass(frozen=True)
class CacheStatus:
    """A cache on this machine."""

    name: str
    """What it contains."""
    path: str
    """The file or folder."""
    size: int
    """Size in bytes."""
    whole: bool = True
    """Whether the size is complete."""


def check_hub(models: Iterable[str], *, needed: bool) -> HubStatus:
    """Check that the Hub answers, whose token this is, and whether it may download these models.

    Args:
        models: Hub ids or folders; folders are ignored.
        needed: whether a target of some chain uses the Hub; without one, and without a token, no request is sent.
    """
    hub = hub_url()
    credential = find_credential(hub)
    source = credential.source if credential else None
    key_error = token_of_another_hub(hub) if credential is None else None
    if parse_flag(os.environ.get("HF_HUB_OFFLINE", "")):
        return HubStatus(hub, None, "HF_HUB_OFFLINE is set, so it is not asked", source, key_error=key_error)
    if not needed and credential is None:
        return HubStatus(hub, None, "no target needs it", source, key_error=key_error)
    ids = sorted({model for model in models if _ID.fullmatch(model) and not Path(model).exists()})
    check = _HubCheck(hub, credential, time.monotonic() + HUB_TIMEOUT_S)
    first = _start_thread(check.anything if credential is None else check.account)
    others = {model: _start_thread(lambda model=model: check.access(model)) for model in ids}  # type: ignore[misc]
    account, reached = None, True
    detail: str | None = None
    try:
        account = first.result(check.remaining_s())
    except AuthenticationFailed as error:
        key_error = error.message
    except GatewayError as error:
        reached, detail = isinstance(error, PermissionDenied | RateLimited), error.message
    except NotYet:
        reached, detail = False, f"no answer from {hub} in {HUB_TIMEOUT_S:.0f} s"
    access = {each: _describe_failure(others[each], check) for each in ids} if reached else {}
    return HubStatus(hub, reached, detail, source, account, key_error, access)


def caches() -> list[CacheStatus]:
    """Return the size of the caches on this machine: this package's folder by its parts, and the Hub's cache of all tools."""
    from huggingface_hub.constants import HF_HUB_CACHE

    from hf_gateway.engines import converted

    own = home()
    # A database consists of several files, such as its log.
    parts = {part: re.sub(r"-(?:wal|shm|journal)$", "", part.name) for part in own.iterdir()} if own.is_dir() else {}
    parts |= {converted.root(): "converted"}
    found: dict[str, tuple[Path, int, bool]] = {}
    for part, named in sorted(parts.items()):
        if named in _NOT_CACHES or not part.exists():
            continue
        name = _CACHES.get(named, named)
        size, whole = _size(part)
        path, before, was_whole = found.get(name, (part, 0, True))
        found[name] = (path, before + size, whole and was_whole)
    hub = Path(HF_HUB_CACHE)
    if hub.is_dir():
        found["models from the Hub, for all tools"] = (hub, *_size(hub))
    return [CacheStatus(name, str(path), size, whole) for name, (path, size, whole) in found.items()]


def home_faults() -> list[str]:
    """Return why the folders of what is kept cannot be used; they need not exist yet."""
    found = []
    for folder in dict.fromkeys((home(), data_home())):
        nearest = next(place for place in (folder, *folder.absolute().parents) if os.path.lexists(place))
        if nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK):
            continue
        why = "cannot be written to" if nearest.is_dir() else "is not a folder"
        found.append(
            f"{folder} cannot be used: {nearest} {why}; set HF_GATEWAY_HOME to a folder that can be written to"
        )
    return found


def versions() -> dict[str, str | None]:
    """Return the versions of installed packages; None for packages that are not installed."""
    found: dict[str, str | None] = {
        "hf-gateway": __version__,
        "python": platform.python_version(),
        "platform": f"{sys.platform} {platform.machine()}",
    }
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def print_environment(out: Any, hub: HubStatus, kept: Sequence[CacheStatus], installed: dict[str, str | None]) -> None:
    """Print the report for people.

    Args:
        out: the console.
        hub: state of the Hub.
        kept: the caches.
        installed: versions by package.
    """
    marks: dict[bool | None, str] = {
        True: "[green]reachable[/green]", False: "[red]not reachable[/red]", None: "not asked"
    }  # fmt: skip
    out.print(
        f"\n[bold]the Hub[/bold] {literal(hub.url)}: {marks[hub.reachable]}{literal(f': {hub.detail}' if hub.detail else '')}"
    )
    if hub.account is not None:
        words = "; ".join(hub.account.in_words())
        out.print(f"  token of {literal(hub.account.name)}, from {literal(str(hub.key_source))}: {literal(words)}")
    elif hub.key_source is not None:
        out.print(f"  token from {literal(hub.key_source)}{'' if hub.key_error else ', not checked'}")
    else:
        out.print("  no token; public models need none")
    if hub.key_error:
        out.print(f"  [yellow]token:[/yellow] {literal(hub.key_error)}")
    for model, access in hub.models.items():
        out.print(f"  {literal(model)}: {literal(access)}")
    faults = home_faults()
    if kept or faults:
        out.print("\n[bold]on this machine[/bold]")
    for fault in faults:
        out.print(f"  [red]{literal(fault)}[/red]")
    for cache in kept:
        least = "" if cache.whole else "at least "
        out.print(f"  {least}{in_words(cache.size)}  {literal(cache.name)} ({literal(cache.path)})")
    out.print("\n[bold]versions[/bold]")
    out.print("  " + literal(", ".join(f"{name} {number}" for name, number in installed.items() if number is not None)))


def in_words(size: int) -> str:
    """Return a size for people, in powers of ten: `91.2 MB`."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} bytes"


@dataclass(frozen=True)
class _HubCheck:
    """Requests with a common deadline: until, in monotonic seconds."""

    hub: str
    credential: Credential | None
    until: float

    def remaining_s(self) -> float:
        return max(0.0, self.until - time.monotonic())

    def account(self) -> HubAccount:
        from hf_gateway.wire.hub_account import decode_whoami, encode_whoami

        account: HubAccount = self._ask(encode_whoami(self.hub), decode_whoami)
        return account

    def anything(self) -> None:
        """Send the cheapest request. A mirror may have no list of models, which still counts as an answer."""
        from hf_gateway.wire.http import get, read_json

        def read(response: Any) -> None:
            if response.status not in (401, 404):
                read_json(response, target="the Hub")

        self._ask(get(f"{self.hub}/api/models?limit=1"), read)

    def access(self, model: str) -> str:
        """Return the access to a model, in words."""
        from hf_gateway.wire.http import get

        found = self._ask(get(f"{self.hub}/api/models/{model}?expand=gated&expand=private"), self._read(model))
        if not isinstance(found, dict) or not (found.get("gated") or found.get("private")):
            return "open"
        kind = "private" if found.get("private") else "gated"
        try:
            self._ask(get(f"{self.hub}/api/models/{model}/auth-check"), self._read(model))
        except (GatedModel, KeyMissing) as error:
            return f"gated: {error.message}"
        return f"{kind}; this token may download it"

    def _read(self, model: str) -> Callable[[Any], Any]:
        from hf_gateway.wire.http import read_json
        from hf_gateway.wire.hub_models import refusal

        def read(response: Any) -> Any:
            if not 200 <= response.status < 300:
                raise refusal(response, model, sent=self.credential)
            return read_json(response, target="the Hub")

        return read

    def _ask(self, request: Any, decode: Callable[[Any], Any]) -> Any:
        from hf_gateway.http.transport import HttpTransport
        from hf_gateway.runtime.effects import Send

        transport = HttpTransport()
        try:
            wish = Send(request, self.credential)
            return decode(
                transport.send(wish, timeout=self.remaining_s(), connect_timeout=self.remaining_s(), target="the Hub")
            )
        finally:
            transport.close()


def _describe_failure(access: "Future[str]", check: _HubCheck) -> str:
    try:
        return access.result(check.remaining_s())
    except ModelNotFound as error:
        return f"no access: {error.message}"
    except GatewayError as error:
        return f"unknown: {error.message}"
    except NotYet:
        return "unknown: the Hub did not answer in time"


def _start_thread(work: Callable[[], Any]) -> "Future[Any]":
    """Start a daemon thread, which the exiting interpreter does not wait for: a resolver may take half a minute."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except Exception as error:  # noqa: BLE001 - raised where the result is read
            future.set_exception(error)

    threading.Thread(target=run, name="hf-gateway-doctor", daemon=True).start()
    return future


def _size(path: Path) -> tuple[int, bool]:
    """Return the bytes of a file or of all files in a folder, each once, and whether that is complete."""
    if path.is_file():
        return path.stat().st_size, True
    total, until = 0, time.monotonic() + SIZE_TIMEOUT_S
    for folder, _, files in os.walk(path):
        for name in files:
            file = Path(folder) / name
            try:
                total += 0 if file.is_symlink() else file.stat().st_size
            except OSError:  # deleted meanwhile
                continue
        if time.monotonic() > until:
            return total, False
    return total, True
