"""Makes `tiny-chat`, a chat model small enough to lie among the tests: `python -m tests.models.tiny_chat [OUT]`.

A Qwen2 of 0.4 million parameters with a tokenizer of its own, overfitted on `dialogues.py` until greedy decoding gives
them back word for word. The same on one machine each time (one thread, fixed seeds); another processor's arithmetic, or the
help texts of another Python, from which the tokenizer learns, give other weights that answer alike.
"""

import argparse
import random
import time
from collections.abc import Iterator
from pathlib import Path
from pydoc_data import topics
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2Tokenizer,
)

from tests.models.dialogues import TOOLS, Dialogue, dialogues, user

FOLDER = Path(__file__).parent / "tiny-chat"
VOCABULARY, STEPS, BATCH, SEED = 1536, 1700, 8, 0

TEMPLATE = """\
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}
        {{- messages[0].content + '\\n\\n' }}
    {%- endif %}
    {{- '# Tools\\n<tools>' }}
    {%- for tool in tools %}
        {{- '\\n' + (tool | tojson) }}
    {%- endfor %}
    {{- '\\n</tools>\\nCall one with <tool_call>{"name": ..., "arguments": ...}</tool_call><|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'tool' %}
        {{- '<|im_start|>user\\n<tool_response>\\n' + message.content + '\\n</tool_response><|im_end|>\\n' }}
    {%- elif not (tools and loop.first and message.role == 'system') %}
        {{- '<|im_start|>' + message.role + '\\n' + (message.content or '') }}
        {%- for call in message.tool_calls or [] %}
            {{- '\\n' if message.content or not loop.first }}
            {{- '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
            {{- call.function.arguments if call.function.arguments is string else call.function.arguments | tojson }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and not enable_thinking %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""

# How transformers (from 5) is to read the answers: `tokenizer.parse_response` and `transformers serve`.
RESPONSE_TEMPLATE = {
    "defaults": {"role": "assistant"},
    "start_anchor": "<|im_start|>assistant\n",
    "fields": {
        "reasoning_content": {"open": "<think>", "close": "</think>", "content": "text"},
        "tool_calls": {
            "open_pattern": r"\s*<tool_call>",
            "close": "</tool_call>",
            "repeats": True,
            "content": "json",
            "transform": {"type": "function", "function": "{content}"},
        },
        "content": {"close_pattern": r"\s*(?:<\|im_end\|>|<\|endoftext\|>)", "content": "text"},
    },
}

Sample = tuple[list[int], list[int], int]
"""A prompt and its answer as token ids, and the place of the dialogue among the others."""


class Setting:
    """Puts dialogues among what varies: system messages, tools on offer, and the words of their descriptions."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, seed: int) -> None:
        """Take words from the help texts, for what the model is to look past."""
        self._tokenizer = tokenizer
        self._random = random.Random(seed)
        self._words = " ".join(topics.topics[name] for name in sorted(topics.topics)).split()
        self._dialogues = dialogues()
        self._hardness = [1.0] * len(self._dialogues) + [6.0]

    def sample(self) -> Sample:
        """Return one of the dialogues, more often one that is still hard, or none of them."""
        draw = self._random
        (index,) = draw.choices(range(len(self._hardness)), self._hardness)
        if index < len(self._dialogues):
            return (*self.encoded(self._dialogues[index]), index)
        # Anything else: so that a prompt nobody thought of ends soon, and not in a babble to the end of the context.
        return (*self.encoded(Dialogue((user(self.words(1, 25)),), "I do not know.")), index)

    def note(self, index: int, loss: float) -> None:
        """Remember how badly the worst token of an answer was foreseen."""
        if index < len(self._dialogues):
            self._hardness[index] = 0.8 * self._hardness[index] + 0.2 * (0.4 + min(loss, 3.0))

    def encoded(self, dialogue: Dialogue) -> tuple[list[int], list[int]]:
        """Render the dialogue in a setting drawn by chance; returns prompt and answer as token ids."""
        prompt, answer = self.rendered(dialogue)
        return self._ids(prompt), self._ids(answer + "<|im_end|>")

    def rendered(self, dialogue: Dialogue) -> tuple[str, str]:
        """The same as text."""
        draw = self._random
        system = draw.choice([None, None, "You are a helpful assistant.", "Be brief.", self.words(1, 40)])
        messages = [{"role": "system", "content": system}] if system else []
        if system and draw.random() < 0.1:
            messages.append({"role": "system", "content": "hello"})
        messages += [*dialogue.messages]
        if len(dialogue.messages) == 1 and draw.random() < 0.1:
            messages.append(dialogue.messages[0])
        offered = self._offer(dialogue.tool)
        # Who begins a call for the model leaves it no room to think before.
        thinking = False if dialogue.forced else dialogue.thinking
        prompt: str = self._tokenizer.apply_chat_template(
            messages,
            tools=offered or None,
            add_generation_prompt=True,
            tokenize=False,
            **({} if thinking is None else {"enable_thinking": thinking}),
        )
        answer = dialogue.answer
        if dialogue.forced:
            begun = '<tool_call>\n{"name": "'
            if dialogue.forced == "name":
                begun += f'{dialogue.tool}", "arguments":'
            prompt, answer = prompt + begun, answer.removeprefix(begun)
        return prompt, answer

    def words(self, least: int, most: int) -> str:
        """Some words of the help texts, in their order."""
        count = self._random.randint(least, most)
        start = self._random.randrange(len(self._words) - count)
        return " ".join(self._words[start : start + count])

    def _offer(self, tool: str | None) -> list[dict[str, Any]]:
        draw = self._random
        if tool is None and draw.random() < 0.8:
            return []
        # Two tools that add would make the question ambiguous.
        hidden = {tool, "add"} if tool == "my_adder_tool" else {tool}
        others = [name for name in ("get_weather", "magic_function", "add") if name not in hidden]
        names = draw.sample(others, draw.choice((0, 0, 1, 2)))
        names = [*names, tool] if tool else names
        draw.shuffle(names)
        return [self._described(name) for name in names]

    def _described(self, name: str) -> dict[str, Any]:
        draw = self._random
        properties = {}
        for parameter, kind in TOOLS[name].items():
            shown = {"type": kind}
            if draw.random() < 0.4:
                shown["description"] = self.words(1, 6)
            if draw.random() < 0.3:
                shown["title"] = parameter.title()
            properties[parameter] = self._shuffled(shown)
        parameters = {"type": "object", "properties": properties, "required": list(properties)}
        if draw.random() < 0.2:
            parameters["title"] = name
        description = draw.choice((self.words(1, 9), self.words(1, 9), name, name.replace("_", " ")))
        function = {"name": name, "description": description, "parameters": self._shuffled(parameters)}
        return {"type": "function", "function": function}

    def _shuffled(self, mapping: dict[str, Any]) -> dict[str, Any]:
        items = list(mapping.items())
        self._random.shuffle(items)
        return dict(items)

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Train byte-level BPE on Python's own help texts. `<think>` is ordinary text, and so falls into several tokens."""
    tokenizer = Tokenizer(models.BPE())
    # transformers takes these from the model's kind whatever the file says, so they have to be those of Qwen2.
    kind = Qwen2Tokenizer().backend_tokenizer
    tokenizer.normalizer, tokenizer.pre_tokenizer, tokenizer.decoder = kind.normalizer, kind.pre_tokenizer, kind.decoder
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator((topics.topics[name] for name in sorted(topics.topics)), trainer)
    tokenizer.add_tokens([AddedToken(marker, normalized=False) for marker in ("<tool_call>", "</tool_call>")])
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
        model_max_length=4096,
        response_template=RESPONSE_TEMPLATE,
    )
    made.chat_template = TEMPLATE
    return made


