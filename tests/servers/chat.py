"""What the fakes say in a conversation: a `Brain` reads a request in OpenAI's form and gives what the model `Said`."""

import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Said:
    """What the model says. finish_reason: derived unless given; tokens: counted in words, details left out, unless given.

    tool_calls: each a name and its arguments, or a text in the place of the arguments' JSON, for what a model got wrong.
    """

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[tuple[str, dict[str, Any] | str], ...] = ()
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None

    @property
    def ended(self) -> str:
        """The finish_reason in OpenAI's words."""
        return self.finish_reason or ("tool_calls" if self.tool_calls else "stop")

    def tokens(self, body: Mapping[str, Any]) -> tuple[int, int]:
        """Return how many tokens the request had and the answer has; both are above 0."""
        asked = prompt_words(body) if self.prompt_tokens is None else self.prompt_tokens
        calls = sum(len(pieces(arguments_json(arguments))) + 1 for _, arguments in self.tool_calls)
        said = len(pieces(self.text)) + len(pieces(self.reasoning)) + calls
        return max(asked, 1), max(said if self.completion_tokens is None else self.completion_tokens, 1)


Brain = Callable[[dict[str, Any]], Said]
"""What a fake answers with: the body of a request in OpenAI's form → what is said. Called from many threads at once."""


def script(*said: Said | str) -> Brain:
    """Return a brain that says these one after the other, and the last one again and again."""
    if not said:
        raise ValueError("a script without a line")
    lines = [Said(line) if isinstance(line, str) else line for line in said]
    lock = threading.Lock()

    def brain(body: dict[str, Any]) -> Said:
        with lock:
            return lines.pop(0) if len(lines) > 1 else lines[0]

    return brain


def default_brain(body: dict[str, Any]) -> Said:
    """Answer as a well-behaved model would, always the same for the same request.

    It calls the tools it is told to or whose names the user mentions, with arguments made from their schemas and the
    user's words; writes JSON where that is asked for; repeats what the tools returned; and otherwise what it heard.
    """
    messages, asked = body["messages"], _asked(body["messages"])
    calls = _calls(body, asked)
    if calls:
        return _thoughtful(Said(tool_calls=calls), body)
    text = _json(body, asked)
    if text is None:
        results = _results(messages)
        text = f"The tool says: {'; '.join(results)}" if results else _heard(messages, asked)
    return _thoughtful(limited(Said(text), body), body)


def limited(said: Said, body: Mapping[str, Any]) -> Said:
    """Return `said` cut before the first stop string and after as many words as the request allows tokens."""
    text, stop = said.text, body.get("stop") or []
    found = [text.index(end) for end in ([stop] if isinstance(stop, str) else stop) if end in text]
    text = text[: min(found, default=len(text))]
    limit, words = body.get("max_completion_tokens") or body.get("max_tokens"), pieces(text)
    if limit and len(words) > limit:
        return replace(said, text="".join(words[:limit]), finish_reason="length")
    return replace(said, text=text)


def pieces(text: str) -> list[str]:
    """Return `text` in words, each with the space before it: what the fakes count as tokens and stream."""
    return re.findall(r"\s*\S+|\s+$", text)


def arguments_json(arguments: Mapping[str, Any] | str) -> str:
    """Return the arguments of a tool call as the model wrote them."""
    if isinstance(arguments, str):
        return arguments
    return json.dumps(arguments, ensure_ascii=False, separators=(",", ":"))


def text_of(message: Mapping[str, Any]) -> str:
    """Return the text of a message, that of all its parts together."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    parts = [part if isinstance(part, str) else part.get("text") for part in content or ()]
    return "\n".join(part for part in parts if part)


def media_of(message: Mapping[str, Any]) -> list[str]:
    """Return the types of a message's parts that are not text."""
    content = message.get("content")
    parts = content if isinstance(content, list) else []
    return [part["type"] for part in parts if isinstance(part, dict) and part.get("type", "text") != "text"]


def prompt_words(body: Mapping[str, Any]) -> int:
    """Return how many words the messages have."""
    return sum(len(pieces(text_of(message))) for message in body["messages"])


