"""A PostgreSQL with pgvector: that which `HF_GATEWAY_TEST_PGVECTOR` names, or the one that the package pgserver brings."""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from tests.support.ways import until


@contextmanager
def empty_schema(url: str) -> Iterator[str]:
    """Give the URL of a schema that is dropped afterwards.

    Args:
        url: of the server.
    """
    import psycopg

    name = f"vectors_{uuid4().hex[:12]}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {name}")
    try:
        yield f"{url}{'&' if '?' in url else '?'}options=-csearch_path%3D{name},public"
    finally:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"DROP SCHEMA {name} CASCADE")


@contextmanager
def pgvector_server() -> Iterator[str]:
    """Give the URL of a server with the extension; skips where there is none."""
    import psycopg

    if (named := os.environ.get("HF_GATEWAY_TEST_PGVECTOR")) is not None:
        yield named
        return
    found = importlib.util.find_spec("pgserver")
    if found is None or found.origin is None or sys.platform != "linux":
        pytest.skip("no PostgreSQL with pgvector: the package pgserver brings one on Linux")
    with tempfile.TemporaryDirectory(prefix="pgvector") as passing:
        folder = Path(passing)
        # A server refuses to run as root, and another user may not read this environment.
        user = "nobody" if os.geteuid() == 0 else None
        package = Path(found.origin).parent
        shutil.copytree(package / "pginstall", folder / "pgserver" / "pginstall")
        shutil.copytree(package.with_name("pgserver.libs"), folder / "pgserver.libs")
        (folder / "data").mkdir()
        if user is not None:
            folder.chmod(0o755)
            shutil.chown(folder / "data", user)
        binaries, data = folder / "pgserver" / "pginstall" / "bin", folder / "data"
        subprocess.run(
            [binaries / "initdb", "-D", data / "db", "-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-sync"],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=data,
            user=user,
        )
        command: list[str | Path] = [binaries / "postgres", "-D", data / "db", "-k", data]
        command += ["-c", "listen_addresses=", "-c", "fsync=off"]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd=data, user=user) as server:
            try:
                until(lambda: (data / ".s.PGSQL.5432").exists())
                url = f"postgresql://postgres@/postgres?host={data}"
                until(lambda: _answers(url))
                with psycopg.connect(url, autocommit=True) as connection:
                    connection.execute("CREATE EXTENSION vector")
                yield url
            finally:
                server.send_signal(signal.SIGINT)  # ends without waiting for connections


def _answers(url: str) -> bool:
    import psycopg

    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return False
    return True
