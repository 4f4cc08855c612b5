"""docs/extending.md: the package of the page, installed as written, is a kind of target like any other."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from tests.config_pages import ROOT
from tests.servers.loopback import Loopback, Recorded, Reply

PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
MODULE = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)[0]
ENTRY_POINTS = re.findall(r"^```ini\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)[0]
USE = """
import sys
from hf_gateway import Gateway
from hf_gateway.cli import main

target = sys.argv[1]
with Gateway("m", [target, "hash:2"], check_space=False, on_space_change="separate") as gateway:
    result = gateway.embed(["a", "bb"])
print(result.vectors.tolist(), result.served_by)
sys.exit(main(["doctor", "--model", "m", "--targets", target]))
"""


class Acme(Loopback):
    """The server that the page's kind is for."""

    def handle(self, request: Recorded) -> Reply:
        """Answer with the length of each text."""
        assert request.path == "/embed"
        return Reply(200, {"vectors": [[float(len(text)), 1.0] for text in request.json["texts"]]})


def test_a_kind_of_the_page_serves_and_is_checked_by_doctor(tmp_path: Path) -> None:
    (tmp_path / "acme.py").write_text(MODULE, encoding="utf-8")
    (tmp_path / "acme-1.dist-info").mkdir()
    (tmp_path / "acme-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1\n")
    # What a build tool makes of the lines in pyproject.toml.
    lines = ENTRY_POINTS.replace('project.entry-points."hf_gateway.backends"', "hf_gateway.backends").replace('"', "")
    (tmp_path / "acme-1.dist-info" / "entry_points.txt").write_text(lines)
    with Acme() as server:
        done = subprocess.run(
            [sys.executable, "-c", USE, f"acme:{server.url}"],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])},
            timeout=300,
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(json.dumps([[1.0, 1.0], [2.0, 1.0]]) + f" ('acme:{server.url}',)")
    assert "acme-embed" in done.stdout
    assert "works" in done.stdout
