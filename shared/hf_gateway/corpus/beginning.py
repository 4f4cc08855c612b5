"""What is settled before a job's workers begin: its plan, the earlier job, and the collection."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hf_gateway.corpus.folders import JobFolders, finish_update, read_facts
from hf_gateway.corpus.inputs import InputFile, keep_memory_files, write_given_rows
from hf_gateway.corpus.job_settings import JobSettings
from hf_gateway.corpus.part_records import read_records
from hf_gateway.corpus.parts import ROW_HASH, SUCCESS
from hf_gateway.corpus.plan import Plan, Shards, keep_plan, make_shards
from hf_gateway.corpus.reuse import earlier_job, write_index
from hf_gateway.values.vector_space import VectorSpace


class Beginning:
    """A job whose folder is locked, but whose plan is not made yet."""

    def __init__(self, folders: JobFolders, job: JobSettings, space: VectorSpace) -> None:
        """Finish the update that an earlier run has decided, and make the folder of this one.

        Args:
            folders: of the job.
            job: its settings.
            space: of the job.
        """
        self.folders, self.job = folders, job
        self._space = space
        finish_update(folders.folder)
        folders.work.mkdir(exist_ok=True)

    def plan(self, source: Any, files: Sequence[InputFile] | None, shard_rows: int, shard_bytes: int) -> Plan:
        """Return the plan, which is made and written unless it is there.

        If the job would bring its folder up to date with what it was made of, `folders` and `job` become those of a resume.

        Args:
            source: rows that Python gives, if there are no files.
            files: the inputs.
            shard_rows: rows of a part at most.
            shard_bytes: bytes of a part's texts at most.

        Raises:
            ConfigError: the folder is of another job, or the earlier one has nothing to take over.
            SpaceMismatch: the earlier job is of another space.
        """
        job, work = self.job, self.folders.work
        earlier = None if job.since is None else earlier_job(Path(job.since), job, self._space)
        found = keep_memory_files(list(files), work) if files else write_given_rows(source, work, job.columns)
        facts = {
            "inputs": [[_below(file.path, work), file.stamp] for file in found],
            "text": job.text,
            "id": job.id,
            "keep": list(job.keep),
            "shard_rows": shard_rows,
            "shard_bytes": shard_bytes,
            "split": job.split,
            "form": job.form,
            "dtype": job.dtype,
            "space": self._space.id,
            "store": None if self.folders.store is None else self.folders.store.public_name,
            "since": earlier,
            "generation": self.folders.generation,
        }
        if self.folders.in_place and self._is_up_to_date(facts):
            shutil.rmtree(work)
            facts = read_facts(self.folders.folder)
            self.folders = replace(self.folders, earlier=None)
            self.job = replace(job, out=str(self.folders.folder), since=None, updates_store=False)
        plan = keep_plan(
            self.folders.work,
            facts,
            found,
            lambda: make_shards(found, job.needed_columns, job.id, shard_rows, shard_bytes),
        )
        if self.job.since is not None:
            write_index(Path(self.job.since), work, ROW_HASH if job.updates_store else "text_hash")
        self.job = replace(self.job, name=f"corpus-{plan.digest[:16]}")
        return plan

    def _is_up_to_date(self, facts: dict[str, Any]) -> bool:
        """Return whether the folder has all parts of a job that differs in nothing but what it was brought up to date from."""
        folder, passing = self.folders.folder, ("since", "generation")
        there = read_facts(folder)
        if any(there.get(name) != value for name, value in facts.items() if name not in passing):
            return False
        plan = keep_plan(folder, there, [], Shards)
        done = read_records(folder, self.job.form, plan)
        return (folder / SUCCESS).exists() and done.totals.parts == len(plan.shards)


def _below(path: str, folder: Path) -> str:
    """Return a path, if it is of a file below a folder from there on: a copy of what Python or memory had is no other input."""
    return Path(path).relative_to(folder).as_posix() if Path(path).is_relative_to(folder) else path
