"""The release that all tests look at, built once into build/release, and an environment that it is installed into."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.release.artefacts import RELEASE, Files, build, emptied, lay_out, tracked
from tests.release.environments import environment


@dataclass(frozen=True)
class Release:
    """The artefacts, and the tree that they were built of."""

    wheel: Path
    sdist: Path
    files: Files
    """The tree: path → content."""


@pytest.fixture(scope="session")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """Build the release of the tracked files, in a folder with nothing else."""
    files = tracked()
    source = lay_out(files, tmp_path_factory.mktemp("tree"), mode=0o644, modified_s=1_700_000_000)
    wheel, sdist = build(source, emptied(RELEASE) / "dist", "--wheel", "--sdist")
    return Release(wheel, sdist, files)


@pytest.fixture(scope="session")
def base(release: Release, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with the wheel and what it requires."""
    return environment(tmp_path_factory.mktemp("base") / "venv", str(release.wheel))
