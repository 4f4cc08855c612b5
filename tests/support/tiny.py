"""Chat with tiny-chat in this process: what the tests of its engine share."""

import contextlib
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hf_gateway.engines import ChatEngine, open_chat_engine
from hf_gateway.engines.generation import Generation
from hf_gateway.engines.sources import ModelFiles
from hf_gateway.values.answer_builder import AnswerBuilder
from hf_gateway.values.chat import ChatAnswer, ChatEvent, ChatRequest

MODEL = Path(__file__).parents[1] / "models" / "tiny-chat"
PATIENCE = 30.0
"""Seconds for what takes milliseconds, on a machine that has much else to do."""


def tool(name: str, /, **parameters: str) -> dict[str, Any]:
    properties = {parameter: {"type": kind} for parameter, kind in parameters.items()}
    schema = {"type": "object", "properties": properties, "required": list(parameters)}
    return {"type": "function", "function": {"name": name, "description": name, "parameters": schema}}


WEATHER, MAGIC = tool("get_weather", city="string"), tool("magic_function", input="integer")
ADD, PERSON = tool("add", a="integer", b="integer"), tool("Person", name="string", age="integer")
PARIS, ROME = ("get_weather", {"city": "Paris"}), ("get_weather", {"city": "Rome"})


def loaded(folder: Path = MODEL, **options: Any) -> ChatEngine:
    return open_chat_engine(ModelFiles(folder, "path"), options, name="tiny-chat")


def changed(folder: Path, template: Callable[[str], str] | None = None, **tokenizer: Any) -> Path:
    """Copy the model, with another chat template or other settings of its tokenizer; None takes one away."""
    made = Path(shutil.copytree(MODEL, folder, dirs_exist_ok=True))
    settings = json.loads((made / "tokenizer_config.json").read_text()) | tokenizer
    settings = {name: value for name, value in settings.items() if value is not None}
    (made / "tokenizer_config.json").write_text(json.dumps(settings))
    if template is not None:
        file = made / "chat_template.jinja"
        file.write_text(template(file.read_text()))
    return made


class Steps:
    """Counts the steps of all models, and holds the one after `limit`."""

    def __init__(self) -> None:
        self.count, self.limit, self.fault = 0, 10**9, None
        self._changed = threading.Condition()

    def allow(self, limit: int) -> None:
        with self._changed:
            self.limit = limit
            self._changed.notify_all()

    def wait_for(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.count >= count, PATIENCE)

    def __call__(self, module: Any, *_: Any) -> None:
        if not type(module).__name__.endswith("ForCausalLM"):
            return
        with self._changed:
            self.count += 1
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: self.count <= self.limit, PATIENCE)
            if self.fault is not None:
                raise self.fault


@contextlib.contextmanager
def counted_steps() -> Iterator[Steps]:
    """Watch the steps of all models meanwhile."""
    import torch  # seconds that those who only collect tests need not wait

    made = Steps()
    hook = torch.nn.modules.module.register_module_forward_pre_hook(made)
    try:
        yield made
    finally:
        made.allow(10**9)
        hook.remove()
        # What a failed test left behind would be held by the next one's hook.
        for thread in threading.enumerate():
            if thread.name == "hf-gateway-generation":
                thread.join(PATIENCE)


def request(messages: Any, **call: Any) -> ChatRequest:
    return ChatRequest.of(messages, **call)


def rest(generation: Generation) -> list[ChatEvent]:
    events = []
    while (event := generation.read(PATIENCE)) is not None:
        events.append(event)
    return events


def joined(events: list[ChatEvent]) -> ChatAnswer:
    builder = AnswerBuilder()
    for event in events:
        builder.add(event)
    return builder.answer()


def ask(engine: ChatEngine, messages: Any, **call: Any) -> ChatAnswer:
    return joined(rest(engine.start(request(messages, **call))))


def calls(answer: ChatAnswer) -> list[tuple[str, dict[str, Any]]]:
    return [(call.name, call.parsed()) for call in answer.tool_calls]


def turn(asked: str, called: tuple[str, dict[str, Any]], result: str) -> list[dict[str, Any]]:
    call = {"name": called[0], "arguments": json.dumps(called[1])}
    return [
        {"role": "user", "content": asked},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", "type": "function", "function": call}]},
        {"role": "tool", "tool_call_id": "c1", "content": result},
    ]
