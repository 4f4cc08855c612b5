"""What users of servers of this kind complain of loudest, where no other test is about it: each with its thread."""

import contextlib
import json
import os
from pathlib import Path

import pytest

from tests.server.faults.load import wait_until
from tests.server.test_streams import WAITS, raw_request
from tests.servers.chat import script
from tests.servers.loopback import Reply
from tests.servers.openai import FakeOpenAI
from tests.support.databases import a_ledger
from tests.support.gateway_server import HASH_CHAIN, ServerProcess, chat_chain
from tests.support.late import COLLECTED
from tests.support.server_keys import bearer, make_key

if COLLECTED:
    from tests.support.ledgers import locked, rows

PROBES = ("/livez", "/health", "/healthz", "/readyz")
SECRET = "sk-upstream-0123456789abcdef"


def test_probes_need_no_key_and_write_no_log(tmp_path: Path) -> None:
    """litellm #8795: an error in the log for each probe; text-embeddings-inference #353: a probe that needed the key."""
    with a_ledger("sqlite", tmp_path) as url:
        make_key(url)
        config = f'{HASH_CHAIN}[server]\ndatabase = "{url}"\n'
        with ServerProcess(config) as process, process.client() as client:
            assert client.get("/readyz").status_code == 200
            before = process.log
            for _ in range(20):
                assert [client.get(path).status_code for path in PROBES] == [200] * 4
                assert client.head("/livez").status_code == 200
            assert client.get("/v1/models").status_code == 401
            assert process.log == before


def test_a_database_that_is_busy_delays_no_answer(tmp_path: Path) -> None:
    """litellm #27989, #6895: the database was in the way of each request, and its deadlocks lost rows."""
    with a_ledger("sqlite", tmp_path) as url:
        key = make_key(url)
        config = f'{HASH_CHAIN}[server]\ndatabase = "{url}"\n'
        with ServerProcess(config) as process, process.client(headers=bearer(key)) as client:
            assert client.post("/v1/embeddings", json={"input": "x"}).status_code == 200
            with locked(url):
                statuses = [client.post("/v1/embeddings", json={"input": "x"}).status_code for _ in range(30)]
            assert statuses == [200] * 30
            wait_until(lambda: len(rows(url, kind="request")) == 31, "rows are lost")


def test_a_database_that_is_busy_delays_no_probe(tmp_path: Path) -> None:
    """litellm #9998: while the rows were written, no probe was answered, and the server was killed for it."""
    with a_ledger("sqlite", tmp_path) as url:
        config = f'{HASH_CHAIN}[server]\ndatabase = "{url}"\n'
        with ServerProcess(config) as process, process.client() as client:
            assert client.get("/readyz").status_code == 200
            with locked(url):
                for _ in range(30):
                    client.post("/v1/embeddings", json={"input": "x"})
                    assert [client.get(path).status_code for path in PROBES] == [200] * 4


@pytest.mark.parametrize("status", [400, 401, 500])
def test_a_targets_key_is_in_no_answer_and_no_log(status: int, primary: FakeOpenAI, tmp_path: Path) -> None:
    """litellm #15799, #8075, #6963: what a provider answered, with the key that it was sent, was logged and passed on."""
    primary.always(Reply(status, {"error": {"message": f"Incorrect API key provided: {SECRET}", "code": "x"}}))
    config = chat_chain(primary.url, more=f'{WAITS}\napi_key = "{SECRET}"')
    with ServerProcess(config, environment={"OPENAI_API_KEY": SECRET}) as process:
        with process.client() as client:
            answers = [
                client.post(
                    "/v1/chat/completions", json={"messages": [{"role": "user", "content": "x"}], "stream": stream}
                )
                for stream in (False, True)
            ]
            answers += [client.get(path) for path in ("/metrics", "/openapi.json", "/v1/models", "/huggingface/status")]
        for answer in answers:
            assert SECRET not in answer.text
            assert SECRET not in str(answer.headers)
        assert primary.requests
        assert SECRET not in process.log


def test_a_client_that_leaves_at_the_end_of_a_stream_has_its_row(primary: FakeOpenAI, tmp_path: Path) -> None:
    """otari #256: what clients used that leave at `[DONE]` was not counted."""
    primary.brain = script("One two three.")
    with a_ledger("sqlite", tmp_path) as url:
        key = make_key(url)
        config = f'{chat_chain(primary.url, more=WAITS)}[server]\ndatabase = "{url}"\n'
        body = {"messages": [{"role": "user", "content": "x"}], "stream": True}
        with ServerProcess(config) as process:
            for _ in range(5):
                with contextlib.closing(raw_request(process.url, body, authorization=f"Bearer {key}")) as connection:
                    received = b""
                    while b"data: [DONE]" not in received:
                        received += connection.recv(65536)
            wait_until(lambda: len(rows(url, kind="request")) == 5, "rows are lost")
        found = rows(url, kind="request")
    assert {row["status"] for row in found} == {"ok"}, json.dumps(found, default=str)
    assert all(row["output_tokens"] for row in found), os.linesep.join(map(str, found))
