"""What may stand in a URL or a path: ids of repositories, revisions, paths in a repository, tokens; and which hosts are called.

Checked before anything is sent, since all of them may come from somebody else: a prompt, a web form, the Hub's own listing.
"""

import ipaddress
import os
import re
import socket
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from hf_gateway.errors import BadResponse, ConfigError, ConnectFailed
from hf_gateway.hub.errors import HubArgumentError
from hf_gateway.keys.credentials import HUB, find_credential, is_hugging_face
from hf_gateway.settings.config_file import base_url, hub_url
from hf_gateway.values.redaction import shown_url
from hf_gateway.values.secret import Secret
from hf_gateway.values.target import is_revision
from hf_gateway.values.vector_space import canonical

# The Hub's own rules: letters, digits, `-`, `_`, `.`; no `--`, no `..`; 96 characters; none ends in `.git`.
_PART = r"\w(?:[\w.-]*\w)?"
_REPO_ID = re.compile(rf"(?:{_PART}/)?{_PART}", re.ASCII)
_TOKEN = re.compile(r"hf_[A-Za-z0-9._-]+")
_COMMIT = re.compile(r"[0-9a-f]{40}")

_METADATA_HOSTS = frozenset({"metadata.google.internal", "metadata.goog", "metadata", "instance-data"})
# Clouds' metadata services that are not link-local: Alibaba's, Oracle's, AWS's over IPv6.
_METADATA_ADDRESSES = frozenset(map(ipaddress.ip_address, ("100.100.100.200", "192.0.0.192", "fd00:ec2::254")))
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def model_id(name: str) -> str:
    """Return the Hub id that a name means (`all-MiniLM-L6-v2` belongs to sentence-transformers). Raises HubArgumentError."""
    if not isinstance(name, str):
        raise HubArgumentError(f"a model id is a string such as 'BAAI/bge-small-en-v1.5', not {type(name).__name__}")
    found = canonical(name)
    if (
        len(found) > 96
        or not _REPO_ID.fullmatch(found)
        or "--" in found
        or ".." in found
        or found.endswith((".git", ".ipynb"))
    ):
        raise HubArgumentError(
            f"{name[:120]!r} is not the id of a model; write it as 'BAAI/bge-small-en-v1.5' (letters, digits, '-', '_' and '.')"
        )
    return found


def revision_name(name: str) -> str:
    """Return a branch, tag or commit as it is. Raises HubArgumentError."""
    if not isinstance(name, str) or not is_revision(name):
        raise HubArgumentError(
            f"{str(name)[:120]!r} is not a revision; write a branch, a tag or a commit, such as 'main'"
        )
    return name


def commit(value: Any) -> str:
    """Return a commit that the Hub named, which becomes the name of a folder. Raises BadResponse."""
    if not isinstance(value, str) or not _COMMIT.fullmatch(value):
        raise BadResponse(f"the Hub named a commit that is none: {str(value)[:80]!r}")
    return value


def is_commit(revision: str) -> bool:
    """Say whether a revision is a commit, which never changes, written out."""
    return _COMMIT.fullmatch(revision) is not None


def file_path(path: Any) -> str:
    """Return a path in a repository that stays in it, on every platform. Raises BadResponse: such paths come from the Hub."""
    if (
        not isinstance(path, str)
        or not path
        or path.startswith("/")
        or re.search(r"[\\\x00-\x1f]|^[A-Za-z]:", path)
        or any(part in ("", ".", "..") for part in path.split("/"))
        or PurePosixPath(path).is_absolute()
    ):
        raise BadResponse(
            f"the repository lists a file {str(path)[:120]!r}, which would lie outside of its folder; nothing was downloaded"
        )
    return path


def hub_token(value: str) -> Secret:
    """Read a Hugging Face token. Raises HubArgumentError (a ValueError) for what has not its form, without quoting it."""
    if isinstance(value, str) and _TOKEN.fullmatch(value.strip()):
        return Secret(value, "the token")
    what = "is empty" if not value else "has not the form of one: they begin with 'hf_', letters and digits follow"
    raise HubArgumentError(
        f"the Hugging Face token {what}; copy it again from https://huggingface.co/settings/tokens"
    ) from None


def where_a_token_is_from(hub: str, environment: Mapping[str, str]) -> str:
    """Say what to do where no token was found for a Hub; one that is found for huggingface.co only is named. Reads files."""
    if is_hugging_face(hub):
        return "run `hf-gateway login`, or set HF_TOKEN (https://huggingface.co/settings/tokens)"
    bound = token_of_another_hub(hub, environment)
    return f"{f'{bound}; ' if bound else ''}run `hf-gateway login --origin {hub}` with one that {hub} takes"


def token_of_another_hub(hub: str, environment: Mapping[str, str] = os.environ) -> str | None:
    """Say that there is a token which is for huggingface.co, where that is not the Hub that is meant; else None. Reads files."""
    other = find_credential(HUB, environment=environment) if hub != HUB else None
    return None if other is None else f"the token in {other.source} is for {HUB}, and is not sent to {hub}"


def endpoint(url: str | None = None) -> str:
    """Return the base of the Hub that is meant, checked; without one, HF_ENDPOINT or huggingface.co. Raises ConfigError."""
    found = hub_url() if url is None else base_url(url, "the Hub")
    host = (urlsplit(found).hostname or "").rstrip(".").lower()
    if host in _METADATA_HOSTS:
        raise ConfigError(f"{shown_url(found)!r} is a cloud's metadata service, which is never called")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return found
    if reason := _forbidden(address):
        raise ConfigError(f"{shown_url(found)!r} is {reason}, which is never called")
    return found


def check_address(url: str, *, told_by: str) -> None:
    """Refuse a URL whose host is link-local or a metadata service, by name or by what the name resolves to.

    Blocks for the resolver. told_by: who named the URL, for the message. Raises ConnectFailed.
    """
    if is_hugging_face(url):
        return
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".").lower()
    if host in _METADATA_HOSTS:
        raise ConnectFailed(f"{told_by} names {shown_url(url)!r}, a cloud's metadata service, which is never called")
    try:
        found = socket.getaddrinfo(host, parts.port or 443, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return  # perhaps a proxy can resolve it; whoever connects will see
    for *_, address in found:
        if reason := _forbidden(ipaddress.ip_address(str(address[0]).partition("%")[0])):
            raise ConnectFailed(f"{told_by} names {shown_url(url)!r}, which is {reason}, and that is never called")


def _forbidden(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str | None:
    for each in {address, *_carried(address)}:
        if each in _METADATA_ADDRESSES:
            return "a cloud's metadata service"
        if each.is_link_local:
            return "a link-local address"
        if each.is_unspecified or each.is_multicast:
            return "no address of a server"
    return None


def _carried(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> list[ipaddress.IPv4Address]:
    """Return the IPv4 addresses that an IPv6 one stands for."""
    if isinstance(address, ipaddress.IPv4Address):
        return []
    found = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if address in _NAT64:
        found.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return [each for each in found if each is not None]
