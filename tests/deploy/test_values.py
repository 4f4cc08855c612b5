"""What values do: those that are refused, and what guide C's names and the others render."""

import json
import re
import tomllib
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from tests.deploy.chart import FRAGMENTS, merged, notes, of_kind, one, refusal, render
from tests.deploy.chart_files import README, SCHEMA, VALUES, WHOLE, readme_text, schema_text
from tests.deploy.tools import CHART, helm, run

TOKEN = "hf_a_token_that_is_a_secret"
GUIDE_C: dict[str, Any] = {
    "secrets": {"HF_TOKEN": TOKEN, "HF_MODEL_ID": "org/model", "HF_ENDPOINT": "https://hub.example"},
    "externalSecrets": {
        "enabled": False,
        "secretStoreRef": {"kind": "ClusterSecretStore", "name": "vault"},
        "data": [{"secretKey": "HF_TOKEN", "remoteRef": {"key": "kv/data/contexis", "property": "HF_TOKEN"}}],
    },
}


def server(objects: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = one(objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]
    return found


def env(container: dict[str, Any]) -> dict[str, Any]:
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container["env"]}


def test_the_schema_has_that_of_the_configuration() -> None:
    assert SCHEMA.read_text(encoding="utf-8") == schema_text(), "run python -m tests.deploy.chart_files"


def test_the_readme_has_every_value() -> None:
    assert README.read_text(encoding="utf-8") == readme_text(), "run python -m tests.deploy.chart_files"


def test_no_value_is_missing_in_the_readme() -> None:
    """The table is made line by line, and so is compared with what YAML makes of the file."""
    rows = set(re.findall(r"^\| `([\w.]+)` \|", README.read_text(encoding="utf-8"), re.MULTILINE))
    named = {row.split(".")[0] for row in rows} | rows
    values = yaml.safe_load(VALUES.read_text(encoding="utf-8"))
    assert sorted(set(values) - named) == []
    below = {
        f"{name}.{key}" for name, each in values.items() if isinstance(each, dict) and name not in WHOLE for key in each
    }
    assert sorted(each for each in below if not any(f"{row}.".startswith(f"{each}.") for row in rows)) == []


def test_the_schema_is_closed() -> None:
    def open_objects(schema: Any, path: str) -> list[str]:
        if not isinstance(schema, dict):
            return []
        found = [path] if "properties" in schema and schema.get("additionalProperties") is not False else []
        for name, each in schema.get("properties", {}).items():
            found += open_objects(each, f"{path}.{name}")
        return found + open_objects(schema.get("items"), f"{path}[]")

    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    schema.pop("$defs")
    assert open_objects(schema, "") == []


@pytest.mark.parametrize("major", ["3", "4"])
def test_lint_finds_nothing(major: str) -> None:
    done = run(helm(major), "lint", "--strict", CHART)
    assert done.returncode == 0, done.stdout
    assert "[WARNING]" not in done.stdout


@pytest.mark.parametrize("major", ["3", "4"])
@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"pdb": {"minAvailable": 1}}, "pdb"),
        ({"podDisruptionBudget": {"minAvailable": 1}}, "minAvailable"),
        ({"replicas": "two"}, "replicas"),
        ({"config": {"chains": {"docs": {"modle": "m"}}}}, "modle"),
        ({"config": {"server": {"port": "high"}}}, "port"),
        ({"migration": {"hook": "pre-install"}}, "hook"),
        ({"secrets": {"hf-token": "x"}}, "hf-token"),
        ({"externalSecrets": {"data": [{"secretKey": "A", "remoteref": {}}]}}, "remoteref"),
    ],
    ids=lambda each: each if isinstance(each, str) else None,
)
def test_the_schema_refuses(values: dict[str, Any], word: str, major: str) -> None:
    assert word in refusal(values, major)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (merged("hpa", "keda"), "autoscaling.enabled and keda.enabled exclude each other"),
        (merged("secrets", "external"), "secrets.HF_TOKEN and externalSecrets.data both have a value for HF_TOKEN"),
        (merged("secrets", "external_urls"), "secrets.HF_TOKEN has a value although externalSecrets is on"),
        (merged("config", "existing_config"), "existingConfigMap and config both bring hf-gateway.toml"),
        ({"config": {"server": {"database": "postgresql://u:p@h/d"}}}, "put the URL into a Secret"),
        ({"config": {"server": {"redis": "redis://:p@h"}}}, "put the URL into a Secret"),
        ({**merged("external_urls"), "migration": {"hook": "helm"}}, "runs before this release's own Secret exists"),
        ({"externalSecrets": {"enabled": True}}, "needs externalSecrets.data"),
        ({"ingress": {"enabled": True}}, "needs ingress.hosts"),
        ({"httpRoute": {"enabled": True}}, "needs httpRoute.parentRefs"),
        ({"modelVolume": {"type": "existingClaim"}}, "names no claim"),
        ({"autoscaling": {"enabled": True, "targetInFlight": 0}}, "needs targetInFlight, targetCPU or metrics"),
    ],
    ids=lambda each: each if isinstance(each, str) else None,
)
def test_values_that_contradict_each_other_are_refused(values: dict[str, Any], words: str) -> None:
    assert words in refusal(values)


