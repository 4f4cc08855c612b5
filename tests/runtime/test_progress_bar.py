"""The one progress bar: shown where somebody can see it, and otherwise not there."""

import io
import sys

import pytest

from hf_gateway.runtime.progress_bar import progress_bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def terminal_of(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    found = Terminal()
    monkeypatch.setattr(sys, "stderr", found)
    monkeypatch.setenv("COLUMNS", "120")
    return found


@pytest.mark.parametrize(("counts_bytes", "count"), [(True, "2.0/4.0 MB"), (False, "2000000/4000000")])
def test_a_terminal_shows_title_step_and_count(monkeypatch: pytest.MonkeyPatch, counts_bytes: bool, count: str) -> None:
    terminal = terminal_of(monkeypatch)
    with progress_bar("org/[model]", counts_bytes=counts_bytes) as show:
        assert show is not None
        show(2_000_000, 4_000_000, "sending")
    assert "org/[model]: sending" in terminal.getvalue()
    assert count in terminal.getvalue()


def test_there_is_none_where_the_caller_shows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_of(monkeypatch)
    with progress_bar("org/model", wanted=False) as show:
        assert show is None
    assert terminal.getvalue() == ""


def test_there_is_none_without_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal_of(monkeypatch)
    monkeypatch.setitem(sys.modules, "rich", None)
    with progress_bar("org/model") as show:
        assert show is None


def test_there_is_none_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("org/model") as show:
        assert show is None
    assert capsys.readouterr().err == ""
