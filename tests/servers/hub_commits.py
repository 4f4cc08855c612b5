"""The Hub as far as one publishes to it: repositories, uploads by git-lfs, commits, and reading all of it again.

After huggingface_hub's `hf_api.py`, `_commit_api.py` and `lfs.py`, which are the judges, and the recorded create, preupload and
commit of a Space (2025-03). There is no Xet here, as on mirrors of the Hub.
"""

import hashlib
import json
import re
import threading
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import yaml

from tests.servers.loopback import Exchange, Loopback, Recorded, Reply

REQUEST_ID = "Root=1-67cae56d-0d991be52616ccd52f81462b"
ATTRIBUTES = b"*.bin filter=lfs diff=lfs merge=lfs -text\n*.safetensors filter=lfs diff=lfs merge=lfs -text\n"
LFS_PATTERNS = ("*.bin", "*.safetensors", "*.pt", "*.onnx")
LARGE = 10_000_000
"""Bytes from which on the Hub takes a file by git-lfs whatever its name."""


@dataclass(frozen=True)
class User:
    """Whose a token is. role: `read`, `write` or `fineGrained`; scoped: then (entity's kind, name) → permissions."""

    name: str
    role: str = "write"
    orgs: Mapping[str, str] = field(default_factory=dict)
    scoped: Mapping[tuple[str, str], Sequence[str]] = field(default_factory=dict)
    everywhere: Sequence[str] = ()

    def whoami(self) -> dict[str, Any]:
        """Return what the Hub says of the token."""
        token: dict[str, Any] = {"displayName": "laptop", "role": self.role, "createdAt": "2026-01-01T00:00:00.000Z"}
        if self.role == "fineGrained":
            scoped = [
                {"entity": {"_id": "0", "type": kind, "name": name}, "permissions": list(permissions)}
                for (kind, name), permissions in self.scoped.items()
            ]
            token["fineGrained"] = {"canReadGatedRepos": False, "global": list(self.everywhere), "scoped": scoped}
        return {
            "type": "user",
            "id": "5e7565",
            "name": self.name,
            "fullname": self.name.title(),
            "isPro": False,
            "orgs": [{"type": "org", "name": name, "roleInOrg": role} for name, role in self.orgs.items()],
            "auth": {"type": "access_token", "accessToken": token},
        }

    def may_write(self, repo: str) -> bool:
        """Whether the Hub lets it write there."""
        owner = repo.partition("/")[0]
        if owner != self.name and self.orgs.get(owner, "read") == "read":
            return False
        if self.role == "fineGrained":
            places = [("user", owner), ("org", owner), ("model", repo)]
            return any("repo.write" in self.scoped.get(place, ()) for place in places)
        return self.role == "write"


@dataclass(frozen=True)
class Blob:
    """A file's content; large: kept by git-lfs."""

    content: bytes
    large: bool = False

    @property
    def sha256(self) -> str:
        """What git-lfs calls it."""
        return hashlib.sha256(self.content).hexdigest()

    @property
    def oid(self) -> str:
        """What the Hub calls it: git's own id of a regular file, git-lfs's of a large one."""
        if self.large:
            return self.sha256
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()


@dataclass(frozen=True)
class Commit:
    """A commit: everything there is after it."""

    oid: str
    title: str
    files: Mapping[str, Blob]


class Repo:
    """A repository; its first commit is the Hub's own."""

    def __init__(self, *, private: bool = False, files: Mapping[str, bytes] | None = None) -> None:
        """Make it, with files if it is to have some."""
        self.private = private
        self.commits: list[Commit] = []
        first = {".gitattributes": Blob(ATTRIBUTES)}
        self.add(
            "initial commit", first | {name: Blob(each, is_large(name, each)) for name, each in (files or {}).items()}
        )

    @property
    def head(self) -> Commit:
        """The newest."""
        return self.commits[-1]

    @property
    def ours(self) -> list[Commit]:
        """All but the Hub's own first one."""
        return self.commits[1:]

    def add(self, title: str, files: Mapping[str, Blob]) -> Commit:
        """Commit: from now on there are these files."""
        said = f"{title}{len(self.commits)}{sorted((name, blob.oid) for name, blob in files.items())}"
        self.commits.append(Commit(hashlib.sha1(said.encode()).hexdigest(), title, dict(files)))
        return self.head

    def at(self, revision: str) -> Commit | None:
        """Find a commit by its id; `main` is the newest."""
        return self.head if revision == "main" else next((c for c in self.commits if c.oid == revision), None)


