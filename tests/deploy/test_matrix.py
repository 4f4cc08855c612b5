"""Every value set of the matrix, by both helms, against the strict schemas of ten versions of Kubernetes and Pod Security."""

import itertools
import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.deploy.chart import EVERYTHING, FRAGMENTS, matrix, merged, of_kind, one, render
from tests.deploy.pod_security import findings
from tests.deploy.schemas import VERSIONS, custom_problems, is_custom, problems
from tests.deploy.tools import ROOT

SETS = [*matrix(), *EVERYTHING]
SINGLE = [each for each in SETS if len(each) < 2] + list(EVERYTHING)


def rendered(major: str) -> list[list[dict[str, Any]]]:
    """Return what a helm renders of each value set, each for one of the versions of Kubernetes."""
    kubes = [f"{VERSIONS[n % len(VERSIONS)]}.0" for n in range(len(SETS))]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda names, kube: render(merged(*names), major, kube), SETS, kubes))


@pytest.fixture(scope="module")
def by_helm_4() -> list[list[dict[str, Any]]]:
    return rendered("4")


@pytest.fixture(scope="module")
def objects(by_helm_4: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Each different object that a value set renders, once."""
    return list({json.dumps(thing, sort_keys=True): thing for things in by_helm_4 for thing in things}.values())


def test_the_matrix_is_large() -> None:
    assert len(SETS) >= 60
    assert set(itertools.chain(*EVERYTHING)) >= set(FRAGMENTS) - {"external", "helm_hook", "argo_hook", "claim"}


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_valid(objects: list[dict[str, Any]], version: str) -> None:
    assert [problem for each in objects if not is_custom(each) for problem in problems(each, version)] == []


def test_every_custom_resource_is_valid(objects: list[dict[str, Any]]) -> None:
    custom = [each for each in objects if is_custom(each)]
    assert {each["kind"] for each in custom} == {
        "ExternalSecret",
        "HTTPRoute",
        "PrometheusRule",
        "ScaledObject",
        "ServiceMonitor",
    }
    assert custom_problems(custom) == []


def test_every_pod_is_restricted(objects: list[dict[str, Any]]) -> None:
    assert findings(objects) == []


def test_helm_3_renders_the_same(by_helm_4: list[list[dict[str, Any]]]) -> None:
    by_helm_3 = rendered("3")
    assert ["+".join(names) for names, one, other in zip(SETS, by_helm_3, by_helm_4, strict=True) if one != other] == []


def test_names_are_there_once() -> None:
    for names in SINGLE:
        found = [(each["kind"], each["metadata"]["name"]) for each in render(merged(*names))]
        assert len(found) == len(set(found)), names


def test_what_is_wrong_would_be_found() -> None:
    """The checks see mistakes that were planted."""
    deployment = one(render({}), "Deployment")
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    container["readinesProbe"] = container.pop("readinessProbe")
    container["securityContext"]["capabilities"] = {"drop": []}
    assert "readinesProbe" in "".join(problems(deployment, "1.37"))
    assert findings([deployment]) == ["Deployment/demo-hf-gateway/server: keeps capabilities"]
    route = one(render(merged("route")), "HTTPRoute")
    route["spec"]["rules"][0]["timeouts"]["request"] = "quarter of an hour"
    assert len(custom_problems([route])) == 1


def test_alerts_and_the_dashboard_ask_for_metrics_that_exist() -> None:
    objects = render(merged("monitoring"))
    dashboard = next(each for each in of_kind(objects, "ConfigMap") if each["metadata"]["name"].endswith("-dashboard"))
    board = json.loads(dashboard["data"]["hf-gateway.json"])
    queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    queries += [rule["expr"] for group in one(objects, "PrometheusRule")["spec"]["groups"] for rule in group["rules"]]
    queries += [
        trigger["metadata"]["query"] for trigger in one(render(merged("keda")), "ScaledObject")["spec"]["triggers"]
    ]
    asked = {re.sub("_bucket$", "", name) for query in queries for name in re.findall(r"hf_gateway_\w+", query)}
    source = "".join(path.read_text(encoding="utf-8") for path in _sources())
    assert asked
    assert [name for name in sorted(asked) if f'"{name}"' not in source] == []
    assert all(query.count("(") == query.count(")") and query.count("{") == query.count("}") for query in queries)


def _sources() -> list[Any]:
    core = ROOT / "shared" / "hf_gateway"
    return [core / "telemetry" / "names.py", core / "server" / "dispatch" / "metrics.py"]
