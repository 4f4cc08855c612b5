"""docs/rag.md: its table of PostgreSQL is written and searched, in a server that has pgvector."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.config_pages import ROOT
from tests.support.late import COLLECTED

if COLLECTED:
    from tests.support.pgvector import empty_schema, pgvector_server

PAGE = (ROOT / "docs" / "rag.md").read_text(encoding="utf-8")
SHOWN = "postgresql://localhost/docs"

pytestmark = pytest.mark.xdist_group("torch")


def test_the_table_of_the_page_is_searched_by_meaning(tmp_path: Path) -> None:
    (code,) = [each for each in re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE) if SHOWN in each]
    with pgvector_server() as server, empty_schema(server) as url:
        done = subprocess.run(
            [sys.executable, "-c", code.replace(SHOWN, url)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "('Ships sail.',)\n"
    assert len(list(tmp_path.rglob("space.json"))) == 1
