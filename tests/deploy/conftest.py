"""What holds for all tests of the chart and the image."""

import shutil
from collections.abc import Iterator

import pytest

from tests.deploy.images import NAMES
from tests.deploy.tools import HELMS, run, unpack


@pytest.fixture(scope="session", autouse=True)
def _helms() -> None:
    """Unpack the helms before any test renders in several threads."""
    for major in HELMS:
        unpack(major)


@pytest.fixture(scope="session", autouse=True)
def _unmounted_images() -> Iterator[None]:
    """Unmount the images in the end; they are kept, and the next run builds what has changed."""
    yield
    if NAMES and shutil.which("podman") is not None:
        run("podman", "image", "umount", *sorted(NAMES))
