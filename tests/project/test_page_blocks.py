"""Every block of every page is run by a test: by which one, what Python prints, and what is checked of commands without one."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.support.page_commands import assert_whole

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "web" / "client" / "README.md"]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
SELF = "tests/project/test_page_blocks.py"
EACH = "tests/project/test_readme.py"
RUN_BY = {
    ("README.md", "bash"): "tests/server/test_server_page.py",
    ("docs/agents.md", "python"): "tests/project/test_agents_page.py",
    ("docs/agents.md", "text"): "tests/project/test_agents_page.py",
    ("docs/browser.md", "bash"): "tests/page/test_browser_models.py",
    ("docs/browser.md", "js"): "tests/page/test_browser_labels_and_speech.py",
    ("docs/configuration.md", "text"): SELF,
    ("docs/corpus.md", "bash"): "tests/corpus/test_corpus_page.py",
    ("docs/corpus.md", "text"): "tests/corpus/test_corpus_page.py",
    ("docs/corpus.md", ""): "tests/corpus/test_corpus_page.py",
    ("docs/deploy.md", "bash"): "tests/deploy/test_page.py",
    ("docs/deploy.md", "yaml"): "tests/deploy/test_page.py",
    ("docs/extending.md", "python"): "tests/project/test_extending_page.py",
    ("docs/extending.md", "ini"): "tests/project/test_extending_page.py",
    ("docs/programs.md", "bash"): "tests/deploy/test_stranger.py",
    ("docs/server.md", "bash"): "tests/server/test_server_page.py",
    ("docs/server.md", "json"): "tests/server/test_server_page.py",
    ("docs/server.md", "text"): "tests/server/test_server_page.py",
    ("docs/server.md", "ini"): "tests/server/test_server_page.py",
    ("docs/server.md", "jinja"): "tests/server/test_guide_pages.py",
    ("docs/server.md", "toml"): "tests/server/test_server_page.py",
    ("docs/typescript.md", "js"): "tests/web_client/test_web_client.py",
    ("web/client/README.md", "js"): "tests/web_client/test_web_client.py",
}
"""Page and language of its blocks → the test that runs them, where it is none of those for a language."""
LANGUAGES = {"python": EACH, "sh": EACH, "toml": "tests/configuration/test_schema.py", "": SELF}
"""Language → the test that runs the blocks of it on all other pages. A block without one has commands, or what they print."""


def blocks(page: Path) -> list[tuple[str, str]]:
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def test_every_block_of_every_page_is_run_by_a_test() -> None:
    there = {(page.relative_to(ROOT).as_posix(), language) for page in PAGES for language, _ in blocks(page)}
    assert sorted(each for each in there if each not in RUN_BY and each[1] not in LANGUAGES) == []
    assert sorted(RUN_BY.keys() - there) == [], "blocks that no page has any more"
    for (page, _), test in RUN_BY.items():
        text = (ROOT / test).read_text(encoding="utf-8")
        assert Path(page).name in text or "SERVER_PAGE" in text or test == SELF, f"{test} does not read {page}"


def printed() -> Iterator[Any]:
    for page in PAGES:
        found = list(BLOCK.finditer(page.read_text(encoding="utf-8")))
        for first, second in pairwise(found):
            between = first.string[first.end() : second.start()]
            if page.name != "agents.md" and first[1] == "python" and second[1] in ("", "text") and not between.strip():
                yield pytest.param(first[2], second[2], id=page.stem)


PRINTED = list(printed())
"""Blocks of Python with what they print behind them; agents.md needs a server."""


@pytest.mark.xdist_group("torch")
@pytest.mark.parametrize(("code", "shown"), PRINTED)
def test_a_python_block_prints_what_is_shown(code: str, shown: str) -> None:
    """Where the page has `…`, anything may stand; lines are broken for readers."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr
    wanted = ".*?".join(re.escape(" ".join(each.split())) for each in re.split(r"(?<=\s)…|…", shown))
    wanted = wanted.replace(r"\ .*?", r"\ ?.*?")
    assert re.fullmatch(wanted, " ".join(done.stdout.split())), done.stdout


def commands() -> Iterator[tuple[str, str]]:
    """Yield each command of blocks without a language, with its page: lines after `$ `, or all lines if there are none such."""
    for page in PAGES:
        for language, content in blocks(page):
            lines = content.replace("\\\n", " ").splitlines()
            asked = [line[2:] for line in lines if line.startswith("$ ")]
            if not language:
                for line in asked or [
                    line for line in lines if re.match(r"(hf-gateway|pip|python|make|source|cd|npm) ", line)
                ]:
                    yield page.name, line


COMMAND_LINES = [pytest.param(line, id=f"{page}-{number}") for number, (page, line) in enumerate(commands())]


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_a_command_that_needs_what_a_test_has_not_is_one(line: str) -> None:
    """Those need a Hub, an index of packages or a ledger; what they do is tested elsewhere, here that they are taken."""
    assert_whole(line)


def test_the_commands_are_found() -> None:
    assert len(COMMAND_LINES) > 20
    assert len(PRINTED) >= 3


def test_the_mistakes_of_the_page_are_named_as_it_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from hf_gateway.cli import main

    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"^\$ hf-gateway config check broken.toml\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    (broken,) = re.findall(r"^```text\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    (tmp_path / "broken.toml").write_text(broken, encoding="utf-8")
    assert main(["config", "check", str(tmp_path / "broken.toml")]) == 1
    captured = capsys.readouterr()
    assert f"{captured.out}{captured.err}".replace(f"{tmp_path}{os.sep}", "") == shown
