"""What callers send and what is answered them is in no file of the server, in no line of its log and in no metric."""

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.servers.chat import script
from tests.servers.loopback import Reply, cut_stream
from tests.support.databases import a_ledger
from tests.support.every_chain import BOT, every_chain
from tests.support.gateway_server import ServerProcess
from tests.support.server_keys import bearer, make_key

ASKED, ANSWERED, CALLER = "quagmirefern", "zephyrlatch", "203.0.113.77"
CHAT = {"model": "talk", "messages": [{"role": "system", "content": ASKED}, {"role": "user", "content": ASKED}]}
BODIES: dict[str, dict[str, Any]] = {
    "/v1/embeddings": {"model": "docs", "input": [ASKED, f"{ASKED} more"]},
    "/v1/chat/completions": {**CHAT, "user": ASKED},
    "/v1/completions": {"model": "talk", "prompt": ASKED},
    "/v1/rerank": {"model": "sorter", "query": ASKED, "documents": [ASKED, "b"]},
    "/v1/images/generations": {"model": "draw", "prompt": ASKED},
    "/embed": {"inputs": ASKED},
    "/embed_sparse": {"inputs": ASKED},
    "/rerank": {"query": ASKED, "texts": [ASKED, "b"]},
    "/predict": {"inputs": ASKED},
    "/": {"inputs": ASKED},
    "/models/talk/pipeline/text-generation": {"inputs": ASKED},
    "/models/judge/pipeline/text-classification": {"inputs": ASKED},
    "/api/chat": CHAT,
    "/api/generate": {"model": "talk", "prompt": ASKED},
    "/api/embed": {"model": "docs", "input": ASKED},
    "/api/embeddings": {"model": "docs", "prompt": ASKED},
    "/huggingface/embedding": {"text": ASKED},
    "/huggingface/embedding/batch": {"texts": [ASKED]},
    "/huggingface/chat": CHAT,
    "/huggingface/reason": {"question": ASKED},
    "/functions/v1/huggingface-inference": {"modelId": "talk", "task": "text-generation", "inputs": ASKED},
    "/api/v1/chat": {"context": BOT, "component": BOT, "query": ASKED, "top_k": 1, "data": {"user_input": ASKED}},
}
INVALID = {
    "/v1/embeddings": {"input": [ASKED, ""]},
    "/v1/chat/completions": {"messages": [{"role": ASKED, "content": ASKED}]},
    "/api/v1/chat": {"context": BOT, "data": {"user_input": {"a": ASKED}}, "query": [ASKED]},
}


@dataclass
class Kept:
    """What was answered, and what is left of it."""

    statuses: dict[str, set[int]]
    text: str
    """Everything that was answered."""
    log: str
    metrics: str
    folder: Path


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, _late_imports: None) -> Iterator[Kept]:
    """A process that has answered every kind of request: whole, streamed, refused, failed and broken off."""
    folder, home = tmp_path_factory.mktemp("privacy"), tmp_path_factory.mktemp("home")
    with a_ledger("sqlite", home) as database, every_chain(folder, 'trusted_proxies = ["127.0.0.1"]\n') as chains:
        key = make_key(database)
        config = chains.config.replace("[server]\n", f'[server]\ndatabase = "{database}"\n')
        config = config.replace('targets = ["openai:', 'max_retries = 0\ntargets = ["openai:')
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            process = ServerProcess(config, environment={"HF_GATEWAY_HOME": str(home), "HF_HUB_OFFLINE": "1"})
            with process, process.client(headers={**bearer(key), "x-forwarded-for": CALLER}) as client:
                statuses: dict[str, set[int]] = {path: set() for path in BODIES}
                text = ""
                chains.openai.brain = script(f"It is {ANSWERED}.")
                failing = Reply(500, {"error": {"message": f"cannot answer {ASKED}"}})
                for fault in (None, failing, cut_stream(2)):
                    if fault is not None:
                        chains.openai.always(fault)
                        chains.toolkit.always(failing)
                    for path, body in BODIES.items():
                        for stream in (False, True):
                            answer = client.post(path, json={**body, "stream": stream})
                            statuses[path].add(answer.status_code)
                            text += answer.text
                for path, wrong in INVALID.items():
                    assert client.post(path, json=wrong).status_code == 400
                metrics = client.get("/metrics").text
                process.signal(signal.SIGTERM)
                assert process.wait() == 0
            yield Kept(statuses, text, process.log, metrics, home)


def test_each_route_has_answered(kept: Kept) -> None:
    assert {path: 200 in statuses for path, statuses in kept.statuses.items()} == dict.fromkeys(BODIES, True)
    assert ANSWERED in kept.text


@pytest.mark.parametrize("word", [ASKED, ANSWERED, CALLER])
def test_it_is_in_no_file_no_log_and_no_metric(word: str, kept: Kept) -> None:
    files = [path for path in kept.folder.rglob("*") if path.is_file()]
    assert files
    assert [path.name for path in files if word.encode() in path.read_bytes()] == []
    assert word not in kept.log
    assert word not in kept.metrics
