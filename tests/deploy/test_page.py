"""docs/deploy.md and compose.yaml: values that the chart takes, commands that run, services that are closed."""

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from tests.deploy.chart import one, render
from tests.deploy.composed import compose_commands
from tests.deploy.images import build_commands
from tests.deploy.pod_security import findings
from tests.deploy.services import free_port
from tests.deploy.tools import CHART, ROOT, helm, kubectl, run

PAGE = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
YAML = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
CHART_PAGE = (CHART / "README.md").read_text(encoding="utf-8").replace("RELEASE-", "gateway-")
BLOCK_COMMANDS = "".join(re.findall(r"^```bash\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)).splitlines()
LINES = re.findall(
    r"^    (\S.*)$", re.sub(r"^```.*?^```", "", PAGE + CHART_PAGE, flags=re.DOTALL | re.MULTILINE), re.MULTILINE
)
"""Commands in lines of their own, without a fence."""
COMMANDS = [*BLOCK_COMMANDS, *LINES]
HELM_COMMANDS = [line for line in COMMANDS if line.startswith("helm ")]
KUBECTL_COMMANDS = [line for line in COMMANDS if line.startswith("kubectl ")]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("text", YAML)
def test_values_of_the_page_render(text: str) -> None:
    assert findings(render(yaml.safe_load(text))) == []


@pytest.mark.parametrize("major", ["3", "4"])
@pytest.mark.parametrize("line", HELM_COMMANDS)
def test_commands_of_the_page_run(line: str, major: str, tmp_path: Path) -> None:
    (tmp_path / "values.yaml").write_text(YAML[0], encoding="utf-8")
    words = [word.replace("values.yaml", str(tmp_path / "values.yaml")) for word in shlex.split(line)]
    words = [str(ROOT / word) if word.startswith("deploy/") else word for word in words]
    if words[1] == "install":
        # Helm 3 asks a cluster even for a dry run.
        words = [*words, "--dry-run=client"] if major == "4" else ["helm", "template", *words[2:]]
    done = run(helm(major), *words[1:])
    assert done.returncode == 0, done.stderr


def made_by_kubectl(line: str) -> dict[str, Any]:
    """Return the object that a command would send to a cluster."""
    done = run(kubectl(), *shlex.split(line)[1:], "--dry-run=client", "--output=yaml")
    assert done.returncode == 0, done.stderr
    made: dict[str, Any] = yaml.safe_load(done.stdout)
    return made


def test_what_kubectl_makes_is_what_the_values_name() -> None:
    namespace, secret = (made_by_kubectl(line) for line in KUBECTL_COMMANDS if " exec " not in line)
    assert (namespace["kind"], namespace["metadata"]["name"]) == ("Namespace", "ai")
    assert (secret["kind"], secret["metadata"]["namespace"]) == ("Secret", "ai")
    values = yaml.safe_load(YAML[0])
    assert [secret["metadata"]["name"]] == values["existingSecrets"]
    for name in ("database", "redis"):
        assert values[name]["existingSecret"] == secret["metadata"]["name"]
        assert values[name]["key"] in secret["data"]
    assert "HF_TOKEN" in secret["data"]


@pytest.mark.parametrize("line", [line for line in KUBECTL_COMMANDS if " exec " in line])
def test_kubectl_runs_a_command_in_the_deployment_that_the_chart_makes(line: str) -> None:
    """There is no cluster: kubectl takes what it is told, and nobody answers."""
    words = shlex.split(line)
    assert words[words.index("--") + 1] == "hf-gateway"
    assert (
        f"deploy/{one(render(yaml.safe_load(YAML[0]), release='gateway'), 'Deployment')['metadata']['name']}" in words
    )
    done = run(kubectl(), "--server", f"http://127.0.0.1:{free_port()}", *words[1:])
    assert done.returncode == 1
    assert "connection refused" in done.stderr, done.stderr


def test_every_command_of_the_page_is_run_somewhere() -> None:
    """The images are built from the context that the first command fills."""
    builds = [shlex.join(words) for words in build_commands().values()]
    known = [*HELM_COMMANDS, *KUBECTL_COMMANDS, *builds, *compose_commands()]
    assert [line for line in COMMANDS if line not in known] == ["python deploy/wheels.py build/image"]
    assert len(builds) == 2


@pytest.mark.parametrize("name", ["Dockerfile", "compose.yaml"])
def test_the_commands_that_a_file_begins_with_are_those_of_the_page(name: str) -> None:
    text = (ROOT / "deploy" / name).read_text(encoding="utf-8")
    lines = [part for line in re.findall(r"^#   (.*)$", text, re.MULTILINE) for part in line.split(" ; ")]
    assert len(lines) >= 2
    known = [re.sub(r" --profile \w+|(?<=…) HF_TOKEN=…", "", line) for line in COMMANDS]
    assert [line for line in lines if line not in known] == []


def test_compose_knows_its_services() -> None:
    services = COMPOSE["services"]
    assert [name for name, each in services.items() if "profiles" not in each] == [
        "migration",
        "gateway",
        "postgres",
        "redis",
    ]
    for name, service in services.items():
        assert set(service.get("depends_on", {})) <= set(services), name
        named = {volume.partition(":")[0] for volume in service.get("volumes", []) if not volume.startswith((".", "$"))}
        assert named <= set(COMPOSE["volumes"]), name


@pytest.mark.parametrize("name", ["migration", "gateway"])
def test_compose_runs_the_server_as_the_chart_does(name: str) -> None:
    service = COMPOSE["services"][name]
    assert service["read_only"] is True
    assert service["user"] == "10001:0"
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_only_the_server_has_a_port_and_only_at_loopback() -> None:
    ports = {name: each["ports"] for name, each in COMPOSE["services"].items() if "ports" in each}
    assert ports == {"gateway": ["127.0.0.1:8000:8000"]}


def test_the_configuration_of_compose_is_the_charts_too() -> None:
    text = (ROOT / "deploy" / "hf-gateway.toml").read_text(encoding="utf-8")
    assert render({"config": tomllib.loads(text)})


def test_the_chart_and_the_image_are_of_this_version() -> None:
    own = re.findall(
        r'__version__ = "(.*)"', (ROOT / "shared" / "hf_gateway" / "_version.py").read_text(encoding="utf-8")
    )
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    assert own == [chart["appVersion"]] == re.findall(r"ARG VERSION=(.*)", dockerfile)
    assert chart["version"] == chart["appVersion"]
