"""docs/deploy.md and compose.yaml: values that the chart takes, commands that run, services that are closed."""

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from tests.deploy.chart import render
from tests.deploy.pod_security import findings
from tests.deploy.tools import CHART, ROOT, helm, run

PAGE = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
YAML = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
COMMANDS = [
    line for block in re.findall(r"^```bash\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE) for line in block.splitlines()
]
HELM_COMMANDS = [line for line in COMMANDS if line.startswith("helm ")]
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
    done = run(helm(major), *words[1:])
    assert done.returncode == 0, done.stderr


def test_every_command_of_the_page_is_run_somewhere() -> None:
    """The images are built from the context that the first command fills."""
    assert [line for line in COMMANDS if line not in HELM_COMMANDS] == ["python deploy/wheels.py build/image"]


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