def test_guide_c_names_become_variables_of_the_pod() -> None:
    objects = render(GUIDE_C)
    secret = one(objects, "Secret")
    assert secret["stringData"] == GUIDE_C["secrets"]
    assert server(objects)["envFrom"] == [{"secretRef": {"name": secret["metadata"]["name"]}}]
    assert server(objects)["ports"][0]["containerPort"] == 8000
    assert server(objects)["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert server(objects)["livenessProbe"]["httpGet"]["path"] == "/healthz"


def test_secrets_of_values_are_named_as_such() -> None:
    said = notes(GUIDE_C)
    assert "HF_ENDPOINT, HF_MODEL_ID, HF_TOKEN came from values" in said
    assert TOKEN not in said


def test_guide_c_external_secrets_work_as_written() -> None:
    own = {"HF_TOKEN": "", "HF_MODEL_ID": "org/model", "HF_ENDPOINT": ""}
    values = {"secrets": own, "externalSecrets": {**GUIDE_C["externalSecrets"], "enabled": True}}
    objects = render(values)
    assert of_kind(objects, "Secret") == []
    external = one(objects, "ExternalSecret")
    assert external["apiVersion"] == "external-secrets.io/v1"
    assert external["spec"]["secretStoreRef"] == {"kind": "ClusterSecretStore", "name": "vault"}
    assert external["spec"]["data"] == values["externalSecrets"]["data"]
    assert server(objects)["envFrom"] == [{"secretRef": {"name": external["spec"]["target"]["name"]}}]
    assert env(server(objects))["HF_MODEL_ID"] == "org/model"


def test_without_values_there_is_no_secret() -> None:
    assert of_kind(render({}), "Secret") == []


@pytest.mark.parametrize("name", sorted(set(FRAGMENTS) - {"secrets"}))
def test_no_secret_is_made_up(name: str) -> None:
    assert of_kind(render(merged(name)), "Secret") == []


def test_the_configuration_is_the_file() -> None:
    given = FRAGMENTS["config"]["config"]
    text = one(render(merged("config")), "ConfigMap")["data"]["hf-gateway.toml"]
    assert tomllib.loads(text) == given


def test_texts_and_nested_tables_of_the_configuration_survive() -> None:
    given = {
        "chains": {
            "org/a b": {"targets": ["tei:http://tei:8080"], "query_prompt": 'a "quoted"\n\\ & <line>: é'},
            "empty": {},
        },
        "keys": {"models": {"meta-llama/Llama-3.1-8B-Instruct": "required"}, "require_for_hosted": False},
        "prices": {"org/chat": [{"provider": "novita", "input": 0.1, "output": 0.25}]},
        "server": {"jwt": {"https://login.example.org": {"audience": ["hf-gateway"], "leeway": 1}}},
    }
    for major in "34":
        text = one(render({"config": given}, major), "ConfigMap")["data"]["hf-gateway.toml"]
        assert tomllib.loads(text) == given


def test_a_changed_configuration_rolls_the_pods() -> None:
    def checksum(values: dict[str, Any]) -> str:
        template = one(render(values), "Deployment")["spec"]["template"]
        return str(template["metadata"]["annotations"]["checksum/config"])

    assert checksum({}) != checksum(merged("config"))


@pytest.mark.parametrize("name", ["database", "helm_hook", "argo_hook", "external_urls"])
def test_the_migration_has_what_the_pods_have(name: str) -> None:
    objects = render({**merged(name, "extra"), "imagePullSecrets": ["registry"]})
    pods = [one(objects, kind)["spec"]["template"]["spec"] for kind in ("Deployment", "Job")]
    first, second = (pod["containers"][0] for pod in pods)
    for field in ("image", "securityContext", "envFrom"):
        assert first[field] == second[field], field
    assert pods[0]["imagePullSecrets"] == pods[1]["imagePullSecrets"] == [{"name": "registry"}]
    assert pods[0]["securityContext"] == pods[1]["securityContext"]
    assert env(second).items() <= env(first).items()
    assert second["args"] == ["db", "upgrade"]
    assert {"name": "ca", "mountPath": "/etc/ca", "readOnly": True} in second["volumeMounts"]


def test_a_migration_of_another_image_is_another_job() -> None:
    def name(tag: str) -> str:
        return str(one(render({**merged("database"), "image": {"tag": tag}}), "Job")["metadata"]["name"])

    assert name("1") == name("1")
    assert name("1") != name("2")


def test_hooks_are_annotated() -> None:
    helm_job, argo_job = (one(render(merged(name)), "Job")["metadata"] for name in ("helm_hook", "argo_hook"))
    assert helm_job["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    assert argo_job["annotations"]["argocd.argoproj.io/hook"] == "PreSync"
    assert one(render(merged("argo_hook")), "Job")["spec"]["template"]["spec"]["serviceAccountName"] == "default"


def test_without_a_database_nothing_migrates() -> None:
    assert of_kind(render({}), "Job") == []
    assert "each pod keeps keys, budgets and usage in a file of its own, which ends with the pod" in notes({})


def test_urls_come_from_secrets() -> None:
    found = env(server(render(merged("database", "redis"))))
    assert found["HF_GATEWAY_SERVER_DATABASE"] == {"secretKeyRef": {"name": "pg", "key": "uri"}}
    assert found["HF_GATEWAY_SERVER_REDIS"] == {"secretKeyRef": {"name": "limits", "key": "url"}}


@pytest.mark.parametrize("name", ["hpa", "keda"])
def test_what_scales_owns_the_number_of_pods(name: str) -> None:
    assert "replicas" not in one(render(merged(name)), "Deployment")["spec"]


def test_keda_scales_on_requests_under_way() -> None:
    trigger = one(render(merged("keda")), "ScaledObject")["spec"]["triggers"][0]["metadata"]
    assert trigger["query"] == 'sum(hf_gateway_server_requests_under_way{namespace="prod",service="demo-hf-gateway"})'


def test_pods_may_be_evicted_one_at_a_time() -> None:
    assert one(render({}), "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1


def test_an_ingress_passes_streams_on() -> None:
    values = {**merged("ingress"), "config": {"server": {"request_seconds": 1200, "max_body_bytes": 1048576}}}
    found = one(render(values), "Ingress")["metadata"]["annotations"]
    mine = "nginx.ingress.kubernetes.io/"
    assert found[f"{mine}proxy-buffering"] == "off"
    assert found[f"{mine}proxy-read-timeout"] == "1200"
    assert found[f"{mine}proxy-body-size"] == "1048576"


def test_a_platform_may_choose_the_user() -> None:
    context = one(render(merged("openshift")), "Deployment")["spec"]["template"]["spec"]["securityContext"]
    assert context == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


def test_a_server_without_keys_answers_under_its_names() -> None:
    found = env(server(render({**merged("open"), **merged("ingress")})))
    assert found["HF_GATEWAY_SERVER_INSECURE_NO_AUTH"] == "true"
    assert "HF_GATEWAY_SERVER_REQUIRE_KEY" not in found
    assert found["HF_GATEWAY_SERVER_ALLOWED_HOSTS"].split(",")[-2:] == [
        "demo-hf-gateway.prod.svc.cluster.local",
        "ai.example",
    ]


def test_extra_objects_are_templates() -> None:
    names = [each["metadata"]["name"] for each in of_kind(render(merged("extra")), "ConfigMap")]
    assert {"demo-more", "as-text"} <= set(names)


def test_a_pod_has_time_to_end() -> None:
    spec = one(render({"server": {"grace": 120, "preStopSeconds": 15}}), "Deployment")["spec"]["template"]["spec"]
    assert spec["terminationGracePeriodSeconds"] == 145
    assert spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"] == ["sleep", "15"]
