"""The server keeps to its OpenAPI document: schemathesis plays it against a real process, in short; `make soak` does at length.

What is found: failures of the server (5xx), statuses, types and bodies that the document does not have, bodies accepted against
the document, routes that ignore their credential.
"""

from pathlib import Path

import pytest

from tests.support.contract import contract_server, play, summary

SHORT = ("--max-examples", "4", "--seed", "1", "--phases", "examples,fuzzing")
OPERATIONS = {"unkeyed": 74, "keyed": 69, "token": 5}
"""How many operations are played at least: with a key those that change keys are not, with a token they alone."""


@pytest.mark.real_server
@pytest.mark.slow
@pytest.mark.parametrize("kind", OPERATIONS)
def test_schemathesis_finds_nothing(kind: str, tmp_path: Path) -> None:
    with contract_server(tmp_path, kind) as (process, credential, flags):
        report = play(process.url, credential, *SHORT, *flags)
        log = process.log
    assert report["exit_code"] == 0, report["output"]
    assert report["test_cases"]["unique_failures"] == 0
    assert report["operations"]["tested"] >= OPERATIONS[kind], summary(report)
    assert "Traceback" not in log
