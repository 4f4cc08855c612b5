"""What is made from commands, errors and variables is current, and every error and every shell is among it."""

import inspect
import os
import pty
import select
import shutil
import subprocess
from pathlib import Path

import pytest

from hf_gateway import errors
from hf_gateway.cli import COMMANDS, main
from hf_gateway.cli.explain import explanations, find_error
from tests.config_pages import ROOT
from tests.deploy.chart_files import SCHEMA, schema_text
from tests.reference_pages import COMPLETIONS, ERRORS, FILES, PAGES

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


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("langchain_hf_gateway.errors.AllTargetsFailed_ModelAPIError: none of the 2 targets", "AllTargetsFailed"),
        ("AllTargetsFailed_ModelAPIError", "AllTargetsFailed"),
        ("served by local, since tei:http://tei: ConnectFailed: no connection to http://tei", "ConnectFailed"),
        ('{"error": {"message": "text 0 of 1", "code": "context_length_exceeded"}}', "ContextOverflow"),
        ("all_targets_failed", "AllTargetsFailed"),
        ("upstream_unreachable", "ConnectFailed"),
    ],
)
def test_an_error_is_found_in_what_a_program_or_the_server_said(written: str, name: str) -> None:
    assert find_error(written) == name


def test_an_unknown_error_is_answered_by_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "RateLimitted"]) == 1
    assert "did you mean 'RateLimited'?" in capsys.readouterr().err


def test_the_address_of_a_page_comes_from_one_constant(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("hf_gateway.cli.explain.DOCUMENTATION_URL", "https://docs.invalid")
    assert main(["explain", "KeyMissing"]) == 0
    assert capsys.readouterr().out.endswith("address:\n  https://docs.invalid/errors/KeyMissing/\n")


def test_no_page_is_left_of_an_error_that_is_gone() -> None:
    assert {path.stem for path in ERRORS.iterdir()} == set(explanations())


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_of_each_shell_has_every_command(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    out = capsys.readouterr().out
    assert out == (COMPLETIONS / f"hf-gateway.{shell}").read_text("utf-8")
    assert [name for name in COMMANDS if name not in out] == []


COMPLETED = [("do", "doctor"), ("doctor --targ", "--targets"), ("config ch", "check")]


@pytest.mark.parametrize(("typed", "completed"), COMPLETED)
def test_bash_completes(typed: str, completed: str) -> None:
    words = f"hf-gateway {typed}".split()
    script = (
        f"source {COMPLETIONS}/hf-gateway.bash; COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; "
        'complete -p hf-gateway >/dev/null; function=$(complete -p hf-gateway | sed "s/.*-F \\([^ ]*\\).*/\\1/"); '
        'COMPREPLY=(); $function hf-gateway "${COMP_WORDS[$COMP_CWORD]}"; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False, cwd=ROOT, timeout=60)
    assert completed in done.stdout.split(), done.stderr


@pytest.mark.parametrize(("typed", "completed"), COMPLETED)
def test_fish_completes(typed: str, completed: str) -> None:
    need_shell("fish")
    script = f"source {COMPLETIONS}/hf-gateway.fish; complete --do-complete 'hf-gateway {typed}'"
    done = subprocess.run(
        ["fish", "--no-config", "-c", script], capture_output=True, text=True, check=False, timeout=60
    )
    assert completed in [line.partition("\t")[0] for line in done.stdout.splitlines()], done.stderr


@pytest.mark.parametrize(("typed", "completed"), COMPLETED)
def test_zsh_completes(typed: str, completed: str, tmp_path: Path) -> None:
    """What is typed before a tab stands completed on the line, in a terminal, as that shell completes nowhere else."""
    need_shell("zsh")
    (tmp_path / "_hf-gateway").write_text((COMPLETIONS / "hf-gateway.zsh").read_text("utf-8"))
    (tmp_path / ".zshrc").write_text(
        "PS1='ready> '; unset zle_bracketed_paste; fpath=($ZDOTDIR $fpath); autoload -U compinit; compinit -u -D\n"
    )
    shell, terminal = pty.openpty()
    environment = {"PATH": os.environ["PATH"], "TERM": "dumb", "HOME": str(tmp_path), "ZDOTDIR": str(tmp_path)}
    command = ["zsh", "--no-globalrcs", "-i"]
    with subprocess.Popen(
        command, stdin=terminal, stdout=terminal, stderr=terminal, cwd=tmp_path, env=environment, start_new_session=True
    ) as process:
        os.close(terminal)
        try:
            assert read_until(shell, "ready> ")
            os.write(shell, f"hf-gateway {typed}\t".encode())
            assert read_until(shell, f" {completed}")
        finally:
            process.kill()
            os.close(shell)


def need_shell(name: str) -> None:
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed: its completion is not run here")


def read_until(terminal: int, words: str) -> bool:
    """Read what a terminal shows until these words are there; False if it ends, or is silent for long, before."""
    shown = ""
    while words not in shown.replace("\r", ""):
        if not select.select([terminal], [], [], 30.0)[0]:
            pytest.fail(f"{words!r} is not in {shown!r}")
        shown += os.read(terminal, 4096).decode(errors="replace")
    return True