def is_large(name: str, content: bytes | int) -> bool:
    """Whether the Hub takes it by git-lfs. content: it, or how many bytes it has."""
    size = content if isinstance(content, int) else len(content)
    return size > LARGE or any(fnmatch(name, pattern) for pattern in LFS_PATTERNS)


class AnswerLost:
    """A fault: the server does what it was asked, and its answer never arrives."""

    def play(self, exchange: Exchange) -> None:
        """Do it, and close."""
        exchange.normal()
        exchange.close(reset=True)


class FakeHubCommits(Loopback):
    """A Hub that can be written to. users: token → whose it is; moved: old name of a repository → its new one."""

    def __init__(self, users: Mapping[str, User] | None = None) -> None:
        """Start it, with nothing in it."""
        self.users = dict(users or {})
        self.repos: dict[str, Repo] = {}
        self.moved: dict[str, str] = {}
        self.stored: dict[str, bytes] = {}
        self._changing = threading.RLock()
        super().__init__()

    def add_folder(self, name: str, folder: Path, *, readme: str | None = None, private: bool = False) -> Repo:
        """Put a repository there, with the files of a folder."""
        files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        if readme is not None:
            files["README.md"] = readme.encode()
        repo = self.repos[name] = Repo(private=private, files=files)
        return repo

    @property
    def writes(self) -> list[Recorded]:
        """The requests that were not mere questions."""
        return [request for request in self.requests if request.method not in ("GET", "HEAD")]

    def handle(self, request: Recorded) -> Reply:
        """Route."""
        path = request.target.partition("?")[0]
        if path.startswith("/lfs-storage/"):
            return self._store(request, path.removeprefix("/lfs-storage/"))
        token = request.bearer
        if token is not None and token not in self.users:
            return _error(401, "Invalid credentials in Authorization header")
        user = self.users.get(token) if token else None
        with self._changing:
            for pattern, method, answer in _ROUTES:
                found = pattern.fullmatch(path)
                if found and method == request.method.replace("HEAD", "GET"):
                    return answer(
                        self, request, user, {name: unquote(value or "") for name, value in found.groupdict().items()}
                    )
        return _error(404, "Sorry, we can't find the page you are looking for.")

    def whoami(self, request: Recorded, user: User | None, at: Mapping[str, str]) -> Reply:
        """Say whose token it is."""
        return _ok(user.whoami()) if user else _error(401, "Invalid username or password.")

    def create(self, request: Recorded, user: User | None, at: Mapping[str, str]) -> Reply:
        """Make a repository."""
        if user is None:
            return _error(401, "Invalid username or password.")
        asked = request.json
        name = f"{asked.get('organization') or user.name}/{asked['name']}"
        if not user.may_write(name):
            owner = name.partition("/")[0]
            return _error(403, f'You don\'t have the rights to create a model under the namespace "{owner}"')
        url = f"{self.url}/{name}"
        if name in self.repos:
            return Reply(409, {"error": "You already created this model repo", "url": url}, _headers())
        private = asked.get("private", asked.get("visibility") == "private")
        self.repos[name] = Repo(private=bool(private))
        return _ok({"url": url, "name": name, "id": "67cae5358ccdbd832011c081", "private": private})

    def validate(self, request: Recorded, user: User | None, at: Mapping[str, str]) -> Reply:
        """Look at a card's metadata as the Hub does: YAML, and a base model that is an id."""
        errors = []
        try:
            bases = metadata_of(request.json["content"]).get("base_model") or []
        except yaml.YAMLError as error:
            bases, errors = [], [{"message": f"bad YAML: {error}"}]
        for base in [bases] if isinstance(bases, str) else bases:
            if not re.fullmatch(r"[\w.-]+/[\w.-]+|[\w-]+", base):
                said = f'"base_model" with value "{base}" is not valid. Use a model id from https://hf.co/models.'
                errors.append({"message": said})
        return Reply(400 if errors else 200, {"errors": errors, "warnings": []}, _headers())

    def info(self, request: Recorded, user: User | None, at: Mapping[str, str]) -> Reply:
        """Describe a repository at a revision."""
        repo = self._readable(request, at, user)
        if isinstance(repo, Reply):
            return repo
        commit = repo.at(at["revision"] or "main")
        if commit is None:
            return _error(404, f"Invalid rev id: {at['revision']}", "RevisionNotFound")
        card = metadata_of(commit.files["README.md"].content.decode()) if "README.md" in commit.files else {}
        sizes = "blobs" in request.query
        siblings = [
            {"rfilename": name} | ({"size": len(blob.content), "blobId": blob.oid} if sizes else {})
            for name, blob in sorted(commit.files.items())
        ]
        return _ok(
            {
                "_id": "67cae5358ccdbd832011c081",
                "id": at["id"],
                "modelId": at["id"],
                "author": at["id"].partition("/")[0],
                "sha": commit.oid,
                "private": repo.private,
                "gated": False,
                "disabled": False,
                "downloads": 0,
                "likes": 0,
                "tags": list(card.get("tags") or []),
                "cardData": card,
                "siblings": siblings,
                "createdAt": "2026-01-01T00:00:00.000Z",
                "lastModified": "2026-01-01T00:00:00.000Z",
            }
        )

    def tree(self, request: Recorded, user: User | None, at: Mapping[str, str]) -> Reply:
        """List a repository's files."""
        repo = self._readable(request, at, user)
        if isinstance(repo, Reply):
            return repo
        commit = repo.at(at["revision"])
        if commit is None:
            return _error(404, f"Invalid rev id: {at['revision']}", "RevisionNotFound")
        rows: list[Any] = []
        for name, blob in sorted(commit.files.items()):
            rows.append({"type": "file", "oid": Blob(blob.content).oid, "size": len(blob.content), "path": name})
            if blob.large:
                rows[-1]["lfs"] = {"oid": blob.sha256, "size": len(blob.content), "pointerSize": 134}
        return Reply(200, rows, _headers())

    def resolve(self, request: Recorded, user: User | None, at: Mapping[str, str]) -> Reply:
        """Give a file."""
        repo = self._readable(request, at, user)
        if isinstance(repo, Reply):
            return repo
        commit = repo.at(at["revision"])
        if commit is None:
            return _error(404, f"Invalid rev id: {at['revision']}", "RevisionNotFound")
        blob = commit.files.get(at["path"])
        if blob is None:
            return _error(404, "Entry not found", "EntryNotFound")
        headers = {"etag": f'"{blob.oid}"', "x-repo-commit": commit.oid, "content-type": "application/octet-stream"}
        return Reply(200, blob.content, headers | _headers())

    def check(self, request: Recorded, user: User | None, at: Mapping[str, str]) -> Reply:
        """Say whether a repository may be read, or written to."""
        repo = self._readable(request, at, user)
        if isinstance(repo, Reply):
            return repo
        if at["write"] and (user is None or not user.may_write(at["id"])):
            return _error(403, "Forbidden: you don't have write access to this repo")
        return _ok({})

    def preupload(self, request: Recorded, user: User | None, at: Mapping[str, str]) -> Reply:
        """Say of each file how it is to be sent, and what stands there under its name."""
        repo = self._writable(request, at, user)
        if isinstance(repo, Reply):
            return repo
        ignored = repo.head.files.get(".gitignore", Blob(b"")).content.decode().split()
        rows = []
        for file in request.json["files"]:
            name = file["path"]
            row = {
                "path": name,
                "uploadMode": "lfs" if is_large(name, file["size"]) else "regular",
                "shouldIgnore": any(fnmatch(name, pattern) for pattern in ignored),
            }
            rows.append(row | ({"oid": repo.head.files[name].oid} if name in repo.head.files else {}))
        return _ok({"files": rows, "commitOid": repo.head.oid})

    def batch(self, request: Recorded, user: User | None, at: Mapping[str, str]) -> Reply:
        """Say where large files are to be put; those that are stored already nowhere."""
        repo = self._writable(request, at, user)
        if isinstance(repo, Reply):
            return repo
        rows = []
        for each in request.json["objects"]:
            row = {"oid": each["oid"], "size": each["size"], "authenticated": True}
            if each["oid"] not in self.stored:
                upload = {"href": f"{self.url}/lfs-storage/{each['oid']}?X-Amz-Signature=0", "header": {}}
                verify = {"href": f"{self.url}/{at['id']}.git/info/lfs/objects/verify", "header": {}}
                row["actions"] = {"upload": upload, "verify": verify}
            rows.append(row)
        return Reply(200, {"transfer": "basic", "objects": rows}, {"content-type": "application/vnd.git-lfs+json"})

    def verify(self, request: Recorded, user: User | None, at: Mapping[str, str]) -> Reply:
        """Say whether a large file has arrived."""
        repo = self._writable(request, at, user)
        if isinstance(repo, Reply):
            return repo
        arrived = len(self.stored.get(request.json["oid"], b"")) == request.json["size"]
        return _ok({}) if arrived else _error(404, "the object was not uploaded")

    def commit(self, request: Recorded, user: User | None, at: Mapping[str, str]) -> Reply:
        """Commit: all of it, or nothing."""
        repo = self._writable(request, at, user)
        if isinstance(repo, Reply):
            return repo
        header, *operations = [json.loads(line) for line in request.body.splitlines() if line]
        if header["key"] != "header" or not header["value"]["summary"]:
            return _error(400, "the first line is the header, with a summary")
        if header["value"].get("parentCommit") not in (None, repo.head.oid):
            return _error(412, "A commit has happened since. Please refresh and try again.")
        files = dict(repo.head.files)
        for operation in operations:
            value = operation["value"]
            if operation["key"] == "file":
                files[value["path"]] = Blob(b64decode(value["content"]))
            elif operation["key"] == "lfsFile" and value["oid"] in self.stored:
                files[value["path"]] = Blob(self.stored[value["oid"]], large=True)
            elif operation["key"] == "deletedFile":
                del files[value["path"]]
            else:
                return _error(400, f"LFS pointer pointed to a file that does not exist: {value.get('path')}")
        made = repo.add(header["value"]["summary"], files)
        url = f"{self.url}/{at['id']}/commit/{made.oid}"
        return _ok({"success": True, "commitOid": made.oid, "commitUrl": url, "hookOutput": ""})

    def _store(self, request: Recorded, oid: str) -> Reply:
        """Take a large file, as S3 does: by the signature in the URL, and no second way of saying who one is."""
        if request.method != "PUT" or "authorization" in request.headers:
            return _error(400, "Only one auth mechanism allowed")
        if hashlib.sha256(request.body).hexdigest() != oid:
            return _error(400, "XAmzContentSHA256Mismatch")
        with self._changing:
            self.stored[oid] = request.body
        return Reply(200, b"", {"etag": '"0"'})

    def _readable(self, request: Recorded, at: Mapping[str, str], user: User | None) -> Repo | Reply:
        """Return the repository; a redirect for one that was moved, and for who may not see it what a missing one gets."""
        name = at["id"]
        if name in self.moved:
            target = request.target.replace(quote(name), quote(self.moved[name]), 1)
            return Reply(307, b"", {"location": target} | _headers())
        repo = self.repos.get(name)
        owner = name.partition("/")[0]
        known = user is not None and (owner == user.name or owner in user.orgs)
        if repo is not None and (known or not repo.private):
            return repo
        if user is None:
            return _error(401, "Invalid username or password.")
        return _error(404, "Repository not found", "RepoNotFound")

    def _writable(self, request: Recorded, at: Mapping[str, str], user: User | None) -> Repo | Reply:
        repo = self._readable(request, at, user)
        if isinstance(repo, Repo) and (user is None or not user.may_write(at["id"])):
            return _error(403, "Forbidden: you must use a write token to upload to a repository.")
        return repo