def example(schema: Mapping[str, Any], text: str = "") -> Any:
    """Return a value that fits a JSON schema, made of the numbers and names in `text` as far as they go."""
    return _Maker(schema, text).value(schema)


_FORMATS = {
    "date": "2026-11-20",
    "date-time": "2026-11-20T10:00:00Z",
    "time": "10:00:00Z",
    "duration": "P1D",
    "email": "ada@example.com",
    "uri": "https://example.com/",
    "uuid": "6c84fb90-12c4-11e1-840d-7b25c5ee775a",
    "ipv4": "127.0.0.1",
}
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?!\w)")
_QUOTED = re.compile(r"""(?<!\w)(?:'([^'\n]+)'|"([^"\n]+)"|`([^`\n]+)`)(?!\w)""")
_NAME = re.compile(r"\b[A-Z][\w'-]*(?: [A-Z][\w'-]*)*(?:, [A-Z]{2}\b)?")
_DEEP = 6


class _Maker:
    """Makes values for the parts of one schema, taking each number and name of the text once."""

    def __init__(self, root: Mapping[str, Any], text: str) -> None:
        self._root = root
        self._words = re.findall(r"[\w'-]+", text)
        self._last_taken = False
        self.numbers: list[int | float] = [
            float(found) if "." in found else int(found) for found in _NUMBER.findall(text)
        ]
        self.names = _names(text)

    def value(self, schema: Any, name: str = "value", depth: int = 0) -> Any:
        schema = self._plain(schema, depth)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            said = {word.lower() for word in self._words}
            return next((one for one in schema["enum"] if str(one).lower() in said), schema["enum"][0])
        if schema.get("default") is not None:
            return schema["default"]
        match schema.get("type") or ("object" if "properties" in schema else "string"):
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(schema, name, depth)
            case "integer" | "number" as kind:
                return self._number(schema, whole=kind == "integer")
            case "boolean":
                return True
            case "null":
                return None
        return self._string(schema, name)

    def _plain(self, schema: Any, depth: int) -> dict[str, Any]:
        """Return a schema with its references followed and one of its alternatives chosen."""
        plain: dict[str, Any] = dict(schema) if isinstance(schema, Mapping) else {}
        while reference := plain.pop("$ref", None):
            found: Any = self._root
            for step in reference.removeprefix("#").strip("/").split("/"):
                found = found[step] if step else found
            plain = {**found, **plain}
        for part in plain.pop("allOf", ()):
            known = self._plain(part, depth)
            plain = {**known, **plain, "properties": {**known.get("properties", {}), **plain.get("properties", {})}}
        for key in ("anyOf", "oneOf"):
            if options := plain.pop(key, None):
                empty = [option for option in options if option.get("type") == "null"]
                full = [option for option in options if option not in empty]
                chosen = empty or full if depth > _DEEP else full or empty
                plain = {**plain, **self._plain(chosen[0], depth)}
        if isinstance(plain.get("type"), list):
            plain["type"] = next((kind for kind in plain["type"] if kind != "null"), "null")
        return plain

    def _object(self, schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        properties = schema.get("properties", {})
        wanted = schema.get("required")
        if wanted is None:
            wanted = [name for name, kind in properties.items() if "default" not in kind and depth <= _DEEP]
        made = {name: self.value(properties.get(name, {}), name, depth + 1) for name in wanted}
        extra = schema.get("additionalProperties")
        if not properties and isinstance(extra, Mapping) and depth <= _DEEP:
            made["key"] = self.value(extra, "key", depth + 1)
        return made

    def _array(self, schema: Mapping[str, Any], name: str, depth: int) -> list[Any]:
        if "prefixItems" in schema:
            return [self.value(item, name, depth + 1) for item in schema["prefixItems"]]
        least, most = schema.get("minItems", 0), schema.get("maxItems", 8)
        items = schema.get("items", {})
        kind = self._plain(items, depth)
        count = 0 if depth > _DEEP else 1
        if kind.get("type") == "string" and "enum" not in kind:
            count = max(len(self.names), count)
        elif kind.get("type") in ("integer", "number"):
            count = max(len(self.numbers), count)
        return [self.value(items, name, depth + 1) for _ in range(max(least, min(count, most)))]

    def _number(self, schema: Mapping[str, Any], *, whole: bool) -> int | float:
        low, high = schema.get("minimum"), schema.get("maximum")
        above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
        step = schema.get("multipleOf")

        def fits(number: int | float) -> bool:
            return (
                (not whole or number == int(number))
                and (low is None or number >= low)
                and (high is None or number <= high)
                and (above is None or number > above)
                and (below is None or number < below)
                and (step is None or number % step == 0)
            )

        for index, number in enumerate(self.numbers):
            if fits(number):
                del self.numbers[index]
                return int(number) if whole else number
        edges = [
            edge + by for edge in (low, high, above, below, step) if edge is not None for by in (0, 1, -1, 0.5, -0.5)
        ]
        return next((number for number in (1, 0, *edges) if fits(number)), 1)

    def _string(self, schema: Mapping[str, Any], name: str) -> str:
        if schema.get("format") in _FORMATS:
            return _FORMATS[schema["format"]]
        if self.names:
            text = self.names.pop(0)
        elif self._words:
            text = f"{name} about {self._words[-1]}" if self._last_taken else self._words[-1]
            self._last_taken = True
        else:
            text = f"some {name}"
        return text.ljust(schema.get("minLength", 0), ".")[: schema.get("maxLength")]


def _names(text: str) -> list[str]:
    """Return what is quoted, and what is capitalised within a sentence."""
    quoted = [next(filter(None, found)) for found in _QUOTED.findall(text)]
    rest = _QUOTED.sub(" ", text)
    found = []
    for match in _NAME.finditer(rest):
        # The first word of a sentence has its capital for that.
        within = re.search(r"[^\s.?!:]\s*$", rest[: match.start()])
        found.append(match[0] if within else match[0].partition(" ")[2])
    found = [name for name in found if name not in ("", "I", "JSON")]
    return quoted + found


def _asked(messages: Sequence[Mapping[str, Any]]) -> str:
    """Return the text of the last user message."""
    return next((text_of(message) for message in reversed(messages) if message["role"] == "user"), "")


def _results(messages: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what the tools returned, when theirs are the last messages."""
    results: list[str] = []
    for message in reversed(messages):
        if message["role"] != "tool":
            break
        results.insert(0, text_of(message))
    return results


def _heard(messages: Sequence[Mapping[str, Any]], asked: str) -> str:
    media = [kind for message in messages for kind in media_of(message)]
    names = {"image_url": "an image", "input_audio": "a sound", "file": "a file"}
    seen = f"I was shown {' and '.join(names.get(kind, kind) for kind in media)}. " if media else ""
    return f"{seen}I heard: {asked or 'nothing'}"


def _thoughtful(said: Said, body: Mapping[str, Any]) -> Said:
    """Return `said` with the thoughts the request asks for."""
    effort = body.get("reasoning_effort")
    if effort in (None, "none") and not (body.get("chat_template_kwargs") or {}).get("enable_thinking"):
        return said
    thoughts = "Let me think about this first."
    return replace(said, reasoning=thoughts, reasoning_tokens=len(pieces(thoughts)))


def _calls(body: Mapping[str, Any], asked: str) -> tuple[tuple[str, dict[str, Any] | str], ...]:
    """Return the tool calls to make: what is forced, else what the user's words ask for."""
    tools = {tool["function"]["name"]: tool["function"] for tool in body.get("tools") or ()}
    choice = body.get("tool_choice") or "auto"
    if not tools or choice == "none":
        return ()
    if isinstance(choice, Mapping):
        name = choice["function"]["name"]
        return ((name, example(_parameters(tools[name]), asked)),)
    if choice == "required":
        called = _called(body["messages"])
        name = next((name for name in tools if name not in called), next(iter(tools)))
        return ((name, example(_parameters(tools[name]), asked)),)
    if body["messages"][-1]["role"] != "user":
        return ()
    calls = [call for tool in _mentioned(tools, asked) for call in _repeated(tool, asked)]
    return tuple(calls[:1] if body.get("parallel_tool_calls") is False else calls)


def _parameters(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    return tool.get("parameters") or {"type": "object", "properties": {}}


def _called(messages: Sequence[Mapping[str, Any]]) -> set[str]:
    """Return the tools that were called since the user last said something."""
    called: set[str] = set()
    for message in reversed(messages):
        if message["role"] == "user":
            break
        called |= {call["function"]["name"] for call in message.get("tool_calls") or ()}
    return called


def _repeated(tool: Mapping[str, Any], asked: str) -> list[tuple[str, dict[str, Any]]]:
    """Return a call for each thing the text asks for: each name for the tool's only text, each set of its numbers."""
    parameters = _parameters(tool)
    maker = _Maker(parameters, asked)
    kinds = [kind.get("type") for kind in parameters.get("properties", {}).values()]
    texts, numbers = kinds.count("string"), kinds.count("integer") + kinds.count("number")
    times = 1
    if texts == 1 and not numbers:
        times = len(maker.names) or 1
    elif numbers and not texts:
        times = len(maker.numbers) // numbers or 1
    return [(tool["name"], maker.value(parameters)) for _ in range(times)]


_IDLE = frozenset(re.findall(r"\w+", "get set the current tool function my call of for and to in is by an on do with"))


def _mentioned(tools: Mapping[str, Mapping[str, Any]], asked: str) -> list[Mapping[str, Any]]:
    """Return the tools the text is about: by name, by a word of a name, by the word "tool", or by being a sum."""
    named = [tool for name, tool in tools.items() if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", asked)]
    if named:
        return named
    said = set(_stems(asked))
    alike = [tool for name, tool in tools.items() if said & set(_stems(re.sub(r"(?<=[a-z])(?=[A-Z])|_", " ", name)))]
    if alike:
        return alike
    first = next(iter(tools.values()))
    if re.search(r"\b(?:use|using|call) (?:the|a|your|any) (?:\w+ )?tools?\b", asked, re.IGNORECASE):
        return [first]
    if re.search(r"\d\s*[-+*/×]\s*\d", asked):
        return [tool for tool in tools.values() if _takes_numbers(_parameters(tool))][:1]
    return []


def _takes_numbers(parameters: Mapping[str, Any]) -> bool:
    return any(kind.get("type") in ("integer", "number") for kind in parameters.get("properties", {}).values())


def _stems(text: str) -> list[str]:
    words = re.findall(r"[^\W_]{2,}", text.lower())
    return [word.removesuffix("s") for word in words if word not in _IDLE]


def _json(body: Mapping[str, Any], asked: str) -> str | None:
    """Return the JSON that is asked for, None where text is."""
    wanted = body.get("response_format") or {}
    schema = body.get("guided_json")
    if wanted.get("type") == "json_schema":
        schema = wanted["json_schema"].get("schema") or {}
    free = wanted.get("type") == "json_object"
    speakers = ("system", "developer", "user") if free else ()
    prompt = "\n".join(text_of(message) for message in body["messages"] if message["role"] in speakers) or asked
    plain = asked
    if schema is None and "json" in prompt.lower():
        for start, end, found in _objects(prompt):
            if "properties" in found or "$ref" in found:
                schema, plain = found, plain.replace(prompt[start:end], "")
    if schema is not None:
        return _dumped(example(schema, plain))
    if not free:
        return None
    keys = [name for name in _names(asked) if name.isidentifier() and not name[0].isupper()]
    return _dumped({key: f"some {key}" for key in keys} or {"answer": asked})


def _dumped(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _objects(text: str) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Give the JSON objects in a text, each with its place."""
    start, decoder = text.find("{"), json.JSONDecoder()
    while start >= 0:
        try:
            found, end = decoder.raw_decode(text, start)
        except ValueError:
            end = start + 1
        else:
            yield start, end, found
        start = text.find("{", end)
