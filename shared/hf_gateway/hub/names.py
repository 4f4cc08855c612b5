"""Validates what becomes part of a URL or a path: repository ids, revisions, file paths, tokens; and the hosts of URLs.

Validated before anything is sent, since all of them may come from outside: a prompt, a web form, the Hub's own
listing.
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

# The Hub's own rules: letters, digits, `-`, `_`, `.`; not `--` or `..`; at most 96 characters; not ending in `.git`.
_PART = r"\w(?:[\w.-]*\w)?"
_REPO_ID = re.compile(rf"(?:{_PART}/)?{_PART}", re.ASCII)
_TOKEN = re.compile(r"hf_[A-Za-z0-9._-]+")
_COMMIT = re.compile(r"[0-9a-f]{40}")

_METADATA_HOSTS = frozenset({"metadata.google.internal", "metadata.goog", "metadata", "instance-data"})
# Clouds' metadata services that are not link-local: Alibaba's, Oracle's, AWS's over IPv6.
_METADATA_ADDRESSES = frozenset(map(ipaddress.ip_address, ("100.100.100.200", "192.0.0.192", "fd00:ec2::254")))
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def model_id(name: str) -> str:
    """Return the full Hub id of a model (`all-MiniLM-L6-v2` belongs to sentence-transformers). Raises HubArgumentError."""
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
            f"{name[:120]!r} is not a model id; write it as 'BAAI/bge-small-en-v1.5' (letters, digits, '-', '_' and '.')"
        )
    return found


def revision_name(name: str) -> str:
    """Return a valid branch, tag or commit unchanged. Raises HubArgumentError."""
    if not isinstance(name, str) or not is_revision(name):
        raise HubArgumentError(
            f"{str(name)[:120]!r} is not a revision; write a branch, a tag or a commit, such as 'main'"
        )
    return name


def commit(value: Any) -> str:
    """Return a valid commit hash from the Hub unchanged; it becomes the name of a folder. Raises BadResponse."""
    if not isinstance(value, str) or not _COMMIT.fullmatch(value):
        raise BadResponse(f"the Hub returned an invalid commit: {str(value)[:80]!r}")
    return value


def is_commit(revision: str) -> bool:
    """Return whether a revision is a full commit hash, which never changes."""
    return _COMMIT.fullmatch(revision) is not None


def file_path(path: Any) -> str:
    """Return a path that stays inside a repository on every platform unchanged. Raises BadResponse: paths come from the Hub."""
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
    """Return a token as a Secret. Raises HubArgumentError (a ValueError), without quoting the token, if its form is wrong."""
    if isinstance(value, str) and _TOKEN.fullmatch(value.strip()):
        return Secret(value, "the token")
    what = "is empty" if not value else "does not have the form of one: 'hf_' followed by letters and digits"
    raise HubArgumentError(
        f"the Hugging Face token {what}; copy it again from https://huggingface.co/settings/tokens"
    ) from None


def where_a_token_is_from(hub: str, environment: Mapping[str, str]) -> str:
    """Return advice for a missing token; a token for huggingface.co that does not apply to this Hub is named. Reads files.

    Args:
        hub: base URL of the Hub.
        environment: environment variables.
    """
    if is_hugging_face(hub):
        return "run `hf-gateway login`, or set HF_TOKEN (https://huggingface.co/settings/tokens)"
    bound = token_of_another_hub(hub, environment)
    return f"{f'{bound}; ' if bound else ''}run `hf-gateway login --origin {hub}` with a token of {hub}"


def token_of_another_hub(hub: str, environment: Mapping[str, str] = os.environ) -> str | None:
    """Return that a token for huggingface.co exists which is not sent to this Hub; None without such a token. Reads files.

    Args:
        hub: base URL of the Hub.
        environment: environment variables.
    """
    other = find_credential(HUB, environment=environment) if hub != HUB else None
    return None if other is None else f"the token in {other.source} is for {HUB}, and is not sent to {hub}"


def endpoint(url: str | None = None) -> str:
    """Return the validated base URL of a Hub; by default HF_ENDPOINT or huggingface.co. Raises ConfigError."""
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
    """Raise ConnectFailed if a URL's host is link-local or a metadata service, by name or by an address that it resolves to.

    Blocks while the name is resolved.

    Args:
        url: the URL.
        told_by: where the URL comes from, for the message.
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
        return  # a proxy may be able to resolve it; otherwise connecting fails
    for *_, address in found:
        if reason := _forbidden(ipaddress.ip_address(str(address[0]).partition("%")[0])):
            raise ConnectFailed(f"{told_by} names {shown_url(url)!r}, which is {reason}, and that is never called")


def _forbidden(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str | None:
    for each in {address, *_embedded_ipv4(address)}:
        if each in _METADATA_ADDRESSES:
            return "a cloud's metadata service"
        if each.is_link_local:
            return "a link-local address"
        if each.is_unspecified or each.is_multicast:
            return "not a server's address"
    return None


def _embedded_ipv4(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> list[ipaddress.IPv4Address]:
    """Return the IPv4 addresses that an IPv6 address embeds."""
    if isinstance(address, ipaddress.IPv4Address):
        return []
    found = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if address in _NAT64:
        found.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return [each for each in found if each is not None]