_MODEL = r"/api/models/(?P<id>[^/]+/[^/]+)"
_ROUTES = [
    (re.compile(pattern), method, answer)
    for pattern, method, answer in (
        (r"/api/whoami-v2", "GET", FakeHubCommits.whoami),
        (r"/api/repos/create", "POST", FakeHubCommits.create),
        (r"/api/validate-yaml", "POST", FakeHubCommits.validate),
        (rf"{_MODEL}(?:/revision/(?P<revision>[^/]+))?", "GET", FakeHubCommits.info),
        (rf"{_MODEL}/tree/(?P<revision>[^/]+)/?", "GET", FakeHubCommits.tree),
        (rf"{_MODEL}/auth-check(?P<write>/write)?", "GET", FakeHubCommits.check),
        (rf"{_MODEL}/preupload/(?P<revision>[^/]+)", "POST", FakeHubCommits.preupload),
        (rf"{_MODEL}/commit/(?P<revision>[^/]+)", "POST", FakeHubCommits.commit),
        (r"/(?P<id>[^/]+/[^/]+)\.git/info/lfs/objects/batch", "POST", FakeHubCommits.batch),
        (r"/(?P<id>[^/]+/[^/]+)\.git/info/lfs/objects/verify", "POST", FakeHubCommits.verify),
        (r"/(?P<id>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "GET", FakeHubCommits.resolve),
    )
]


def metadata_of(card: str) -> dict[str, Any]:
    """Read the YAML at the head of a card."""
    found = re.match(r"---\r?\n(.*?)\r?\n---", card, re.DOTALL)
    data = yaml.safe_load(found[1]) if found else None
    return data if isinstance(data, dict) else {}


def _headers() -> dict[str, str]:
    return {"x-request-id": REQUEST_ID}


def _ok(body: dict[str, Any]) -> Reply:
    return Reply(200, body, _headers())


def _error(status: int, message: str, code: str | None = None) -> Reply:
    headers = {"x-error-message": message} | ({"x-error-code": code} if code else {})
    return Reply(status, {"error": message}, headers | _headers())
