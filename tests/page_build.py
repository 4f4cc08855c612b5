"""Builds the page of web/page: `python -m tests.page_build` writes it into the package, as `make page` does.

The same source gives the same bytes, in any folder and at any time; tests/project/test_page_build.py compares them.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "web" / "page"
CLIENT = ROOT / "web" / "client" / "src"
"""The TypeScript client, whose part for models in browsers the page uses."""
BUILT = ROOT / "shared" / "hf_gateway" / "server" / "page"
WORK = ROOT / "build" / "npm" / "web" / "page"
"""Where `make setup` installs the packages of npm; the source is copied beside them, so that the checkout stays as it is."""


def missing() -> str | None:
    """Return why the page cannot be built here, or None if it can."""
    if shutil.which("npm") is None:
        return "npm is not installed (Debian: apt-get install nodejs npm)"
    if not (WORK / "node_modules" / "vite").is_dir():
        return "the packages of npm are not installed: run `make setup`"
    installed = json.loads((WORK / "node_modules" / ".package-lock.json").read_text(encoding="utf-8"))["packages"]
    for place, wanted in json.loads((SOURCE / "package-lock.json").read_text(encoding="utf-8"))["packages"].items():
        found = installed.get(place)
        if place and not wanted.get("optional") and (found is None or found["version"] != wanted["version"]):
            return f"{place} {wanted['version']} of npm is not installed: run `make setup`"
    return None


def build(out: Path) -> None:
    """Check the types of the page and build it into a folder, which is emptied before. Raises CalledProcessError.

    out: the folder.
    """
    for path in SOURCE.iterdir():
        if path.name in ("node_modules", "dist"):
            continue
        copied = WORK / path.name
        if path.is_dir():
            shutil.rmtree(copied, ignore_errors=True)
            shutil.copytree(path, copied)
        else:
            shutil.copyfile(path, copied)
    client = WORK.parent / "client" / "src"
    shutil.rmtree(client, ignore_errors=True)
    shutil.copytree(CLIENT, client)
    subprocess.run(["npm", "run", "--silent", "build"], cwd=WORK, env={**os.environ, "PAGE_OUT": str(out)}, check=True)


if __name__ == "__main__":
    reason = missing()
    if reason is not None:
        sys.exit(reason)
    build(BUILT)
