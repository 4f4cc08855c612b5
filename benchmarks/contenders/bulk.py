"""Bulk embedding from a Parquet file into a folder, each contender in a process.

    python -m benchmarks.contenders.bulk NAME SOURCE OUT WORKERS MODEL FOLDER PROGRESS

Each contender writes a line "time rows" into PROGRESS when so many rows more are embedded: the first lines are its warm-up. The
standard library only, but for what a contender uses.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BATCH_TEXTS = 64
"""Rows of a part of ours, and of a batch of the others."""
READERS = 3
"""CPUs that Ray Data is told of beside those of its actors: without them its reading and writing would wait for the actors."""


def note(progress: str, rows: int) -> None:
    """Write a line; appended as a whole, also by several processes."""
    with Path(progress).open("a", encoding="utf-8") as file:
        file.write(f"{time.time()} {rows}\n")


def embed_stream(source: str, out: str, workers: int, model: str, folder: str, progress: str) -> None:  # noqa: ARG001
    """`Gateway.embed_stream` in one process, vectors in memory."""
    import pyarrow.parquet as pq

    from hf_gateway import Gateway

    texts = pq.read_table(source)["text"].to_pylist()
    with Gateway(model, ["local"]) as gateway:
        gateway.embed(texts[:BATCH_TEXTS])
        note(progress, 0)
        for number, _ in enumerate(gateway.embed_stream(texts), 1):
            if number % BATCH_TEXTS == 0:
                note(progress, BATCH_TEXTS)


def local(source: str, out: str, workers: int, model: str, folder: str, progress: str) -> None:  # noqa: ARG001
    """`embed_dataset` with worker processes."""
    _embed_dataset(source, out, workers, model, progress, "local")


def ray(source: str, out: str, workers: int, model: str, folder: str, progress: str) -> None:  # noqa: ARG001
    """`embed_dataset` with actors of a cluster of its own."""
    _embed_dataset(source, out, workers, model, progress, "ray")


def _embed_dataset(source: str, out: str, workers: int, model: str, progress: str, engine: str) -> None:
    from hf_gateway.corpus import embed_dataset

    embed_dataset(
        source,
        out,
        model=model,
        targets=["local"],
        workers=workers,
        engine=engine,
        shard_rows=BATCH_TEXTS,
        on_part=lambda _: note(progress, BATCH_TEXTS),
    )


class Encoder:
    """What an actor of Ray Data runs."""

    def __init__(self, folder: str, progress: str) -> None:
        """Load the model."""
        from sentence_transformers import SentenceTransformer

        self._model, self._progress = SentenceTransformer(folder, device="cpu"), progress

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Embed a batch."""
        vectors = self._model.encode(list(batch["text"]), batch_size=32, show_progress_bar=False)
        note(self._progress, len(vectors))
        return {"id": batch["id"], "vector": list(vectors)}


def ray_data(source: str, out: str, workers: int, model: str, folder: str, progress: str) -> None:  # noqa: ARG001
    """Ray Data: `read_parquet`, `map_batches` of a class, `write_parquet`."""
    import os
    import secrets

    os.environ |= {  # as our engine has it: a token, ports on loopback, actors at the driver's priority
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_worker_niceness": "0",
    }
    import ray

    each = max(1, len(os.sched_getaffinity(0)) // workers)  # Ray gives PyTorch as many threads as the actor has CPUs
    ray.init("local", include_dashboard=False, log_to_driver=False, num_cpus=each * workers + READERS)
    rows = ray.data.read_parquet(source).repartition(max(8, workers * 4))
    made = rows.map_batches(
        Encoder,
        fn_constructor_args=(folder, progress),
        batch_size=BATCH_TEXTS,
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_cpus=each,
    )
    made.write_parquet(out)


def datasets_map(source: str, out: str, workers: int, model: str, folder: str, progress: str) -> None:  # noqa: ARG001
    """`datasets.map` in batches, then `to_parquet`."""
    import datasets  # type: ignore[import-not-found]
    from sentence_transformers import SentenceTransformer

    found = SentenceTransformer(folder, device="cpu")
    rows = datasets.load_dataset("parquet", data_files=source, split="train", cache_dir=f"{out}/cache")

    def embed(batch: dict[str, Any]) -> dict[str, Any]:
        vectors = found.encode(batch["text"], batch_size=32, show_progress_bar=False)
        note(progress, len(vectors))
        return {"vector": vectors}

    rows.map(embed, batched=True, batch_size=BATCH_TEXTS, remove_columns=["text"]).to_parquet(f"{out}/all.parquet")


def pool(source: str, out: str, workers: int, model: str, folder: str, progress: str) -> None:  # noqa: ARG001
    """The process pool of sentence-transformers, then one file."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from sentence_transformers import SentenceTransformer

    table = pq.read_table(source)
    texts = table["text"].to_pylist()
    found = SentenceTransformer(folder, device="cpu")
    started = found.start_multi_process_pool(["cpu"] * workers)
    found.encode(texts[: BATCH_TEXTS * workers], pool=started, batch_size=32, chunk_size=BATCH_TEXTS)
    note(progress, 0)
    vectors = found.encode(texts, pool=started, batch_size=32, chunk_size=BATCH_TEXTS)
    note(progress, len(texts))
    found.stop_multi_process_pool(started)
    Path(out).mkdir()
    pq.write_table(pa.table({"id": table["id"], "vector": list(vectors)}), f"{out}/all.parquet")


CONTENDERS: dict[str, Callable[..., None]] = {
    each.__name__: each for each in (embed_stream, local, ray, ray_data, datasets_map, pool)
}

if __name__ == "__main__":
    name, source, out, workers, model, folder, progress = sys.argv[1:]
    CONTENDERS[name](source, out, int(workers), model, folder, progress)
