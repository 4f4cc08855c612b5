"""The wheel and the sdist are the tree and nothing else, bit for bit whoever builds them."""

import hashlib
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.release.artefacts import build, lay_out, sdist_differences, unpack, wheel_differences
from tests.release.conftest import Release
from tests.release.environments import run


def test_another_build_is_the_same_bit_for_bit(
    release: Release, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Another folder, another time, other permissions, and what a used working folder has lying about.
    source = lay_out(release.files, tmp_path / "elsewhere" / "tree", mode=0o640, modified_s=1_000_000_000)
    lay_out(
        {"shared/hf_gateway/__pycache__/errors.cpython-311.pyc": b"x", ".venv/x.pth": b"x", "build/x": b"x"},
        source,
        mode=0o666,
        modified_s=2,
    )
    again = build(source, tmp_path / "dist", "--wheel", "--sdist", umask=0o077)
    lines = []
    for first, second in zip((release.wheel, release.sdist), again, strict=True):
        assert first.name == second.name
        assert first.read_bytes() == second.read_bytes()
        lines.append(f"{hashlib.sha256(first.read_bytes()).hexdigest()}  {first.name}")
    with capsys.disabled():
        sys.stdout.write("\n" + "\n".join(lines) + "\n")


def test_the_sdist_builds_the_same_wheel(release: Release, tmp_path: Path) -> None:
    source = unpack(release.sdist, tmp_path / "unpacked")
    (wheel,) = build(source, tmp_path / "dist", "--wheel")
    assert wheel.read_bytes() == release.wheel.read_bytes()


def test_the_wheel_is_the_tree(release: Release) -> None:
    assert wheel_differences(release.wheel, release.files) == []
    with zipfile.ZipFile(release.wheel) as archive:
        names = archive.namelist()
    assert len(names) > 300
    assert not [name for name in names if name.endswith((".pth", ".pyc", ".so"))]


def test_the_sdist_is_of_the_tree_and_has_what_its_readers_need(release: Release, tmp_path: Path) -> None:
    assert sdist_differences(release.sdist, release.files) == []
    inner = unpack(release.sdist, tmp_path)
    assert {"SECURITY.md", "CHANGELOG.md", "LICENSE", "README.md", "hatch_build.py"} < {
        path.name for path in inner.iterdir()
    }


def planted(name: str, content: bytes) -> Callable[[dict[str, bytes]], None]:
    return lambda files: files.update({name: content})


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (planted("hf_gateway_init.pth", b"import os"), "hf_gateway_init.pth is not in the tree"),
        (planted("hf_gateway-0.1.0.data/data/x", b""), "hf_gateway-0.1.0.data/data/x is not in the tree"),
        (planted("hf_gateway-0.1.0.dist-info/x.pth", b""), "hf_gateway-0.1.0.dist-info/x.pth is not in the tree"),
        (planted("hf_gateway/errors.py", b"import os\n"), "hf_gateway/errors.py differs from the tree"),
        (lambda files: files.pop("hf_gateway/py.typed"), "hf_gateway/py.typed is missing"),
    ],
    ids=["a pth", "data", "a pth among the metadata", "a changed file", "a missing file"],
)
def test_a_wheel_that_is_not_the_tree_is_found_out(
    change: Callable[[dict[str, bytes]], object], complaint: str, release: Release, tmp_path: Path
) -> None:
    with zipfile.ZipFile(release.wheel) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    change(files)
    other = tmp_path / release.wheel.name
    with zipfile.ZipFile(other, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    assert wheel_differences(other, release.files) == [complaint]


def test_the_index_would_show_it(release: Release) -> None:
    told = run(sys.executable, "-m", "twine", "check", "--strict", release.wheel, release.sdist)
    assert told.count("PASSED") == 2
