"""Every command of docs/corpus.md runs, and prints what stands there."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.support.late import COLLECTED

if COLLECTED:
    from benchmarks import capacity

PAGE = Path(__file__).resolve().parents[2] / "docs" / "corpus.md"


def test_the_pages_commands_print_what_it_says(tmp_path: Path) -> None:
    blocks = re.findall(r"```(bash|text)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    printed = ""
    for kind, content in blocks:
        if kind == "bash":
            done = subprocess.run(
                ["bash", "-euc", content],
                cwd=tmp_path,
                env={**os.environ, "PATH": path},
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            printed = done.stdout
        else:
            for line in content.splitlines():
                assert line in printed
    assert [kind for kind, _ in blocks] == ["bash", "text"] * 12


def test_the_arithmetic_follows_the_measured_figures() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert capacity.written_table(page) == capacity.table(), "run python -m benchmarks.capacity"
    found = capacity.measured()
    assert f"Passages of {found.tokens} tokens with vectors of {found.dimension} numbers" in page
    assert f"{found.texts_per_s:.1f} passages a second" in page
    assert f"{found.resume_s:.1f} seconds for 250,000 finished parts" in page
    assert f"{10**8 * found.dimension * 4 / 1e9:.0f} GB as float32" in page
    assert f"{10**9 * found.row_bytes / 1e12:.1f} TB" in page
