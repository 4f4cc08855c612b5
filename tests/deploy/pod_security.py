"""Pod Security "restricted", of Kubernetes' Pod Security Standards, and a few rules of this chart, over rendered pods."""

from collections.abc import Iterator
from typing import Any

WORKLOADS = ("Deployment", "Job", "StatefulSet", "DaemonSet", "ReplicaSet")
VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
SECRET_WORDS = ("TOKEN", "KEY", "PASSWORD", "SECRET", "DATABASE", "REDIS")
NOT_SECRET = {"HF_GATEWAY_SERVER_REQUIRE_KEY"}


def pods(objects: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name and spec of each pod that the objects make."""
    for each in objects:
        name = f"{each['kind']}/{each['metadata']['name']}"
        if each["kind"] in WORKLOADS:
            yield name, each["spec"]["template"]["spec"]
        elif each["kind"] == "CronJob":
            yield name, each["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        elif each["kind"] == "Pod":
            yield name, each["spec"]


def findings(objects: list[dict[str, Any]]) -> list[str]:
    """Return what breaks a rule, by pod and container."""
    found = []
    for name, pod in pods(objects):
        found += [f"{name}: {problem}" for problem in _of_pod(pod)]
        for kind in ("initContainers", "containers", "ephemeralContainers"):
            for container in pod.get(kind, []):
                found += [f"{name}/{container['name']}: {problem}" for problem in _of_container(pod, container)]
    return found


def _of_pod(pod: dict[str, Any]) -> Iterator[str]:
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(field):
            yield field
    for volume in pod.get("volumes", []):
        if bad := set(volume) - {"name"} - VOLUMES:
            yield f"volume {volume['name']} is of {', '.join(bad)}"
    context = pod.get("securityContext", {})
    if context.get("sysctls"):
        yield "sysctls"
    if pod.get("automountServiceAccountToken") is not False:
        yield "the account's token is mounted"


def _of_container(pod: dict[str, Any], container: dict[str, Any]) -> Iterator[str]:
    own = container.get("securityContext", {})
    context = {**pod.get("securityContext", {}), **own}
    if context.get("runAsNonRoot") is not True or context.get("runAsUser") == 0:
        yield "may be root"
    if own.get("privileged"):
        yield "is privileged"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "may gain privileges"
    capabilities = own.get("capabilities", {})
    if "ALL" not in capabilities.get("drop", []) or set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
        yield "keeps capabilities"
    if context.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
        yield "has no seccomp profile"
    if any("hostPort" in port for port in container.get("ports", [])):
        yield "has a port of the node"
    # Beyond the standard.
    if own.get("readOnlyRootFilesystem") is not True:
        yield "has a writable root"
    if "memory" not in container.get("resources", {}).get("limits", {}):
        yield "has no limit of memory"
    for variable in container.get("env", []):
        secret = any(word in variable["name"] for word in SECRET_WORDS) and variable["name"] not in NOT_SECRET
        if secret and "value" in variable:
            yield f"{variable['name']} in clear text"