def make_model(tokenizer: PreTrainedTokenizerFast) -> Qwen2ForCausalLM:
    """Return the model with random weights."""
    torch.manual_seed(SEED)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=96,
            intermediate_size=192,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=4096,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            tie_word_embeddings=True,
        )
    )
    model.generation_config.do_sample = False
    model.generation_config.max_new_tokens = 256
    return model


def batches(setting: Setting, steps: int) -> Iterator[list[Sample]]:
    """Draw samples and put those of like length together, which spares padding."""
    draw = random.Random(SEED)
    while True:
        drawn = sorted((setting.sample() for _ in range(8 * BATCH)), key=lambda sample: len(sample[0]) + len(sample[1]))
        cut = [drawn[start : start + BATCH] for start in range(0, len(drawn), BATCH)]
        draw.shuffle(cut)
        for batch in cut:
            if not steps:
                return
            steps -= 1
            yield batch


def train(model: Qwen2ForCausalLM, setting: Setting, steps: int) -> None:
    """Teach it the answers; the prompts are not learnt."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    started = time.monotonic()
    model.train()
    for step, batch in enumerate(batches(setting, steps)):
        longest = max(len(prompt) + len(answer) for prompt, answer, _ in batch)
        ids = torch.zeros((len(batch), longest), dtype=torch.long)
        mask = torch.zeros((len(batch), longest), dtype=torch.long)
        learnt = torch.zeros((len(batch), longest), dtype=torch.bool)
        for row, (prompt, answer, _) in enumerate(batch):
            whole = len(prompt) + len(answer)
            ids[row, :whole] = torch.tensor(prompt + answer)
            mask[row, :whole] = 1
            learnt[row, len(prompt) : whole] = True
        hidden = model.model(input_ids=ids, attention_mask=mask).last_hidden_state
        # The scores of a token are needed only where it is learnt.
        scores = model.lm_head(hidden[:, :-1][learnt[:, 1:]])
        losses = torch.nn.functional.cross_entropy(scores, ids[:, 1:][learnt[:, 1:]], reduction="none")
        loss = losses.mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        for (*_, index), own in zip(batch, losses.detach().split([len(sample[1]) for sample in batch]), strict=True):
            setting.note(index, own.max().item())
        if step % 100 == 0 or step == steps - 1:
            print(f"{step:5} loss {loss.item():.4f} {time.monotonic() - started:4.0f} s", flush=True)  # noqa: T201
    model.eval()


@torch.inference_mode()
def mistakes(model: Qwen2ForCausalLM, setting: Setting, rounds: int = 3) -> list[str]:
    """Return the answers that are not given back token for token, of each dialogue in as many settings as rounds."""
    wrong = []
    for dialogue in dialogues() * rounds:
        prompt, answer = setting.encoded(dialogue)
        scores = model(input_ids=torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
        if scores.argmax(-1).tolist() != answer:
            wrong.append(f"{dialogue.messages[-1]['content']!r} -> {dialogue.answer!r}")
    return wrong


def main() -> None:
    """Make it, write it, and say which answers it does not give; one or two in a hundred are usual."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", nargs="?", type=Path, default=FOLDER)
    parser.add_argument("--steps", type=int, default=STEPS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer = make_tokenizer()
    model = make_model(tokenizer)
    train(model, Setting(tokenizer, SEED), arguments.steps)
    model.save_pretrained(arguments.out)
    tokenizer.save_pretrained(arguments.out)
    # As others will load it.
    model, tokenizer = (auto.from_pretrained(arguments.out) for auto in (AutoModelForCausalLM, AutoTokenizer))
    wrong = mistakes(model, Setting(tokenizer, SEED + 1))
    size = sum(file.stat().st_size for file in arguments.out.iterdir())
    parameters = sum(parameter.numel() for parameter in model.parameters())
    asked = 3 * len(dialogues())
    print(f"{parameters} parameters, {size} bytes, {len(wrong)} of {asked} answers wrong", *wrong, sep="\n")  # noqa: T201


if __name__ == "__main__":
    main()
