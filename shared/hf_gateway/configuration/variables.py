"""Every environment variable that configures hf-gateway, in one list: for `hf-gateway config show` and the documentation."""

from dataclasses import dataclass

from hf_gateway.keys.credentials import TOKEN_VARIABLES
from hf_gateway.settings import server
from hf_gateway.tasks.registry import find_task, task_names


@dataclass(frozen=True)
class Variable:
    """An environment variable."""

    name: str
    """Its name."""
    about: str
    """What it sets."""
    secret: bool = False
    """Whether its value is a key, and is never shown."""


_GENERAL = (
    Variable("HF_GATEWAY_CONFIG", "The configuration file; by default hf-gateway.toml here or in the user's folder."),
    Variable(
        "HF_GATEWAY_HOME", "The folder of what is found out and kept; by default the user's cache and data folders."
    ),
    Variable("HF_GATEWAY_HTTP", "`httpx` or `aiohttp` for async calls; by default aiohttp if it is installed."),
    Variable("HF_GATEWAY_CHECK_SPACE", "0: believe what targets declare of their vectors (the setting `check_space`)."),
    Variable("HF_GATEWAY_CONVERTED", "The folder of converted models."),
    Variable("HF_GATEWAY_LEDGER", "1, or the database's URL: keep a ledger of calls."),
    Variable("HF_GATEWAY_LEDGER_CONTENT", "1: keep prompts and answers in the ledger."),
    Variable("HF_GATEWAY_BUDGETS", "0: no budgets; require: refuse calls while budgets cannot be read."),
    Variable("HF_GATEWAY_PROMETHEUS", "1: count calls for Prometheus."),
    Variable("HF_GATEWAY_OTEL", "1: trace calls by OpenTelemetry."),
)
_SHARED = (
    *(Variable(name, "A Hugging Face token, sent to Hugging Face only.", secret=True) for name in TOKEN_VARIABLES),
    Variable("HF_ENDPOINT", "Another Hub."),
    Variable("HUGGINGFACE_BASE_URL", "Another router of Inference Providers."),
    Variable(
        "HUGGINGFACE_REQUIRE_API_KEY", "1: call targets of other companies only with a key (`require_for_hosted`)."
    ),
    Variable("HF_HUB_OFFLINE", "1: ask the Hub for nothing."),
    Variable("HF_HOME", "The folder of Hugging Face's own files, downloaded models among them."),
    Variable("HF_HUB_CACHE", "The folder of downloaded models."),
    Variable("HUGGINGFACE_HUB_CACHE", "The same, if HF_HUB_CACHE is not set."),
    Variable("OLLAMA_HOST", "The address of Ollama."),
)


def variables() -> tuple[Variable, ...]:
    """Return the variables: those of the whole package, of each installed task, of the server, and those of others."""
    made = list(_GENERAL)
    for task in map(find_task, sorted(task_names())):
        made += [
            Variable(name, f"The model of chains for {task.title} that name none.")
            for name in task.model_variable_names
        ]
        made.append(Variable(task.targets_variable, f"The targets of chains for {task.title} that name none."))
    made += [
        Variable(name, f"`{name.removeprefix(server.PREFIX).lower()}` of `[server]`.")
        for name in sorted(server.variables())
    ]
    return (*made, *_SHARED)
