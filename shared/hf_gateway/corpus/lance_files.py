"""Parts in a Lance dataset: workers write fragments, which nothing reads yet, and the job commits all of them as one version.

The file of a part has the description of its fragments, so that the job commits what is recorded and nothing else.
"""

import datetime as dt
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hf_gateway.errors import ConfigError, GatewayError, visible
from hf_gateway.retrieval.files import arrow

DATASET = "vectors.lance"
"""The dataset in the folder; LanceDB opens it as the table `vectors`."""


_DONE = "_SUCCESS"


def lance() -> Any:
    """Return the package lance. Raises ConfigError that names the extra."""
    os.environ.setdefault("LANCE_LOG", "error")  # it warns of each dataset that is not there yet
    try:
        import lance
    except ImportError as error:
        raise ConfigError(f"Lance needs another package ({error}): pip install 'hf-gateway[corpus,lancedb]'") from None
    return lance


def write_fragments(path: Path, table: Any) -> int:
    """Write a part's fragments into the dataset beside it, and their description into a file; all is on the disk afterwards.

    Args:
        path: of the file, in the job's folder.
        table: the rows.

    Returns:
        How many rows were written.
    """
    package, dataset = lance(), path.parent / DATASET
    made = package.fragment.write_fragments(table, str(dataset), schema=table.schema)
    described = [fragment.to_json() for fragment in made]
    for fragment in described:
        for file in fragment["files"]:
            with (dataset / "data" / file["path"]).open("rb") as written:
                os.fsync(written.fileno())
    schema = table.schema.serialize().to_pybytes().hex()
    path.write_text(json.dumps({"schema": schema, "fragments": described}), encoding="utf-8")
    return sum(int(fragment["physical_rows"]) for fragment in described)


def commit_fragments(folder: Path, files: Sequence[str]) -> dict[str, Any]:
    """Commit the fragments of all parts as one version, unless the job is done; remove what no part lists.

    Args:
        folder: of the job.
        files: of the parts, in order.

    Returns:
        What `_SUCCESS` says of the dataset.

    Raises:
        GatewayError: the parts have different columns.
    """
    package, path = lance(), str(folder / DATASET)
    if not (folder / _DONE).exists() and files:
        pa, _ = arrow()
        parts = [json.loads((folder / file).read_bytes()) for file in files]
        if different := [file for file, part in zip(files, parts, strict=True) if part["schema"] != parts[0]["schema"]]:
            raise GatewayError(
                f"{different[0]} has columns of other types than {files[0]}, and a Lance dataset has one schema: "
                "leave the column out, give the inputs one type, or write Parquet"
            )
        schema = pa.ipc.read_schema(pa.py_buffer(bytes.fromhex(parts[0]["schema"])))
        fragments = [
            package.FragmentMetadata.from_json(json.dumps(fragment)) for part in parts for fragment in part["fragments"]
        ]
        package.LanceDataset.commit(path, package.LanceOperation.Overwrite(schema, fragments))
        package.dataset(path).cleanup_old_versions(older_than=dt.timedelta(0), delete_unverified=True)
    return {"dataset": DATASET, "version": package.dataset(path).version} if files else {}


def read_column(path: Path, name: str) -> Any:
    """Return a column of a part's rows as an Arrow array of chunks.

    Args:
        path: of the part's file, in the folder of a finished job.
        name: of the column.

    Raises:
        OSError, ValueError, KeyError: it cannot be read.
    """
    pa, _ = arrow()
    described = json.loads(path.read_bytes())["fragments"]
    wanted = {file["path"]: number for number, fragment in enumerate(described) for file in fragment["files"]}
    there = {
        wanted[file.path]: fragment
        for fragment in lance().dataset(str(path.parent / DATASET)).get_fragments()
        for file in fragment.data_files()
        if file.path in wanted
    }
    if len(there) != len(described):
        raise ValueError(f"the dataset {visible(DATASET)} lacks fragments of {path.name}")
    tables = [there[number].to_table(columns=[name]) for number in range(len(described))]
    return pa.concat_tables(tables)[name]
