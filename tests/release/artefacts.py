"""The wheel and the sdist of a release: built of tracked files alone, and compared with them file by file."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RELEASE = ROOT / "build" / "release"
"""What a release would publish, as it was checked: `dist/` has the wheel and the sdist, and the SBOM lies beside it."""
PACKAGES = {
    "hf_gateway": "shared/hf_gateway",
    "langchain_hf_gateway": "langchain_hf_gateway",
    "llamaindex_hf_gateway": "llamaindex_hf_gateway",
}
"""Name in the wheel → folder in the tree."""
DIST_INFO = {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}
Files = Mapping[str, bytes]
"""Path → content."""


def tracked() -> Files:
    """Return the files of the tree that git tracks, as they lie in the working folder."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    paths = [name for name in listed.split("\0") if name and (ROOT / name).is_file()]
    return {name: (ROOT / name).read_bytes() for name in paths}


def packaged(files: Files) -> Files:
    """Return what a wheel has to hold of the tree, by its name in the wheel."""
    return {
        package + name.removeprefix(folder): content
        for package, folder in PACKAGES.items()
        for name, content in files.items()
        if name.startswith(f"{folder}/")
    }


def lay_out(files: Files, folder: Path, *, mode: int, modified_s: int) -> Path:
    """Write a tree; return its folder.

    Args:
        files: what is written.
        folder: where, made if it is missing.
        mode: permissions of every file.
        modified_s: when every file was last changed, as seconds since 1970.
    """
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(mode)
        os.utime(path, (modified_s, modified_s))
    return folder


def build(source: Path, into: Path, *kinds: str, umask: int = 0o022) -> list[Path]:
    """Build with the pinned hatchling of this environment; return the wheel, then the sdist, as far as they were asked for.

    Args:
        source: a folder with pyproject.toml.
        into: where they are put.
        kinds: `--wheel` and `--sdist`; each is built from the folder itself.
        umask: of the process that builds.
    """
    environment = {name: value for name, value in os.environ.items() if name != "SOURCE_DATE_EPOCH"}
    command = [sys.executable, "-m", "build", "--no-isolation", *kinds, "--outdir", str(into), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, umask=umask)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return [*into.glob("*.whl"), *into.glob("*.tar.gz")]


def unpack(sdist: Path, folder: Path) -> Path:
    """Unpack an sdist; return the one folder that is in it."""
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (inner,) = folder.iterdir()
    return inner


def wheel_differences(wheel: Path, files: Files) -> list[str]:
    """Return in which ways a wheel is not the tree: files that are missing, differ or are not the tree's.

    Args:
        wheel: the file.
        files: the tree, by `tracked`.
    """
    expected = packaged(files)
    name, version = wheel.name.split("-")[:2]
    info = f"{name}-{version}.dist-info/"
    with zipfile.ZipFile(wheel) as archive:
        found = {each: archive.read(each) for each in archive.namelist()}
    ours = {each for each in found if each.startswith(info)}
    strange = sorted(set(found) - set(expected) - {info + each for each in DIST_INFO})
    missing = sorted((set(expected) | {info + each for each in DIST_INFO}) - set(found))
    changed = sorted(each for each in set(found) & set(expected) - ours if found[each] != expected[each])
    return [
        *(f"{each} is not in the tree" for each in strange),
        *(f"{each} is missing" for each in missing),
        *(f"{each} differs from the tree" for each in changed),
    ]


def sdist_differences(sdist: Path, files: Files) -> list[str]:
    """Return which files of an sdist are not the tree's; PKG-INFO is made from pyproject.toml."""
    found = []
    with tarfile.open(sdist) as archive:
        for member in archive.getmembers():
            name = member.name.partition("/")[2]
            content = archive.extractfile(member) if member.isfile() else None
            if content is None:
                found.append(f"{name} is no file")
            elif name != "PKG-INFO" and files.get(name) != content.read():
                found.append(f"{name} is not the tree's")
    return found


def emptied(folder: Path) -> Path:
    """Return a folder without anything in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
