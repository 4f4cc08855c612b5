"""The folders of a job: where it writes, which earlier job it takes vectors from, and how one is brought up to date in its place.

A job that updates its own folder writes into `.next` below it. `_SUCCESS` in there is the decision: from then on the new parts
are moved beside the old ones, under names of their own, and the new `_SUCCESS` takes the place of the old one at last. Each step
can be repeated, so that a kill between two of them does no harm.
"""

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_gateway.corpus.parts import SUCCESS
from hf_gateway.corpus.plan import PLAN, keep_names
from hf_gateway.corpus.stores.base import GRAMMAR, StorePlace, parse_place
from hf_gateway.errors import ConfigError, visible

NEXT = ".next"
_GENERATION = re.compile(r"part-\d{6,}(?:-g(\d+))?\.")


@dataclass(frozen=True, slots=True)
class JobFolders:
    """The folders of a job."""

    folder: Path
    """What readers and `--since` go by."""
    store: StorePlace | None
    """The collection, if the rows go into one."""
    earlier: Path | None
    """The folder of the earlier job."""

    @property
    def in_place(self) -> bool:
        """Whether the job brings its own folder up to date."""
        return self.earlier == self.folder

    @property
    def work(self) -> Path:
        """Where the parts are made."""
        return self.folder / NEXT if self.in_place else self.folder

    @property
    def generation(self) -> int:
        """How often the folder has been brought up to date when this job is done. Raises ConfigError."""
        if not self.in_place:
            return 0
        return int(read_facts(self.folder).get("generation", 0)) + 1


def folders_of(out: str | Path, since: str | Path | None, job_folder: str | Path | None) -> JobFolders:
    """Return the folders of a job.

    Args:
        out: a folder, or a collection of a store.
        since: the same of the earlier job.
        job_folder: what is kept of a job that writes into a store; None for the collection's name with `.job`.

    Raises:
        ConfigError: a store is named wrongly, or the earlier job's rows are in another collection.
    """
    place = parse_place(str(out))
    if place is None and job_folder is not None:
        raise ConfigError("a job that writes into a folder has its plan and records there: name no other one")
    if place is None and "://" in str(out):
        raise ConfigError(
            f"{visible(str(out))}: parts are written into a folder of this machine, or of a file system that is mounted; or name "
            f"a store: {GRAMMAR}"
        )
    folder = Path(out) if place is None else Path(job_folder or f"{place.collection}.job")
    earlier = None
    if since is not None:
        before = parse_place(str(since))
        earlier = Path(since) if before is None else folder if before == place else Path(f"{before.collection}.job")
        if before is not None and before != place:
            raise ConfigError(
                f"{visible(before.public_name)}: vectors are not read from a store. --since is the collection that is written "
                "into, which is brought up to date, or the folder of a job with its parts"
            )
    return JobFolders(folder.resolve(), place, None if earlier is None else earlier.resolve())


def read_facts(folder: Path) -> dict[str, Any]:
    """Return what the parts of a job depend on, by its plan. Raises ConfigError if it is missing."""
    try:
        facts: dict[str, Any] = json.loads((folder / PLAN).read_bytes())["facts"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{visible(str(folder))} has no finished job ({type(error).__name__})") from None
    return facts


def finish_update(folder: Path) -> None:
    """Put what `.next` has in the place of what the folder has, if it is finished; go on where that was stopped.

    Args:
        folder: of the job.
    """
    work = folder / NEXT
    if (work / SUCCESS).exists():
        for file in sorted(work.iterdir()):
            if file.name.startswith("part-") or file.name in (PLAN, "parts.jsonl", "input.parquet"):
                file.replace(folder / file.name)
        keep_names(folder)
        (work / SUCCESS).replace(folder / SUCCESS)
        keep_names(folder)
    elif not work.exists() or (work / PLAN).exists() or not (folder / PLAN).exists():
        return  # nothing was begun, or it is not finished
    current = read_facts(folder).get("generation", 0)
    for file in folder.iterdir():
        found = _GENERATION.match(file.name)
        if found is not None and int(found[1] or 0) != current:
            file.unlink(missing_ok=True)
    shutil.rmtree(work, ignore_errors=True)
