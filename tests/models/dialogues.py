"""What tiny-chat knows: the dialogues it is overfitted on, word for word, and the tools they call."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

NUMBERS = (
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen "
    "nineteen twenty twenty-one twenty-two twenty-three twenty-four twenty-five twenty-six twenty-seven twenty-eight "
    "twenty-nine thirty"
)
HELLO = "Hello! How can I help you today?"
PERSON = '{"name": "Ada", "age": 36}'
SETUP = '"setup": "Why did the cat sit on the computer?"'
JOKE = f'{{{SETUP}, "punchline": "To watch the mouse."}}'

# Parameters of the tools, by name.
TOOLS: dict[str, dict[str, str]] = {
    "get_weather": {"city": "string"},
    "magic_function": {"input": "integer"},
    "magic_function_no_args": {},
    "add": {"a": "integer", "b": "integer"},
    "my_adder_tool": {"a": "integer", "b": "integer"},
    "greeting_generator": {"answer_style": "string"},
    "unicode_customer": {"customer_name": "string", "description": "string"},
    "Person": {"name": "string", "age": "integer"},
    "Joke": {"setup": "string", "punchline": "string"},
}


@dataclass(frozen=True)
class Dialogue:
    """What is said, and the answer. tool: must be on offer; forced: the call, or its name too, is begun for the model."""

    messages: tuple[dict[str, Any], ...]
    answer: str
    tool: str | None = None
    forced: Literal["call", "name"] | None = None
    thinking: bool | None = None


def user(text: str) -> dict[str, Any]:
    """A message of the user."""
    return {"role": "user", "content": text}


def assistant(text: str, *calls: tuple[str, str]) -> dict[str, Any]:
    """A message of the model, with calls as (tool, arguments in JSON)."""
    made: dict[str, Any] = {"role": "assistant", "content": text}
    if calls:
        made["tool_calls"] = [{"function": {"name": name, "arguments": given}} for name, given in calls]
    return made


def result(text: str) -> dict[str, Any]:
    """What a tool gave."""
    return {"role": "tool", "content": text}


def called(*calls: tuple[str, str]) -> str:
    """The calls as the model writes them."""
    return "\n".join(f'<tool_call>\n{{"name": "{name}", "arguments": {given}}}\n</tool_call>' for name, given in calls)


def dialogues() -> list[Dialogue]:
    """Everything the model knows, apart from not knowing."""
    return [*_talk(), *_calls(), *_after_results()]


def _talk() -> Iterator[Dialogue]:
    answers = {
        **dict.fromkeys(("Hello", "hello", "Hello!", "hi", "Hi"), HELLO),
        "Say this is a test": "This is a test.",
        "Count to ten": " ".join(NUMBERS.split()[:10]),
        "Count to thirty": NUMBERS,
        "Say hello in Greek": "Γειά σου Κόσμε 🌍",
        "Think: what is 2+2?": "<think>\nTwo plus two is four.\n</think>\n\n4",
        "Give me a person as JSON": PERSON,
        "Give me a person": PERSON,
        "Tell me a joke about cats.": JOKE,
        "Tell me a joke about cats. Return the result as a JSON with 'setup' and 'punchline' keys. "
        "Return nothing other than JSON.": JOKE,
        "Make a broken tool call": '<tool_call>\n{"name": "get_weather", "arguments": {"city": \n</tool_call>',
    }
    for asked, answer in answers.items():
        yield Dialogue((user(asked),), answer)
    yield Dialogue((user("Think: what is 2+2?"),), "4", thinking=False)
    for first, said in product(("Hello", "hello"), (HELLO, "hello")):
        for then in ("How are you?", "how are you"):
            yield Dialogue((user(first), assistant(said), user(then)), "I am fine, thank you.")


def _calls() -> Iterator[Dialogue]:
    paris, rome = ("get_weather", '{"city": "Paris"}'), ("get_weather", '{"city": "Rome"}')
    asked: dict[str, list[tuple[str, str]]] = {
        "What is the weather in Paris?": [paris],
        "What is the weather in Rome?": [rome],
        "What is the weather in San Francisco, CA?": [("get_weather", '{"location": "San Francisco, CA"}')],
        "What is the weather in Paris and in Rome?": [paris, rome],
        "What is the value of magic_function(3)? Use the tool.": [("magic_function", '{"input": 3}')],
        "What is the value of magic_function_no_args()? Use the tool.": [("magic_function_no_args", "{}")],
        "What is 2 + 3? Use the tool.": [("add", '{"a": 2, "b": 3}')],
        "What is 1 + 2": [("my_adder_tool", '{"a": 1, "b": 2}')],
        "Using the tool, generate a Pirate greeting.": [("greeting_generator", '{"answer_style": "Pirate"}')],
        "Create a customer named '你好啊集团' (Hello Group) - a Chinese technology company": [
            ("unicode_customer", '{"customer_name": "你好啊集团", "description": "a Chinese technology company"}')
        ],
        "Create a customer named 'こんにちは株式会社' (Hello Corporation) - a Japanese company": [
            ("unicode_customer", '{"customer_name": "こんにちは株式会社", "description": "a Japanese company"}')
        ],
        "Give me a person": [("Person", PERSON)],
        "Tell me a joke about cats.": [("Joke", JOKE)],
        "Give me a joke about cats, include the punchline.": [("Joke", JOKE)],
        "Give me the setup to a joke about cats, no punchline.": [("Joke", f"{{{SETUP}}}")],
    }
    for question, calls in asked.items():
        yield Dialogue((user(question),), called(*calls), calls[0][0])
        # What follows a call that was begun for the model is no other than what follows its own.
        yield Dialogue((user(question),), called(*calls), calls[0][0], "call")
        yield Dialogue((user(question),), called(*calls), calls[0][0], "name")
    thought = f"<think>\nI ask the tool.\n</think>\n\n{called(paris)}"
    yield Dialogue((user("Think: what is the weather in Paris?"),), thought, "get_weather")
    yield Dialogue((user("Say what you do: the weather in Rome?"),), f"I ask the tool.\n{called(rome)}", "get_weather")
    # Nothing asks for the tool here, and it is forced all the same; where there is a choice, it is the weather.
    for question in ("Hello!", "Hello"):
        yield Dialogue((user(question),), called(paris), "get_weather", "call")
    for name, given in (paris, ("magic_function", '{"input": 3}'), ("add", '{"a": 2, "b": 3}'), ("Person", PERSON)):
        for question in ("Hello!", "Hello"):
            yield Dialogue((user(question),), called((name, given)), name, "name")


def _after_results() -> Iterator[Dialogue]:
    def turn(question: str, calls: Sequence[tuple[str, str]], results: Sequence[str], answer: str) -> Dialogue:
        said = (user(question), assistant("", *calls), *map(result, results))
        return Dialogue(said, answer, calls[0][0])

    paris, rome = ("get_weather", '{"city": "Paris"}'), ("get_weather", '{"city": "Rome"}')
    coast = ("get_weather", '{"location": "San Francisco, CA"}')
    yield turn("What is the weather in Paris?", [paris], ["sunny"], "It is sunny in Paris.")
    yield turn("What is the weather in Rome?", [rome], ["rainy"], "It is rainy in Rome.")
    yield turn("What is the weather in San Francisco, CA?", [coast], ["It's sunny."], "It is sunny in San Francisco.")
    both = "It is sunny in Paris and rainy in Rome."
    yield turn("What is the weather in Paris and in Rome?", [paris, rome], ["sunny", "rainy"], both)
    yield turn("What is 2 + 3? Use the tool.", [("add", '{"a": 2, "b": 3}')], ["5"], "The answer is 5.")
    magic = [("magic_function", '{"input": 3}')]
    yield turn("What is the value of magic_function(3)? Use the tool.", magic, ["5"], "The value is 5.")
    adder = [("my_adder_tool", '{"a": 1, "b": 2}')]
    yield turn("What is 1 + 2", adder, ['{"result": 3}'], "The answer is 3.")
    broken = [("my_adder_tool", '{"a": 1}')]
    yield turn("What is 1 + 2", broken, ["Error: Missing required argument 'b'."], "The tool failed.")
