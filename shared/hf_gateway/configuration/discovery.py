"""Finds servers of models on this machine, by asking the ports that they listen on by default."""

import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from hf_gateway.backends.ollama import DEFAULT_PORT as OLLAMA_PORT
from hf_gateway.backends.ollama import LIBRARY
from hf_gateway.errors import AttemptTimedOut, ConnectFailed, GatewayError
from hf_gateway.http.transport import HttpTransport
from hf_gateway.runtime.effects import Send
from hf_gateway.values.http import HttpRequest, HttpResponse
from hf_gateway.values.hub_task import hub_tasks
from hf_gateway.wire import ollama, openai, tei

DEFAULT_PORTS = (OLLAMA_PORT, 8080, 8000, 3000, 1234, 7997)
"""Of Ollama; TEI, llama.cpp and `hf-gateway serve`; vLLM; TEI in containers; LM Studio; infinity."""
PATIENCE_S = 2.0
"""Seconds for one answer of a server; on loopback an idle one needs milliseconds."""
_MAX_MODELS = 50
"""Models of one server that are asked about."""
_NAME = re.compile(r"[\w.:/@+-]{1,200}", re.ASCII)


@dataclass(frozen=True)
class FoundServer:
    """A server that answered."""

    target: str
    """As a target of a chain."""
    title: str
    """What it is, for people."""
    models: Mapping[str, tuple[str, ...]]
    """Task → its models: Hub ids where they are known, else the names there."""


def find_servers(ports: Sequence[int] = DEFAULT_PORTS, *, timeout: float = PATIENCE_S) -> list[FoundServer]:
    """Ask ports of this machine which models are served there.

    Args:
        ports: the ports.
        timeout: seconds for each answer.

    Returns:
        What was found, in the order of the ports.
    """
    if not ports:
        return []
    transport = HttpTransport()
    try:
        with ThreadPoolExecutor(len(ports), thread_name_prefix="hf-gateway-discovery") as threads:
            found = threads.map(lambda port: _at(port, transport, timeout), ports)
            return [server for server in found if server is not None]
    finally:
        transport.close()


def _at(port: int, transport: HttpTransport, timeout: float) -> FoundServer | None:
    url = f"http://127.0.0.1:{port}"

    def ask(request: HttpRequest) -> HttpResponse:
        return transport.send(Send(request), timeout=timeout, connect_timeout=timeout, target=url)

    for read in (_tei, _ollama, _openai):  # `hf-gateway serve` answers as all three, and as the first with its space
        try:
            if (found := read(url, ask)) is not None:
                return found
        except (ConnectFailed, AttemptTimedOut):
            return None
        except GatewayError:  # another server, or none; what is chosen is checked by `doctor` afterwards
            continue
    return None


_Ask = Callable[[HttpRequest], HttpResponse]


def _ollama(url: str, ask: _Ask) -> FoundServer | None:
    models: dict[str, list[str]] = {}
    for pulled in ollama.decode_tags(ask(ollama.encode_tags(url)), target=url)[:_MAX_MODELS]:
        name = pulled.name.removesuffix(":latest")
        shown = ollama.decode_show(ask(ollama.encode_show(url, pulled.name)), target=url)
        told = [task.name for task in hub_tasks() if task.capability in shown.capabilities]
        models.setdefault(told[0] if told else _task_by_name(name), []).append(LIBRARY.get(name, name))
    usual = url == f"http://127.0.0.1:{OLLAMA_PORT}"
    return FoundServer("ollama" if usual else f"ollama:{url}", f"Ollama at {url}", _unique(models))


def _tei(url: str, ask: _Ask) -> FoundServer | None:
    info = tei.decode_info(ask(tei.encode_info(url)), target=url)
    models = {task.name: [info.model] for task in hub_tasks() if task.info_type == info.kind}
    return FoundServer(f"tei:{url}", f"text-embeddings-inference at {url}", _unique(models)) if models else None


def _openai(url: str, ask: _Ask) -> FoundServer | None:
    models: dict[str, list[str]] = {}
    for name in openai.decode_models(ask(openai.encode_models(f"{url}/v1")), target=url)[:_MAX_MODELS]:
        models.setdefault(_task_by_name(name), []).append(name)
    return FoundServer(f"openai:{url}/v1", f"a server with OpenAI's API at {url}", _unique(models)) if models else None


def _task_by_name(model: str) -> str:
    """Return the task that a model's name tells of, else that of models that generate text, which most are."""
    tasks = hub_tasks()
    told = [task for task in tasks if any(part in model.lower() for part in task.name_parts)]
    return (told or [task for task in tasks if task.generates_text])[0].name


def _unique(models: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    # What else servers report, such as the path of a file with blanks, could not be written as a model of a chain.
    return {task: tuple(dict.fromkeys(filter(_NAME.fullmatch, names))) for task, names in models.items()}
