"""A worker process: reads shards from stdin, a JSON line each, writes their parts, answers a line each; ends with its stdin."""

import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hf_gateway.corpus.plan import Shard, keep_names
from hf_gateway.errors import GatewayError, visible
from hf_gateway.retrieval.files import arrow, numpy
from hf_gateway.tasks.embedding.gateway import EmbeddingGateway

BATCH_TEXTS = 4096
"""Texts that are embedded together; their vectors are in memory until the part is written."""


def _read_lines(lines: "queue.SimpleQueue[str]") -> None:
    for line in sys.stdin:
        lines.put(line)
    os._exit(0)  # the driver has ended: so does the shard under way


def serve() -> None:
    """Make the gateway that the first line describes, and the parts of all lines after it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver decides what Ctrl-C means
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read_lines, args=(lines,), daemon=True).start()
    job = json.loads(lines.get())
    gateway: EmbeddingGateway | None = None
    while True:
        shard = Shard(**json.loads(lines.get()))
        try:
            if gateway is None:
                gateway = gateway_of(job["chain"], job["config"], job["settings"])
                gateway.lock_index(job["out"], adopt=True)
            embed_shard(gateway, shard, Path(job["out"]), job["text"], job["id"])
            answer: dict[str, Any] = {"rows": shard.rows}
        except (GatewayError, OSError, ValueError, TypeError) as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def gateway_of(chain: str | None, config: str | None, settings: Mapping[str, Any]) -> EmbeddingGateway:
    """Build the gateway of a job.

    Args:
        chain: name of a chain of the config file.
        config: path of the config file.
        settings: of the gateway, which override those of the chain.

    Raises:
        ConfigError: invalid settings; of a chain with file and line.
    """
    if chain is None:
        return EmbeddingGateway(**settings, config=config)
    named = EmbeddingGateway.settings_class.from_config(chain, config, **settings)
    made: EmbeddingGateway = EmbeddingGateway.from_settings(named)
    return made


def embed_shard(gateway: EmbeddingGateway, shard: Shard, out: Path, text: str, id_column: str) -> None:
    """Write the part of a shard under its fixed name, whole and on disk, or not at all.

    Args:
        gateway: embeds the texts; it is locked to the space of the folder.
        shard: what to embed.
        out: the folder.
        text: the column of the texts.
        id_column: the column of the ids.
    """
    pa, pq = arrow()
    np = numpy()
    ids, texts = _rows(pq, shard, text, id_column)
    blocks = [
        gateway.embed(texts[start : start + BATCH_TEXTS]).vectors.numpy() for start in range(0, len(texts), BATCH_TEXTS)
    ]
    vectors = np.concatenate(blocks).astype("f4", copy=False)
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
    table = pa.table({id_column: pa.array(ids), "vector": column})
    table = table.replace_schema_metadata({"hf_gateway.space": json.dumps(gateway.space.to_dict())})
    passing = out / f".{shard.part}.{os.getpid()}"
    with passing.open("wb") as file:
        pq.write_table(table, file)
        file.flush()
        os.fsync(file.fileno())
    passing.replace(out / shard.part)
    keep_names(out)


def _rows(pq: Any, shard: Shard, text: str, id_column: str) -> tuple[list[Any], list[str]]:
    """Read only the row groups that a shard touches."""
    with pq.ParquetFile(shard.file) as file:
        columns = [name for name in (id_column, text) if name in file.schema_arrow.names]
        first, skipped = 0, 0
        groups: list[int] = []
        for group in range(file.metadata.num_row_groups):
            end = first + file.metadata.row_group(group).num_rows
            if first < shard.start + shard.rows and end > shard.start:
                skipped = skipped if groups else shard.start - first
                groups.append(group)
            first = end
        table = file.read_row_groups(groups, columns=columns).slice(skipped, shard.rows)
    name = Path(shard.file).name
    made = [f"{name}#{row}" for row in range(shard.start, shard.start + shard.rows)]
    ids, texts = (table[id_column].to_pylist() if id_column in columns else made), table[text].to_pylist()
    for place, (found, value) in enumerate(zip(ids, texts, strict=True)):
        if found is None or not isinstance(value, str):
            kind = "id" if found is None else f"text in the column {text!r}"
            raise ValueError(f"row {shard.start + place} of {visible(str(shard.file))} has no {kind}")
    return ids, texts


if __name__ == "__main__":
    serve()
