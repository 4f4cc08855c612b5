"""Plays deploy/compose.yaml: PostgreSQL, Redis and the server in a network of their own, as the file says, without Docker."""

import contextlib
import os
import pwd
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from tests.deploy.images import Image
from tests.deploy.pods import Pod
from tests.deploy.services import START_S
from tests.deploy.tools import PREFIX, ROOT, run

FILE = ROOT / "deploy" / "compose.yaml"
MODEL_SERVER = Path(__file__).with_name("toolkit_server.py")


def compose_commands() -> list[str]:
    """Return the lines of docs/deploy.md that have to do with compose."""
    page = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    section = page.partition("\n## Compose\n")[2].partition("\n## ")[0]
    return re.findall(r"^    (\S.*)$", section, re.MULTILINE)


def services(variables: Mapping[str, str], *profiles: str) -> dict[str, dict[str, Any]]:
    """Return the services with all variables filled in, by podman-compose. Raises AssertionError with what it says."""
    options = [word for profile in profiles for word in ("--profile", profile)]
    command = [str(PREFIX / "bin" / "podman-compose"), "--file", str(FILE), *options, "config"]
    env = {"PATH": os.environ["PATH"], "HOME": "/root", **variables}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, Any]] = yaml.safe_load(done.stdout)["services"]
    return found


