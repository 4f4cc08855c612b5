"""What a call costs over a loopback server that answers at once: healthy, and with the first of two targets dead."""

import contextlib
import socket
from collections.abc import Iterator, Sequence

from benchmarks.harness.bench import Bench, Contender, Field
from benchmarks.harness.calls import cells_of_calls
from benchmarks.harness.measure import Report, Table, alternate

ROUNDS = 3
TASKS = {
    "query": "Embedding of one text",
    "chat": "Chat, one answer",
    "stream": "Chat, an answer of 8 pieces, streamed",
}


def contenders(url: str) -> list[Contender]:
    """Return all contenders that can call the server."""
    at: dict[str, object] = {"url": url}
    return [
        Contender("httpx", "remote:httpx", arguments=at),
        Contender("aiohttp", "remote:aiohttp", arguments=at),
        Contender("Gateway", "remote:gateway", arguments=at, ours=True),
        Contender("Gateway, tei", "remote:gateway", arguments={**at, "kind": "tei"}, ours=True),
        Contender("LangChain, ours", "remote:langchain_gateway", arguments=at, ours=True),
        Contender("LlamaIndex, ours", "remote:llamaindex_gateway", arguments=at, ours=True),
        Contender("LangChain, a model that does nothing", "remote:langchain_nothing", arguments=at),
        Contender("LlamaIndex, an LLM that does nothing", "remote:llamaindex_nothing", arguments=at),
        Contender("openai SDK", "remote:openai", arguments=at),
        Contender("LangChain, OpenAI", "frameworks:langchain_openai", "frameworks", at),
        Contender("LangChain, HuggingFace", "frameworks:langchain_huggingface", "frameworks", at),
        Contender("LlamaIndex, OpenAILike", "frameworks:llamaindex_openai", "frameworks", at),
        Contender("LlamaIndex, TEI", "frameworks:llamaindex_tei", "frameworks", at),
        Contender("LlamaIndex, HuggingFace API", "frameworks:llamaindex_huggingface", "frameworks", at),
        Contender("litellm", "litellm:functions", "litellm", at),
        Contender("litellm Router", "litellm:router", "litellm", at),
    ]


def run(bench: Bench) -> Report:
    """Measure; a table for each kind of call."""
    server = bench.server()
    report = Report("A call over loopback")
    field = bench.workers(contenders(server.url))
    for task, title in TASKS.items():
        for call, how in ((task, "blocking"), (f"a{task}", "async")):
            table = Table(f"{title}, {how}", "µs", "httpx", charted=call != "stream")
            alternate(cells_of_calls(table, field, call, bench), bench.rounds(ROUNDS))
            report.tables.append(table)
        for in_flight in (64, 512):
            if in_flight == 512 and task == "stream":
                continue
            table = Table(
                f"{title}, async, {in_flight} in flight", "calls/s", "httpx", more=True, charted=in_flight == 64
            )
            table.columns = ["requests a call"]
            among = None if in_flight == 64 else MANY_IN_FLIGHT
            cells = cells_of_calls(table, field, f"a{task}", bench, in_flight, server=server, among=among)
            alternate(cells, bench.rounds(ROUNDS))
            report.tables.append(table)
    with _dead() as dead:
        for state, first in (("is dead", f"{dead}/v1"), ("fails 2 calls of 3", None)):
            _failover(report, bench, server.url, state, first)
    _notes(report)
    return report


MANY_IN_FLIGHT = ("httpx", "aiohttp", "Gateway", "LangChain, ours", "LlamaIndex, ours")
"""Who is measured with 512 in flight, too."""


def _notes(report: Report) -> None:
    report.notes.append(
        "The server runs in a process of its own and answers from memory; every call embeds another text. With several in "
        "flight the gateway puts single queries that arrive together into one request, as `requests a call` shows; the others "
        "send one each."
    )
    report.notes.append(
        "LangChain, ours: HFGatewayEmbeddings and ChatHFGateway. LlamaIndex, ours: HFGatewayEmbedding and HFGatewayLLM. "
        "LangChain, HuggingFace: HuggingFaceEndpointEmbeddings (its clients set by hand, since it refuses URLs) and "
        "ChatHuggingFace. LlamaIndex, HuggingFace API: HuggingFaceInferenceAPIEmbedding and HuggingFaceInferenceAPI. Retries "
        "are off where they can be; httpx and aiohttp keep their connections, and their pools are large enough."
    )
    report.notes.append("A contender that takes more than a second for a round is measured once.")
    report.notes.append(
        "The rows that do nothing call no server at all: they are what LangChain's BaseChatModel and LlamaIndex's instrumented "
        "LLM take for themselves, whatever is beneath them."
    )
    report.notes.append(
        "First target dead: it refuses connections. httpx by hand asks it each time, and the second one where that fails; the "
        "gateway leaves a target alone that failed three times in a row, and asks it again after 5 to 30 s. First target fails "
        "2 calls of 3: it answers 503 to them, so that no breaker opens and each failure is one more request; litellm's "
        "cooldowns are off there. Retries are off for all: `max_retries=0` for the gateway, and in both layers of litellm, which "
        "repeats embeddings all the same."
    )


def _failover(report: Report, bench: Bench, url: str, state: str, first: str | None) -> None:
    def at(name: str) -> dict[str, object]:
        return {"url": url, "first": first or f"{url}/flaky/{name}/v1"}

    once: dict[str, object] = {"max_retries": 0}
    field = bench.workers(
        [
            Contender("httpx by hand", "remote:httpx", arguments=at("httpx")),
            Contender("Gateway", "remote:gateway", arguments=at("gateway") | once, ours=True),
            Contender("LangChain, ours", "remote:langchain_gateway", arguments=at("langchain") | once, ours=True),
            Contender("LlamaIndex, ours", "remote:llamaindex_gateway", arguments=at("llamaindex") | once, ours=True),
            Contender("LangChain, OpenAI with_fallbacks", "frameworks:langchain_openai", "frameworks", at("fallbacks")),
            Contender("litellm Router", "litellm:router", "litellm", at("router") | {"cooldowns": first is not None}),
        ]
    )
    calls: Sequence[tuple[str, str]] = (
        ("aquery", "Embedding, async"),
        ("chat", "Chat, blocking"),
        ("achat", "Chat, async"),
    )
    for call, title in calls:
        table = Table(f"{title}; first target {state}", "µs", "httpx by hand", charted=call != "chat")
        alternate(cells_of_calls(table, field, call, bench), bench.rounds(ROUNDS))
        report.tables.append(table)
    _end(field)


def _end(field: Field) -> None:
    for worker in field.workers.values():
        worker.close()


@contextlib.contextmanager
def _dead() -> Iterator[str]:
    """Yield the URL of a port that refuses connections: bound, so that no other process gets it, and not listening."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{holder.getsockname()[1]}"
