"""Rendering the chart, and the values that it is rendered with."""

import functools
import itertools
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from tests.deploy.tools import CHART, helm, run

RELEASE, NAMESPACE = "demo", "prod"
Values = Mapping[str, Any]

FRAGMENTS: dict[str, dict[str, Any]] = {
    "config": {
        "config": {
            "chains": {
                "docs": {"model": "BAAI/bge-small-en-v1.5", "targets": ["hf", {"kind": "tei", "url": "http://tei:80"}]},
                "talk": {"task": "chat", "model": "m", "targets": ["hf"], "temperature": 0.5, "max_tokens": 500},
            },
            "ledger": {"keep_days": 90},
            "server": {
                "default_embedding": "docs",
                "max_body_bytes": 33554432,
                "aliases": {"text-embedding-3-small": "docs"},
            },
        }
    },
    "existing_config": {"existingConfigMap": "ours"},
    "secrets": {
        "secrets": {"HF_TOKEN": "hf_example", "HF_MODEL_ID": "org/model", "HF_ENDPOINT": "https://hub.example"}
    },
    "external": {
        "externalSecrets": {
            "enabled": True,
            "secretStoreRef": {"kind": "ClusterSecretStore", "name": "vault"},
            "data": [{"secretKey": "HF_TOKEN", "remoteRef": {"key": "kv/data/contexis", "property": "HF_TOKEN"}}],
        }
    },
    "external_urls": {
        "externalSecrets": {
            "enabled": True,
            "data": [
                {"secretKey": "HF_GATEWAY_SERVER_DATABASE", "remoteRef": {"key": "gateway", "property": "database"}},
                {"secretKey": "HF_GATEWAY_SERVER_REDIS", "remoteRef": {"key": "gateway", "property": "redis"}},
            ],
            "dataFrom": [{"extract": {"key": "tokens"}}],
        }
    },
    "existing_secrets": {"existingSecrets": ["tokens", "more-tokens"]},
    "database": {"database": {"existingSecret": "pg", "key": "uri"}},
    "redis": {"redis": {"existingSecret": "limits"}},
    "helm_hook": {"migration": {"hook": "helm"}, "database": {"existingSecret": "pg"}},
    "argo_hook": {"migration": {"hook": "argocd"}, "database": {"existingSecret": "pg"}},
    "hpa": {"autoscaling": {"enabled": True, "targetCPU": 70}},
    "keda": {"keda": {"enabled": True, "authenticationRef": {"name": "prometheus"}}},
    "ingress": {
        "ingress": {
            "enabled": True,
            "className": "nginx",
            "hosts": ["ai.example"],
            "tls": [{"hosts": ["ai.example"], "secretName": "ai-tls"}],
        }
    },
    "route": {"httpRoute": {"enabled": True, "parentRefs": [{"name": "edge"}], "hostnames": ["ai.example"]}},
    "policy": {
        "networkPolicy": {
            "enabled": True,
            "from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress-nginx"}}}],
            "egress": {"enabled": True, "rules": [{"ports": [{"port": 443, "protocol": "TCP"}]}]},
        }
    },
    "monitoring": {
        "serviceMonitor": {"enabled": True, "keySecret": {"name": "metrics-key"}},
        "prometheusRule": {"enabled": True},
        "dashboard": {"enabled": True},
    },
    "pvc": {"modelVolume": {"type": "pvc", "size": "50Gi", "storageClassName": "nfs"}},
    "claim": {"modelVolume": {"type": "existingClaim", "existingClaim": "models"}},
    "baked": {"modelVolume": {"type": "image"}, "image": {"flavour": "cpu"}},
    "open": {"auth": {"required": False}},
    "openshift": {
        "podSecurityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": None, "fsGroupChangePolicy": None}
    },
    "placement": {
        "nodeSelector": {"kubernetes.io/arch": "amd64"},
        "tolerations": [{"key": "ai", "operator": "Exists"}],
        "priorityClassName": "high",
        "imagePullSecrets": ["registry"],
        "podLabels": {"team": "search"},
        "image": {"digest": "sha256:" + "0" * 64},
        "hostAliases": [{"ip": "10.0.0.9", "hostnames": ["tei"]}],
        "dnsConfig": {"options": [{"name": "ndots", "value": "2"}]},
    },
    "extra": {
        "extraEnv": [{"name": "VLLM_KEY", "valueFrom": {"secretKeyRef": {"name": "vllm", "key": "key"}}}],
        "extraEnvFrom": [{"configMapRef": {"name": "proxies"}}],
        "extraVolumes": [{"name": "ca", "configMap": {"name": "ca"}}],
        "extraVolumeMounts": [{"name": "ca", "mountPath": "/etc/ca", "readOnly": True}],
        "extraObjects": [
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{ .Release.Name }}-more"}},
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: as-text}\n",
        ],
    },
}
"""One switch of the chart each."""
EXCLUSIVE = [
    {"existing_config", "config"},
    {"secrets", "external"},
    {"secrets", "external_urls"},
    {"external", "external_urls"},
    {"hpa", "keda"},
    {"helm_hook", "argo_hook"},
    {"pvc", "claim"},
    {"pvc", "baked"},
    {"claim", "baked"},
    {"baked", "placement"},
]
"""Fragments that contradict each other, or set the same value."""


