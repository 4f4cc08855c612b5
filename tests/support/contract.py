"""schemathesis, which tries whether a server keeps to its OpenAPI document, from an environment of its own.

python -m tests.support.contract [EXAMPLES [SEED]]     # the whole document at length, without and with keys; prints the counts
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers.issuer import AUDIENCE, JWKS, FakeIssuer
from tests.support.databases import a_ledger
from tests.support.every_chain import every_chain
from tests.support.gateway_server import ServerProcess
from tests.support.late import run_late_imports
from tests.support.server_keys import make_key

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = ROOT / "tests" / "server" / "schemathesis.toml"
ALL_EXAMPLES = 100
"""Random requests an operation in the long form, beside the thousands for each field's edges."""
OF_KEYS = "^/admin/keys"
"""Routes that change keys: with a token, since schemathesis finds the key that it calls with and revokes that."""
_LONG_S = 3600.0


def program() -> Path | None:
    """Return schemathesis: HF_GATEWAY_TEST_SCHEMATHESIS, or that of `.venv-schemathesis`; None where there is none."""
    named = os.environ.get("HF_GATEWAY_TEST_SCHEMATHESIS")
    found = Path(named) if named else ROOT / ".venv-schemathesis" / "bin" / "schemathesis"
    return found if found.exists() else None


def play(url: str, credential: str | None, *flags: str) -> dict[str, Any]:
    """Play the document of a server with all checks; returns schemathesis's report, with its output as `output`.

    Args:
        url: of the server.
        credential: a key or a token that every request has; None for none.
        flags: more flags of schemathesis.
    """
    found = program()
    if found is None:
        pytest.skip("schemathesis is not installed; `make setup` makes .venv-schemathesis")
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        command = [str(found), "--config-file", str(SETTINGS), "run", f"{url}/openapi.json", "--checks", "all"]
        command += ["--continue-on-failure", "--no-color", "--warnings", "off", "--suppress-health-check", "all"]
        command += ["--generation-database", "none", "--report", "json", "--report-json-path", str(report), *flags]
        if credential is not None:
            command += ["--header", f"Authorization: Bearer {credential}"]
        done = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=_LONG_S,
            env={**os.environ, "DO_NOT_TRACK": "1", "SCHEMATHESIS_REPORT": "0"},
        )
        if not report.exists():
            raise RuntimeError(done.stdout + done.stderr)
        found_report: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
        return found_report | {"output": done.stdout}


@contextlib.contextmanager
def contract_server(folder: Path, kind: str) -> Iterator[tuple[ServerProcess, str | None, tuple[str, ...]]]:
    """Start a server with every chain; yields it with the credential of its callers, and with flags that leave routes out.

    Args:
        folder: an empty folder.
        kind: how its callers sign in: `unkeyed`, `keyed` or `token`.
    """
    with contextlib.ExitStack() as stack:
        more, credential, flags = "", None, ()
        if kind != "unkeyed":
            database = stack.enter_context(a_ledger("sqlite", folder))
            credential, flags = make_key(database), ("--exclude-path-regex", OF_KEYS)
            more = f'database = "{database}"\n'
        if kind == "token":
            issuer = stack.enter_context(FakeIssuer())
            credential, flags = issuer.token("ec", scope="admin read"), ("--include-path-regex", OF_KEYS)
            more += f'[server.jwt."{issuer.url}"]\naudience = ["{AUDIENCE}"]\njwks_url = "{issuer.url}{JWKS}"\n'
            more += 'scopes = ["admin", "read"]\n'
        chains = stack.enter_context(every_chain(folder, more))
        process = ServerProcess(chains.config, environment={"HF_HUB_OFFLINE": "1"})
        yield stack.enter_context(process), credential, flags


def summary(report: dict[str, Any]) -> str:
    """Return the counts of a report in a line."""
    operations, cases = report["operations"], report["test_cases"]
    return (
        f"{operations['tested']} of {operations['selected']} operations, {cases['generated']} requests, "
        f"{cases['unique_failures']} failures, {len(report['errors'])} errors"
    )


def main(examples: int = ALL_EXAMPLES, seed: int | None = None) -> int:
    """Play everything at length; returns the exit status.

    Args:
        examples: random requests an operation.
        seed: of the random requests; None for other ones each time.
    """
    status, drawn = 0, () if seed is None else ("--seed", str(seed))
    for kind in ("unkeyed", "keyed", "token"):
        with tempfile.TemporaryDirectory() as name:
            os.environ |= {"HF_GATEWAY_HOME": f"{name}/home", "HF_HOME": f"{name}/hub", "HF_GATEWAY_CHECK_SPACE": "0"}
            os.chdir(name)
            with contract_server(Path(name), kind) as (process, credential, flags):
                report = play(process.url, credential, "--max-examples", str(examples), *drawn, *flags)
                log = process.log
            os.chdir(ROOT)
        sys.stdout.write(f"{kind}: {summary(report)}\n")
        sys.stdout.flush()
        if report["exit_code"] or "Traceback" in log:
            sys.stdout.write(f"{report['output']}\n{log}\n")
            status = 1
    return status


if __name__ == "__main__":
    run_late_imports(__name__)
    for each in ("databases", "every_chain", "server_keys", "gateway_server"):
        run_late_imports(f"tests.support.{each}")
    run_late_imports("tests.servers.issuer")
    sys.exit(main(*map(int, sys.argv[1:])))
