"""Where the ledger is: what HF_GATEWAY_LEDGER and `ledger.enable` say, checked without any third-party package."""

import os
import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from hf_gateway.errors import ConfigError
from hf_gateway.home import data_home
from hf_gateway.key_policy import truthy

VARIABLE = "HF_GATEWAY_LEDGER"
FILE_NAME = "ledger.sqlite"


def from_environment(environment: Mapping[str, str] = os.environ) -> str | None:
    """Return the URL that HF_GATEWAY_LEDGER means; None where the ledger is off. Raises ConfigError for what is no URL."""
    value = environment.get(VARIABLE, "").strip()
    if not value or re.fullmatch(r"0|off|no|false", value, re.IGNORECASE):
        return None
    return checked(default() if truthy(value) else value, VARIABLE)


def default() -> str:
    """Return the URL of the file in the user's data folder."""
    return of_file(data_home() / FILE_NAME)


def of_file(path: str | Path) -> str:
    """Return the URL of a SQLite file."""
    return f"sqlite:///{Path(path).expanduser().absolute()}"


def checked(url: str, what: str = "the ledger's URL") -> str:
    """Return the URL with its driver named. Raises ConfigError for another database, or one whose package is missing."""
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
        raise ConfigError(f"{what} names {scheme!r}; the ledger is kept in 'sqlite' or 'postgresql+psycopg'")
    if scheme == "sqlite":
        file = rest.removeprefix("/").partition("?")[0]
        if not file or file == ":memory:":
            raise ConfigError(f"{what} names no file; a SQLite ledger needs one, such as 'sqlite:///ledger.sqlite'")
        # Whoever changes the folder later means the same file.
        rest = "/" + rest.removeprefix("/").replace(file, str(Path(file).expanduser().absolute()), 1)
    check_installed(scheme)
    return f"{scheme}://{rest}"


def check_installed(scheme: str) -> None:
    """Raise ConfigError with the `pip install` line for the package that is missing. Imports nothing."""
    if find_spec("sqlalchemy") is None or find_spec("alembic") is None:
        raise ConfigError("the ledger needs SQLAlchemy and Alembic: pip install 'hf-gateway[ledger]'")
    if scheme == "postgresql+psycopg" and find_spec("psycopg") is None:
        raise ConfigError("a ledger in PostgreSQL needs psycopg: pip install 'hf-gateway[ledger,postgres]'")


def shown(url: str) -> str:
    """Return the URL as it may be shown: without a password, and without what stands in its query."""
    scheme, _, rest = url.partition("?")[0].partition("://")
    known, at, where = rest.rpartition("@")
    user, colon, _ = known.partition(":")
    return f"{scheme}://{user}{':***' if colon else ''}{at}{where}"


def told(error: BaseException) -> str:
    """Say in one line what an error of a database is: the driver's words, without the statement and what was in it."""
    cause = getattr(error, "orig", None) or error
    text = " ".join(str(cause).split()) or type(cause).__name__
    return text if len(text) <= 300 else text[:300] + "…"
