"""No test decides what the next ones find: variables that a library reads once, at its import, are those of nobody's machine."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FIRST = """
def test_offline_and_elsewhere(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    import huggingface_hub.constants

def test_online():
    from huggingface_hub import constants
    assert (constants.HF_HUB_OFFLINE, constants.ENDPOINT) == (False, "https://huggingface.co")
"""


@pytest.mark.parametrize("machine", [{}, {"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9"}])
def test_the_hubs_library_has_the_variables_of_no_test_and_of_no_machine(
    tmp_path: Path, machine: dict[str, str]
) -> None:
    (tmp_path / "test_first.py").write_text(FIRST, encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:randomly",
        "-p",
        "tests.conftest",
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
    run = subprocess.run(
        [*command, "--rootdir", str(tmp_path), str(tmp_path)],
        cwd=ROOT,
        env={**environment, **machine, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert "2 passed" in run.stdout, run.stdout[-2000:] + run.stderr[-2000:]
