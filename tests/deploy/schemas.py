"""Strict schemas: Kubernetes' own of several versions, and those of the custom resources."""

import functools
import importlib
import json
import shutil
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from tests.deploy.tools import NPM, ROOT, run

VERSIONS = tuple(f"1.{minor}" for minor in range(28, 38))
CUSTOM = ("external-secrets.io", "gateway.networking.k8s.io", "keda.sh", "monitoring.coreos.com")


def is_custom(thing: dict[str, Any]) -> bool:
    """Return whether an object is of a custom resource."""
    return str(thing["apiVersion"]).startswith(CUSTOM)


@functools.cache
def _validator(version: str, kind: str, group: str) -> Any:
    utils = importlib.import_module("kubernetes_validate.utils")
    referencing = importlib.import_module("referencing")
    folder = f"kubernetes-json-schema/v{version}.0-local-strict"
    resources = [
        referencing.Resource.from_contents(utils.schema_contents(f"{folder}/{name}.json", version))
        for name in (f"{kind.lower()}-{group}", "_definitions")
    ]
    registry = referencing.Registry()
    for resource in resources:
        registry = resource @ registry
    return jsonschema.validators.Draft202012Validator(resources[0].contents, registry=registry)


def problems(thing: dict[str, Any], version: str) -> list[str]:
    """Return what is wrong with an object of Kubernetes' own, by the strict schema of a version."""
    head, _, tail = str(thing["apiVersion"]).partition("/")
    group = f"{head.partition('.')[0]}-{tail}" if tail else head
    name = f"{thing['kind']}/{thing['metadata']['name']}"
    return [
        f"{name} in {version}: {'.'.join(map(str, error.path))}: {error.message[:200]}"
        for error in _validator(version, thing["kind"], group).iter_errors(thing)
    ]


def custom_problems(things: list[dict[str, Any]]) -> list[str]:
    """Return what is wrong with custom resources, by the schemas that npm has of them. Skips the test where there is no npm."""
    if shutil.which("node") is None or not (NPM / "node_modules").exists():
        pytest.skip("the schemas of custom resources need Node.js and npm, which are not here")
    done = run("node", ROOT / "tests" / "deploy" / "custom_resources.mjs", NPM, stdin=json.dumps(things))
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout))
