"""`hf-gateway hub test-model`: ask HF_MODEL_ID at HF_ENDPOINT with HF_TOKEN, and say what to look at if there is no answer."""

import argparse
import os
import sys
import time
from typing import TYPE_CHECKING

from hf_gateway import errors
from hf_gateway.cli.output import print_json
from hf_gateway.errors import ConfigError, GatewayError, visible

if TYPE_CHECKING:
    from hf_gateway.tasks.chat.gateway import ChatGateway

NEW_TOKENS = 256
"""Maximum tokens of the answer."""
DEFAULT_TIMEOUT_S = 60.0
MODEL_VARIABLE = "HF_MODEL_ID"
TOKEN_VARIABLE = "HF_TOKEN"  # noqa: S105 - a name
ADVICE: tuple[tuple[tuple[type[GatewayError], ...], str], ...] = (
    (
        (errors.AuthenticationFailed, errors.PermissionDenied, errors.KeyMissing),
        "401/403: check that HF_TOKEN is valid, and that its scope includes inference and this model",
    ),
    ((errors.ModelNotFound,), "404: check the spelling of the model in HF_MODEL_ID"),
    (
        (errors.AttemptTimedOut, errors.DeadlineExceeded, errors.ConnectFailed, errors.ModelLoading, errors.Overloaded),
        "time-out: check the network and whether the model is available, or try a smaller model",
    ),
)
"""Classes of failures → what to look at; the first row that fits."""


def add_test_model(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command; `run` executes it."""
    summary = "ask HF_MODEL_ID at HF_ENDPOINT with HF_TOKEN, and say what is wrong if there is no answer"
    parser = subparsers.add_parser("test-model", help=summary, description=summary[0].upper() + summary[1:] + ".")
    parser.add_argument("prompt", metavar="PROMPT", help="what the model is asked")
    parser.add_argument(
        "--timeout", type=float, default=DEFAULT_TIMEOUT_S, metavar="S", help="seconds for the answer (60)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print the answer; return 0, or 1 after the failure and what to look at."""
    if not arguments.prompt.strip():
        raise ConfigError("the prompt is empty: hf-gateway hub test-model 'a question'")
    model = os.environ.get(MODEL_VARIABLE, "").strip()
    if not model:
        raise ConfigError(f"no model to test: set {MODEL_VARIABLE} to its id, such as meta-llama/Llama-3.1-8B-Instruct")
    began = time.monotonic()
    try:
        with _gateway(model, arguments.timeout) as gateway:
            result = gateway.chat(arguments.prompt, max_tokens=NEW_TOKENS)
    except ConfigError:
        raise
    except GatewayError as error:
        return _print_failure(error, model, as_json=arguments.json)
    seconds = time.monotonic() - began
    if arguments.json:
        print_json({"ok": True, "model": model, "text": result.text, "seconds": seconds})
    else:
        sys.stdout.write(f"{visible(result.text, lines=True)}\n")
        sys.stderr.write(f"{visible(model)} answered in {seconds:.2f} s\n")
    return 0


def _gateway(model: str, timeout: float) -> "ChatGateway":
    """Return a chain of the hosted model alone; another endpoint that the environment names gets the token, too."""
    from hf_gateway.keys.credentials import ROUTER
    from hf_gateway.settings.config_file import router_url
    from hf_gateway.tasks.chat.gateway import ChatGateway
    from hf_gateway.values.secret import EnvKey
    from hf_gateway.values.target import Target

    url = router_url()
    named = os.environ.get(TOKEN_VARIABLE, "").strip()
    target = Target("hf") if url == ROUTER or not named else Target("hf", url=url, credential=EnvKey(TOKEN_VARIABLE))
    return ChatGateway(model, [target], timeout=timeout, attempt_timeout=timeout, max_retries=0)


def _print_failure(error: GatewayError, model: str, *, as_json: bool) -> int:
    first = error.errors[0] if isinstance(error, errors.AllTargetsFailed) else error
    advice = next((words for kinds, words in ADVICE if isinstance(first, kinds)), None)
    if as_json:
        print_json({"ok": False, "model": model, "error": str(first), "advice": advice})
        return 1
    sys.stderr.write(f"hf-gateway: {visible(str(first), lines=True)}\n")
    if advice is not None:
        sys.stderr.write(f"{advice}\n")
    return 1
