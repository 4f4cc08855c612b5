"""URL of the ledger: HF_GATEWAY_LEDGER and the arguments of `ledger.enable`, validated without any third-party package."""

import os
import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote

from hf_gateway.errors import ConfigError
from hf_gateway.keys.policy import parse_flag
from hf_gateway.storage.files import data_home

VARIABLE = "HF_GATEWAY_LEDGER"
FILE_NAME = "ledger.sqlite"

# As SQLAlchemy reads a URL: a password ends at the first '@', and there may be a '?' or a '/' in it.
_USER = re.compile(r"(?P<user>[^:/]*)(?P<password>:[^@]*)?@")
_QUERY = re.compile(r"\?(?=[\w.-]+=|$)")
_PORT = re.compile(r"(?:\[[^/?]+\]|[^/:?]+)?(?::(?P<port>[^/?]*))?")


def from_environment(environment: Mapping[str, str] = os.environ) -> str | None:
    """Return the URL from HF_GATEWAY_LEDGER; None if the ledger is disabled. Raises ConfigError for an invalid URL."""
    value = environment.get(VARIABLE, "").strip()
    if not value or re.fullmatch(r"0|off|no|false", value, re.IGNORECASE):
        return None
    return check_url(default() if parse_flag(value) else value, VARIABLE)


def default() -> str:
    """Return the URL of the file in the user's data folder."""
    return of_file(data_home() / FILE_NAME)


def choose_url(given: str | None, what: str = "--ledger") -> str:
    """Return the URL for a command: the one given, HF_GATEWAY_LEDGER's, or that of the user's file.

    Args:
        given: value of the option.
        what: name of the option, for errors.

    Raises:
        ConfigError: invalid URL.
    """
    if given is not None:
        return check_url(given, what)
    return from_environment() or check_url(default())


def of_file(path: str | Path) -> str:
    """Return the URL of a SQLite file."""
    # Only characters with a meaning are quoted, so that people recognise their path.
    quoted = str(Path(path).expanduser().absolute()).replace("%", "%25").replace("?", "%3F")
    return f"sqlite:///{quoted}"


def file_of(url: str) -> Path | None:
    """Return the file of a SQLite URL; None for the URL of a server."""
    if not url.startswith("sqlite"):
        return None
    return Path(unquote(url.partition("://")[2].removeprefix("/").partition("?")[0]))


def check_url(url: str, what: str = "the ledger's URL") -> str:
    """Return a valid URL with its driver.

    Args:
        url: the URL.
        what: name of the setting, for errors.

    Raises:
        ConfigError: invalid URL, another database, or a missing package.
    """
    if not url.strip():
        raise ConfigError(f"{what} is empty; omit it, or write a URL such as 'sqlite:///ledger.sqlite'")
    if not _is_text(unquote(url)):
        raise ConfigError(f"{what} contains bytes that are not text")
    scheme, colon, rest = url.partition("://")
    if not colon:
        raise ConfigError(
            f"{what} is '1', or a URL such as 'sqlite:///ledger.sqlite' or 'postgresql+psycopg://user@host/database'"
        )
    if scheme in ("postgres", "postgresql"):
        scheme = "postgresql+psycopg"
    if scheme == "sqlite+pysqlite":
        scheme = "sqlite"
    if scheme not in ("sqlite", "postgresql+psycopg"):
        raise ConfigError(f"{what} names {scheme!r}; the ledger supports 'sqlite' and 'postgresql+psycopg'")
    if scheme == "sqlite":
        path, mark, query = rest.removeprefix("/").partition("?")
        if not path or path == ":memory:":
            raise ConfigError(f"{what} names no file; a SQLite ledger needs one, such as 'sqlite:///ledger.sqlite'")
        # Absolute, so that the URL means the same file after a change of the working folder.
        rest = of_file(unquote(path)).partition("://")[2] + mark + query
    else:
        _check_server(rest, what)
    check_installed(scheme)
    return f"{scheme}://{rest}"


def _check_server(rest: str, what: str) -> None:
    """Raise ConfigError for a URL that SQLAlchemy cannot parse, or parses differently than intended; without quoting it."""
    found = _USER.match(rest)
    if found is not None and "@" in _without_query(rest[found.end() :]):
        raise ConfigError(f"{what} has more than one '@'; within a user's name or a password write it as %40")
    host = _PORT.match(_without_query(rest[found.end() if found else 0 :]))
    port = host["port"] if host else None
    if port and not (port.isascii() and port.isdigit() and int(port) < 65536):
        raise ConfigError(f"{what} has an invalid port; write postgresql+psycopg://user:password@host:5432/database")


def _without_query(text: str) -> str:
    """Return the text before the query; a question mark that is not followed by a name and '=' is not one."""
    return _QUERY.split(text, maxsplit=1)[0]


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in value


def check_installed(scheme: str) -> None:
    """Raise ConfigError with the `pip install` line for a missing package. Imports nothing."""
    if find_spec("sqlalchemy") is None or find_spec("alembic") is None:
        raise ConfigError("the ledger needs SQLAlchemy and Alembic: pip install 'hf-gateway[ledger]'")
    if scheme == "postgresql+psycopg" and find_spec("psycopg") is None:
        raise ConfigError("a ledger in PostgreSQL needs psycopg: pip install 'hf-gateway[ledger,postgres]'")


def shown_url(url: str) -> str:
    """Return a URL for messages: without its password and query."""
    scheme, _, rest = url.partition("://")
    found = None if scheme.startswith("sqlite") else _USER.match(rest)
    if found is None:
        return f"{scheme}://{rest.partition('?')[0]}"
    user = re.split("[@?]", found["user"], maxsplit=1)[0]
    where = _without_query(rest[found.end() :])
    # A remaining '@' belongs to a password that was not quoted.
    hidden = found["password"] or "@" in where
    return f"{scheme}://{user}{':***' if hidden else ''}@{where.rpartition('@')[2].partition('?')[0]}"


def database_words(error: BaseException) -> str:
    """Return a database's error in one line: the driver's message, without the statement and its values."""
    cause = getattr(error, "orig", None) or error
    text = " ".join(str(cause).split()) or type(cause).__name__
    return text if len(text) <= 300 else text[:300] + "…"
