"""Signals and reloads of one process under load: whoever is answered is answered wholly, and a reload fails nobody."""

import contextlib
import signal
import time
from pathlib import Path

import httpx
import pytest

from tests.server.faults.load import EMBEDDING, STREAM, Load, wait_until
from tests.server.test_openai_chat import ASK
from tests.server.test_streams import WAITS, raw_request
from tests.servers.loopback import stall_stream
from tests.servers.openai import FakeOpenAI
from tests.support.gateway_server import HASH_CHAIN, START_S, ServerProcess, chat_chain
from tests.support.server_keys import bearer, make_key

ANOTHER = '[chains.other]\ntargets = ["hash:32"]\n'
RELOADS = 5
"""How often the configuration is changed."""
CLOSED = ("RemoteProtocolError", "ReadError", "WriteError")
"""What a caller sees when an idle connection is closed while it sends a request; once each, then it is refused."""


@pytest.mark.parametrize("ends", [True, False], ids=["a stream that ends in time", "a stream that does not"])
def test_sigterm_under_load_answers_wholly_or_refuses_and_ends_in_time(ends: bool, primary: FakeOpenAI) -> None:
    grace = 60 if ends else 2
    config = HASH_CHAIN + chat_chain(primary.url, more=WAITS)
    stall = stall_stream(2)
    with ServerProcess(config, "--grace", str(grace)) as process, process.client() as client:
        assert client.get("/readyz").text == "ready"
        primary.fail(stall)
        held = raw_request(process.url, {"messages": ASK, "stream": True})
        assert stall.reached.wait(START_S)
        with Load([process.url], 8, kinds=[EMBEDDING, STREAM]) as load:
            load.more(50)
            process.signal(signal.SIGTERM)
            began = time.monotonic()
            load.join()
        with contextlib.suppress(httpx.TransportError):
            assert httpx.get(f"{process.url}/readyz", trust_env=False, timeout=START_S).status_code == 503
        if ends:
            stall.release()
        received = b""
        while part := held.recv(65536):
            received += part
        assert process.wait() == 0
        assert time.monotonic() - began < grace + START_S / 2
    # A connection that was idle is closed; one whose request had arrived is answered.
    assert set(load.seen) <= {"200", "503", "refused", *CLOSED}, load.seen
    assert sum(load.seen[each] for each in CLOSED) <= 8
    assert (b"data: [DONE]" in received, b'"error"' in received) == (ends, not ends)
    assert "Traceback" not in process.log, process.log


@pytest.mark.parametrize("by", ["SIGHUP", "route"])
def test_a_reload_under_load_fails_no_request(by: str, primary: FakeOpenAI, tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path / 'keys.sqlite'}"
    key = make_key(database)
    config = HASH_CHAIN + chat_chain(primary.url)
    server = f'[server]\ndatabase = "{database}"\n'
    with ServerProcess(config + server) as process, process.client(headers=bearer(key)) as client:

        def models() -> int:
            return len(client.get("/v1/models").json()["data"])

        with Load([process.url], 8, key) as load:
            for turn in range(RELOADS):
                load.more(20)
                more = "" if turn % 2 else ANOTHER
                Path("served.toml").write_text(config + more + server, encoding="utf-8")
                if by == "SIGHUP":
                    process.signal(signal.SIGHUP)
                    wait_until(lambda wanted=3 if more else 2: models() == wanted, "the chains are not reloaded")
                else:
                    answer = client.post("/admin/reload")
                    assert answer.status_code == 200, answer.text
                    assert models() == (3 if more else 2)
            load.more(20)
        assert set(load.seen) == {"200"}
    assert "Traceback" not in process.log, process.log
