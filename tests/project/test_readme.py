"""The README and the pages do what they say, as written; their links lead to something, and their figures are measured ones."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from hf_gateway.settings.config_file import read_chain, read_config
from hf_gateway.settings.embedding import EmbedSettings

REPOSITORY = Path(__file__).resolve().parents[2]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
PAGE_FILES = sorted((REPOSITORY / "docs").rglob("*.md"))
LINKED = [REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")] + PAGE_FILES

pytestmark = pytest.mark.xdist_group("torch")


def blocks(language: str, pages: Sequence[Path] = PAGE_FILES) -> list[str]:
    text = "\n".join([README, *(path.read_text(encoding="utf-8") for path in pages)])
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


ELSEWHERE = {"agents.md", "extending.md"}
"""Pages whose blocks are run by tests of their own: test_agents_page.py, test_extending_page.py."""
NEED_MORE = ("from celery", "import streamlit", "psycopg.connect(")
"""Words of blocks that need packages, which tests/deploy/test_stranger.py installs, or a server, as test_rag_page.py has it."""
ALONE = [
    code
    for code in blocks("python", [path for path in PAGE_FILES if path.name not in ELSEWHERE])
    if not any(each in code for each in NEED_MORE)
]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "HF_HUB_OFFLINE": "1"}
    )


@pytest.mark.parametrize("code", ALONE, ids=range(len(ALONE)))
def test_a_python_block_of_the_readme_runs_offline_and_without_a_key(code: str) -> None:
    done = run(sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr


def test_the_commands_of_the_readme_are_real() -> None:
    lines = [line.partition("#")[0].strip() for block in blocks("sh") for line in block.splitlines() if line.strip()]
    assert {line for line in lines if line.startswith("make")} == {"make quickstart", "make test"}
    for line in lines:
        words = shlex.split(line)
        if words[0] == "make":
            assert run("make", "--directory", str(REPOSITORY), "--dry-run", *words[1:]).returncode == 0
        elif words[0] == "hf-gateway":
            assert run(sys.executable, "-m", "hf_gateway", *words[1:]).returncode == 0
        else:
            assert words[:2] == ["pip", "install"], line


def test_the_config_of_the_readme_is_read(tmp_path: Path) -> None:
    first, *others = sorted(blocks("toml"), key=lambda block: "VLLM_KEY" not in block)
    (tmp_path / "hf-gateway.toml").write_text(first)
    assert read_chain("docs", EmbedSettings)["model"] == "BAAI/bge-small-en-v1.5"
    for shown in others:
        (tmp_path / "shown.toml").write_text(shown)
        assert read_config(tmp_path / "shown.toml")[1]


def test_the_extras_of_the_page_are_those_of_the_package() -> None:
    import tomllib

    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    page = (REPOSITORY / "docs" / "install.md").read_text(encoding="utf-8")
    section = page[page.index("## Extras") : page.index("## Sizes")]
    assert set(re.findall(r"`([a-z-]+)`", section)) == set(extras) - {"dev"} | {"quickstart"}


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 150


def test_each_measured_figure_of_the_readme_stands_in_the_results_that_it_links() -> None:
    section = README[README.index("## Measured") : README.index("## Where to go next")]
    rows = re.findall(r"^\| .* \| ([\d.,]+) \| ([\d.,]+) \| \[[\w-]+\]\((\S+)\) \|$", section, re.MULTILINE)
    assert len(rows) > 10
    for *figures, path in rows:
        cells = {cell.strip() for line in (REPOSITORY / path).read_text().splitlines() for cell in line.split("|")}
        assert set(figures) <= cells, path


def anchors(page: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", page, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", each)).strip().lower().replace(" ", "-")
        for each in headings
    }


@pytest.mark.parametrize("page", LINKED, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_each_link_within_the_repository_leads_to_a_file_and_a_heading(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", text)):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        file = (page.parent / name).resolve() if name else page
        if not file.exists() or (anchor and anchor not in anchors(file.read_text(encoding="utf-8"))):
            broken.append(link)
    assert broken == []
