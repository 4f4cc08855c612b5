"""What is made from commands, errors and variables is current, and every error and every shell is among it."""

import inspect
import subprocess
from pathlib import Path

import pytest

from hf_gateway import errors
from hf_gateway.cli import COMMANDS, main
from hf_gateway.cli.explain import explanations, find_error
from tests.config_pages import ROOT
from tests.deploy.chart_files import SCHEMA, schema_text
from tests.reference_pages import COMPLETIONS, FILES, PAGES

MADE = "run python -m tests.reference_pages"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_page_is_made_from_what_it_is_about(path: Path) -> None:
    assert path.read_text("utf-8") == PAGES[path](path.read_text("utf-8")), MADE


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_is_made_from_what_it_is_about(path: Path) -> None:
    assert path.read_text("utf-8") == FILES[path](), MADE


def test_the_charts_schema_has_the_settings_of_today() -> None:
    # The other checks of the chart are run by `make deploy`, which those who change a setting need not have at hand.
    assert SCHEMA.read_text("utf-8") == schema_text(), "run python -m tests.deploy.chart_files"


def test_every_public_error_is_explained() -> None:
    classes = {
        name for name, each in vars(errors).items() if inspect.isclass(each) and issubclass(each, errors.GatewayError)
    }
    assert classes - {"EmbeddingUnavailable"} <= set(explanations())


@pytest.mark.parametrize(
    "written",
    ["KeyMissing", "keymissing", "hf_gateway.errors.KeyMissing: a required key is missing: http://x", "KeyMissing: x"],
)
def test_an_error_is_found_as_users_have_it(written: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert find_error(written) == "KeyMissing"
    assert main(["explain", written]) == 0
    out = capsys.readouterr().out
    assert out.startswith("KeyMissing\n\nmeaning:\n  A required key is missing.")
    assert "http" not in out, "an address is printed only when there is one"


def test_an_unknown_error_is_answered_by_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "RateLimitted"]) == 1
    assert "did you mean 'RateLimited'?" in capsys.readouterr().err


def test_the_address_of_a_page_comes_from_one_constant(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("hf_gateway.cli.explain.DOCUMENTATION_URL", "https://docs.invalid")
    assert main(["explain", "KeyMissing"]) == 0
    assert capsys.readouterr().out.endswith("address:\n  https://docs.invalid/errors/#keymissing\n")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_of_each_shell_has_every_command(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    out = capsys.readouterr().out
    assert out == (COMPLETIONS / f"hf-gateway.{shell}").read_text("utf-8")
    assert [name for name in COMMANDS if name not in out] == []


@pytest.mark.parametrize(
    ("typed", "completed"), [("do", "doctor"), ("doctor --targ", "--targets"), ("config ch", "check")]
)
def test_bash_completes(typed: str, completed: str) -> None:
    words = f"hf-gateway {typed}".split()
    script = (
        f"source {COMPLETIONS}/hf-gateway.bash; COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; "
        'complete -p hf-gateway >/dev/null; function=$(complete -p hf-gateway | sed "s/.*-F \\([^ ]*\\).*/\\1/"); '
        'COMPREPLY=(); $function hf-gateway "${COMP_WORDS[$COMP_CWORD]}"; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False, cwd=ROOT, timeout=60)
    assert completed in done.stdout.split(), done.stderr