def merged(*names: str) -> dict[str, Any]:
    """Return the values of several fragments together."""
    made: dict[str, Any] = {}
    for name in names:
        for key, value in FRAGMENTS[name].items():
            made[key] = {**made[key], **value} if isinstance(value, dict) and isinstance(made.get(key), dict) else value
    return made


def matrix() -> Iterator[tuple[str, ...]]:
    """Yield the names of the fragments of each value set: none, each alone, and each pair that goes together."""
    yield ()
    yield from ((name,) for name in FRAGMENTS)
    yield from (pair for pair in itertools.combinations(FRAGMENTS, 2) if set(pair) not in EXCLUSIVE)


EVERYTHING = (
    tuple(name for name in FRAGMENTS if name not in {"existing_config", "external", "external_urls", "helm_hook", "argo_hook",
                                                     "keda", "claim", "baked", "open", "openshift"}),
    tuple(name for name in FRAGMENTS if name not in {"config", "secrets", "external", "helm_hook", "argo_hook", "hpa", "pvc",
                                                     "claim", "placement"}),
)  # fmt: skip
"""Two value sets with as much as goes together, which between them have every switch but the hooks."""


@functools.cache
def _render(major: str, values: str, kube: str, release: str = RELEASE) -> tuple[int, str, str]:
    command: list[str | Path] = [
        helm(major),
        "template",
        release,
        CHART,
        "--namespace",
        NAMESPACE,
        "--kube-version",
        kube,
        "--values",
        "-",
    ]
    done = run(*command, stdin=values)
    return done.returncode, done.stdout, done.stderr


def render(values: Values, major: str = "4", kube: str = "1.37.0", release: str = RELEASE) -> list[dict[str, Any]]:
    """Return the chart's objects."""
    code, out, err = _render(major, json.dumps(values), kube, release)
    assert code == 0, err
    return [each for each in yaml.load_all(out, yaml.CSafeLoader) if each]


def refusal(values: Values, major: str = "4") -> str:
    """Return helm's complaint about values that the chart refuses, with its blanks as one."""
    code, _, err = _render(major, json.dumps(values), "1.37.0")
    assert code != 0
    return re.sub(r"\s+", " ", err)


def notes(values: Values, major: str = "4") -> str:
    """Return what helm prints after an installation."""
    where = ["--namespace", NAMESPACE, "--dry-run=client", "--values", "-"]
    done = run(helm(major), "install", RELEASE, CHART, *where, stdin=json.dumps(values))
    assert done.returncode == 0, done.stderr
    return done.stdout.partition("NOTES:")[2]


def of_kind(objects: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """Return the objects of a kind."""
    return [each for each in objects if each["kind"] == kind]


def one(objects: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    """Return the one object of a kind."""
    (found,) = of_kind(objects, kind)
    return found
