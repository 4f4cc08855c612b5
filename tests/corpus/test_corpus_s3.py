"""A corpus in an object store, over a server of S3 on the loopback."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.corpus.kills import ids_of
from tests.support.late import COLLECTED

if COLLECTED:
    from hf_gateway.corpus import embed_dataset
    from hf_gateway.corpus.estimate import estimate_dataset


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A file system with an empty bucket `corpus`; its address and keys are in the environment, where workers find them."""
    moto_server = pytest.importorskip("moto.server")
    s3fs = pytest.importorskip("s3fs")
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    files = s3fs.S3FileSystem(use_listings_cache=False)
    files.mkdir("corpus")
    yield files
    server.stop()
    s3fs.S3FileSystem.clear_instance_cache()


def test_files_of_a_bucket_are_read_by_the_workers(bucket: Any, tmp_path: Path) -> None:
    bucket.pipe("corpus/in/a.jsonl", b'{"id": "a", "text": "one"}\n{"id": "b", "text": "two"}\n')
    bucket.pipe("corpus/in/deep/b.csv", b"id,text\nc,three\n")
    bucket.pipe("corpus/in/deep/c.txt", b"four\n")
    job: dict[str, Any] = {"targets": ["hash:64"]}
    found = estimate_dataset("s3://corpus/in", shard_rows=10, shard_bytes=10**6, **job)
    assert (found.rows, found.parts) == (4, 3)
    report = embed_dataset("s3://corpus/in", tmp_path / "out", **job)
    assert (report.rows, report.parts) == (4, 3)
    assert ids_of(tmp_path / "out") == ["a", "b", "c", "deep/c.txt#0"]