class Network:
    """A network namespace with a loopback of its own, in which each service has the address of its name."""

    def __init__(self, names: list[str]) -> None:
        """Make it. names: of the services."""
        held = ["unshare", "--net", "sh", "-c", "ip link set lo up && echo up && exec sleep infinity"]
        self._holder = subprocess.Popen(held, stdout=subprocess.PIPE)
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"up\n"
        self.place = Path(tempfile.mkdtemp(prefix="compose-", dir="/var/tmp"))
        self.place.chmod(0o755)
        (self.place / "hosts").write_text("".join(f"127.0.0.1 {name}\n" for name in ("localhost", *names)))
        self._started: list[subprocess.Popen[bytes]] = []

    @property
    def entered(self) -> list[str]:
        """The words before a command that is to run in it."""
        return ["nsenter", f"--net=/proc/{self._holder.pid}/ns/net"]

    def start(self, *command: str, user: str = "root") -> None:
        """Start a program in it, as a user of this machine, until the end."""
        owner = pwd.getpwnam(user)
        as_user = ["setpriv", f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups"]
        words = [*self.entered, *as_user, *command]
        self._started.append(subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/"))

    def wait(self, test: list[str]) -> None:
        """Ask a check of the file's until it holds."""
        kind, *words = test
        assert kind == "CMD"
        until = time.monotonic() + START_S
        while run(*self.entered, *words).returncode != 0:
            assert time.monotonic() < until, f"{words} does not hold"
            time.sleep(0.1)  # a check only tells the state, so the runtime asks it again, and so does this

    def close(self) -> None:
        """End all that was started in it."""
        for process in [*reversed(self._started), self._holder]:
            process.terminate()
            process.wait(30)
        shutil.rmtree(self.place)


class Container(Pod):
    """A service of the server's image, run as a pod is: its template says the same as the file."""

    def __init__(self, service: Mapping[str, Any], image: Image, network: Network) -> None:
        """Set what to run. Raises KeyError or AssertionError where the file says what is not played."""
        known = {"image", "environment", "read_only", "user", "cap_drop", "security_opt", "tmpfs", "volumes"}
        known |= {"command", "restart", "depends_on", "stop_grace_period", "ports", "healthcheck"}
        assert service.keys() <= known, service.keys() - known
        assert service["security_opt"] == ["no-new-privileges:true"]
        user, group = service["user"].split(":")
        security = {
            "readOnlyRootFilesystem": service["read_only"],
            "runAsUser": int(user),
            "runAsGroup": int(group),
            "capabilities": {"drop": service["cap_drop"]},
            "allowPrivilegeEscalation": False,
        }
        env = [{"name": name, "value": value} for name, value in service["environment"].items()]
        spec: dict[str, Any] = {"securityContext": security, "volumes": []}
        spec["containers"] = [{"env": env, "args": service.get("command"), "volumeMounts": []}]
        spec["terminationGracePeriodSeconds"] = int(service.get("stop_grace_period", "10s").removesuffix("s"))
        super().__init__({"spec": spec}, [], image, {})
        self.service, self.network = service, network

    def start(self) -> None:
        """Start it in the network."""
        self.before = self.network.entered
        super().start()

    def _mounts(self) -> Iterator[str]:
        yield from ("--ro-bind", str(self.network.place / "hosts"), "/etc/hosts")
        for path in self.service["tmpfs"]:
            yield from ("--perms", "1777", "--tmpfs", path)
        for volume in self.service["volumes"]:
            source, target, *mode = volume.split(":")
            if source.startswith((".", "/")):
                # A file, for which Docker makes the place: here its folder is mounted.
                assert mode == ["ro"]
                here = self.place / "file"
                here.mkdir()
                shutil.copy(FILE.parent / source, here / Path(target).name)
                yield from ("--ro-bind", str(here), str(Path(target).parent))
            else:
                # A new volume begins as the image has the folder.
                here = self.network.place / source
                if not here.exists():
                    there = (self.image.root / target.lstrip("/")).stat()
                    here.mkdir()
                    here.chmod(there.st_mode)
                    os.chown(here, there.st_uid, there.st_gid)
                yield from ("--bind", str(here), target)

    def healthy(self) -> bool:
        """Run the file's check once."""
        kind, *words = self.service["healthcheck"]["test"]
        assert kind == "CMD"
        return self.exec(*words).returncode == 0

    def wait_healthy(self) -> None:
        """Run the check until it holds, for as long as the file allows after a start."""
        assert self.process is not None
        until = time.monotonic() + int(self.service["healthcheck"]["start_period"].removesuffix("s"))
        while not self.healthy():
            assert self.process.poll() is None, self.log
            assert time.monotonic() < until, self.log
            time.sleep(0.5)  # as above


def start_postgres(network: Network, service: Mapping[str, Any]) -> None:
    """Start this machine's PostgreSQL with the file's user, password and database, which is what its image does."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    if not folders:
        pytest.skip("no PostgreSQL is installed: compose.yaml is not run")
    asked, owner = service["environment"], pwd.getpwnam("postgres")
    place = network.place / "postgres"
    place.mkdir(mode=0o700)
    (place / "password").write_text(asked["POSTGRES_PASSWORD"])
    for path in (place, place / "password"):
        os.chown(path, owner.pw_uid, owner.pw_gid)
    as_user = ["setpriv", f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups"]
    options = [f"--username={asked['POSTGRES_USER']}", "--auth=scram-sha-256", "--no-sync", "--encoding=UTF8"]
    data = str(place / "data")
    made = run(*as_user, folders[0] / "initdb", *options, f"--pwfile={place}/password", "--pgdata", data)
    assert made.returncode == 0, made.stderr
    network.start(str(folders[0] / "postgres"), "-D", data, "-k", str(place), "-h", "127.0.0.1", "-F", user="postgres")
    network.wait([service["healthcheck"]["test"][0], str(folders[0] / "pg_isready"), "--host", "127.0.0.1",
                  *service["healthcheck"]["test"][2:]])  # fmt: skip
    words = ["env", f"PGPASSWORD={asked['POSTGRES_PASSWORD']}", str(folders[0] / "createdb"), "--host", "127.0.0.1"]
    made = run(*network.entered, *words, "--username", asked["POSTGRES_USER"], asked["POSTGRES_DB"])
    assert made.returncode == 0, made.stderr


def start_redis(network: Network, service: Mapping[str, Any]) -> None:
    """Start this machine's Redis by the file's command."""
    program, *options = service["command"]
    if shutil.which(program) is None:
        pytest.skip("no redis-server is installed: compose.yaml is not run")
    network.start(program, *options, "--bind", "127.0.0.1", "--dir", "/tmp")
    network.wait(["CMD", "redis-cli", "ping"])


@contextlib.contextmanager
def up(image: Image, variables: Mapping[str, str]) -> Iterator[Container]:
    """Start the services with their profile `tei`, in their order; yield the server once it is healthy."""
    found = services(variables, "tei")
    network = Network(list(found))
    with contextlib.ExitStack() as stack:
        stack.callback(network.close)
        start_postgres(network, found["postgres"])
        start_redis(network, found["redis"])
        (port,) = [
            word
            for option, word in zip(found["tei"]["command"], found["tei"]["command"][1:], strict=False)
            if option == "--port"
        ]
        network.start(sys.executable, str(MODEL_SERVER), port)
        migration, gateway = (Container(found[name], image, network) for name in ("migration", "gateway"))
        stack.callback(migration.kill)
        stack.callback(gateway.kill)
        assert migration.run_to_the_end() == 0, migration.log
        gateway.start()
        gateway.wait_healthy()
        yield gateway
