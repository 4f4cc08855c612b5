"""Plays the pods of rendered objects: the image's files with the user, variables, mounts, probes and end of the manifest."""

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx

from tests.deploy.images import Image

Secrets = Mapping[str, Mapping[str, str]]
"""What the cluster's Secrets hold, by name."""


class Pod:
    """The first container of one pod, in namespaces of its own but for the network."""

    def __init__(self, template: dict[str, Any], objects: list[dict[str, Any]], image: Image, secrets: Secrets) -> None:
        """Set what to run.

        Args:
            template: `spec.template` of a Deployment or a Job.
            objects: of the release, for its ConfigMaps and Secrets.
            image: the image, whatever its name is in the manifest.
            secrets: those that the release does not make.
        """
        self.spec, self.image = template["spec"], image
        self.container = self.spec["containers"][0]
        self.maps = {each["metadata"]["name"]: each["data"] for each in objects if each["kind"] == "ConfigMap"}
        own = {each["metadata"]["name"]: each["stringData"] for each in objects if each["kind"] == "Secret"}
        self.secrets = {**secrets, **own}
        self.place = Path(tempfile.mkdtemp(prefix="pod-", dir="/var/tmp"))
        self.place.chmod(0o755)
        self.before: list[str] = []
        """Words before the command, which say where it runs; nothing for the machine's own network."""
        self.process: subprocess.Popen[bytes] | None = None
        self.pid = 0

    @property
    def security(self) -> dict[str, Any]:
        """The security context, the pod's and over it the container's."""
        return {**self.spec.get("securityContext", {}), **self.container.get("securityContext", {})}

    @property
    def env(self) -> dict[str, str]:
        """The variables: the image's, those of whole Secrets, and the container's own."""
        found = dict(each.split("=", 1) for each in self.image.config["Env"])
        for source in self.container.get("envFrom", []):
            found |= self.secrets[source["secretRef"]["name"]]
        for each in self.container.get("env", []):
            if "value" in each:
                found[each["name"]] = each["value"]
            else:
                reference = each["valueFrom"]["secretKeyRef"]
                found[each["name"]] = self.secrets[reference["name"]][reference["key"]]
        return found

    @property
    def command(self) -> list[str]:
        """What is run: the image's entrypoint and command, or the container's instead."""
        config = self.image.config
        return [
            *(self.container.get("command") or config["Entrypoint"]),
            *(self.container.get("args") or config["Cmd"]),
        ]

    @property
    def port(self) -> int:
        """The container's port."""
        return int(self.container["ports"][0]["containerPort"])

    @property
    def log(self) -> str:
        """What the container has printed."""
        return (self.place / "log").read_text(encoding="utf-8", errors="replace")

    def start(self) -> None:
        """Start the container; its process is the first of its namespace, as in a cluster."""
        assert self.security["readOnlyRootFilesystem"] is True
        words = [
            *self.before,
            "bwrap",
            "--ro-bind",
            str(self.image.root),
            "/",
            "--proc",
            "/proc",
            "--dev",
            "/dev",
            "--unshare-pid",
        ]
        words += ["--unshare-ipc", "--unshare-uts", "--as-pid-1", "--die-with-parent", "--clearenv", *self._mounts()]
        for name, value in self.env.items():
            words += ["--setenv", name, value]
        reading, writing = os.pipe()
        words += [
            "--chdir",
            self.image.config.get("WorkingDir") or "/",
            "--info-fd",
            str(writing),
            "--",
            *self._user(),
            *self.command,
        ]
        with (self.place / "log").open("wb") as log:
            self.process = subprocess.Popen(words, stdout=log, stderr=log, pass_fds=[writing])
        os.close(writing)
        with os.fdopen(reading, "rb") as told:
            self.pid = int(json.loads(told.read() or b'{"child-pid": 0}')["child-pid"])

    def _user(self) -> list[str]:
        context = self.security
        words = [
            "setpriv",
            "--reuid",
            str(context["runAsUser"]),
            "--regid",
            str(context["runAsGroup"]),
            "--clear-groups",
        ]
        assert context["capabilities"] == {"drop": ["ALL"]}
        words += ["--inh-caps=-all", "--bounding-set=-all"]
        return words if context["allowPrivilegeEscalation"] else [*words, "--no-new-privs"]

    def _mounts(self) -> Iterator[str]:
        volumes = {each["name"]: each for each in self.spec["volumes"]}
        for mount in self.container["volumeMounts"]:
            volume, here = volumes[mount["name"]], self.place / mount["name"]
            here.mkdir(exist_ok=True)
            if "configMap" in volume:
                data = self.maps[volume["configMap"]["name"]]
                paths = {each["key"]: each["path"] for each in volume["configMap"].get("items", [])} or {
                    name: name for name in data
                }
                for name, path in paths.items():
                    (here / path).parent.mkdir(parents=True, exist_ok=True)
                    (here / path).write_text(data[name], encoding="utf-8")
            else:
                assert "emptyDir" in volume, volume
                # As the kubelet makes it: of the group fsGroup, which may write.
                os.chown(here, 0, self.spec.get("securityContext", {}).get("fsGroup", 0))
                here.chmod(0o2770)
            yield from ("--ro-bind" if mount.get("readOnly") else "--bind", str(here), mount["mountPath"])

    def exec(self, *command: str) -> "subprocess.CompletedProcess[str]":
        """Run a command in the container, as its user, with its variables."""
        words = ["nsenter", "--target", str(self.pid), "--mount", "--pid", "--ipc", "--uts", "--net", "--root", "--wd"]
        words += ["env", "-i", *(f"{name}={value}" for name, value in self.env.items()), *self._user(), *command]
        return subprocess.run(words, capture_output=True, text=True, check=False, timeout=300)

    def probe(self, kind: str) -> bool:
        """Ask a probe once: any status from 200 to 399 counts."""
        probe = self.container[f"{kind}Probe"]
        assert probe["httpGet"]["port"] == self.container["ports"][0]["name"]
        try:
            url = f"http://127.0.0.1:{self.port}{probe['httpGet']['path']}"
            return httpx.get(url, timeout=probe["timeoutSeconds"], trust_env=False).status_code < 400
        except httpx.TransportError:
            return False

    def wait_ready(self) -> float:
        """Ask the startup probe as often as the manifest allows, then the readiness probe; return the seconds it took."""
        assert self.process is not None
        began = time.monotonic()
        for kind in ("startup", "readiness"):
            probe = self.container[f"{kind}Probe"]
            for _ in range(max(probe["failureThreshold"], 60)):
                assert self.process.poll() is None, self.log
                if self.probe(kind):
                    break
                time.sleep(probe["periodSeconds"])
            else:
                raise AssertionError(f"the {kind} probe failed: {self.log}")
        return time.monotonic() - began

    def terminate(self) -> tuple[int, float]:
        """End it as the kubelet does: preStop, SIGTERM to its first process, SIGKILL after the time; return code and seconds."""
        assert self.process is not None
        began = time.monotonic()
        deadline = began + self.spec["terminationGracePeriodSeconds"]
        if hook := self.container.get("lifecycle", {}).get("preStop"):
            done = self.exec(*hook["exec"]["command"])
            assert done.returncode == 0, done.stderr
        os.kill(self.pid, signal.SIGTERM)
        code = self.process.wait(deadline - time.monotonic())
        return code, time.monotonic() - began

    def run_to_the_end(self) -> int:
        """Run a Job's pod; return its code."""
        self.start()
        assert self.process is not None
        return self.process.wait(300)

    def kill(self) -> None:
        """End it at once, and forget what it wrote."""
        if self.process is not None and self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self.process.kill()
            self.process.wait(30)
        shutil.rmtree(self.place, ignore_errors=True)

    def __repr__(self) -> str:
        """Show what is run."""
        return f"Pod({shlex.join(self.command)})"
