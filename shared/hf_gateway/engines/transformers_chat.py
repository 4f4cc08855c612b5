"""transformers on torch: chat with any causal model that it can load, in this process."""

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hf_gateway.engines import trusts_remote_code
from hf_gateway.engines.chat_prompt import Prompt, Template
from hf_gateway.engines.choosing import DTYPES
from hf_gateway.engines.forked import compute_guard, torch_computes
from hf_gateway.engines.generation import Generation, Run, Turns
from hf_gateway.engines.response_parsing import (
    CALL,
    CALL_END,
    Detokenizer,
    ResponseParser,
    StopStrings,
    TemplateParser,
    parser_for,
)
from hf_gateway.engines.sources import ModelFiles
from hf_gateway.engines.tensors import check_device, load_causal_model
from hf_gateway.errors import ContextOverflow, EngineFailed, EngineMissing, ModelNotFound
from hf_gateway.values.chat import ChatEvent, ChatRequest
from hf_gateway.values.forks import fork_lock
from hf_gateway.values.usage import Usage
from hf_gateway.wire.think_tags import THINK, THINK_END

OPTIONS = frozenset({"device", "dtype", "trust_remote_code"})

_DEFAULT_MAX_TOKENS = 8192
"""Maximum tokens of an answer, if neither the request nor the model sets one."""


class Engine:
    """A loaded model. Thread-safe: one answer is generated at a time, others wait in a queue."""

    name = "transformers"

    def __init__(
        self,
        files: ModelFiles,
        options: Mapping[str, Any],
        *,
        revision: str | None = None,
        name: str | None = None,
    ) -> None:
        """Load the model.

        Args:
            files: the model's files.
            options: the target's options.
            revision: revision of the files.
            name: the model's name in answers and errors.

        Raises:
            EngineMissing, EngineFailed: the model cannot be loaded.
            ConfigError: invalid options.
        """
        try:
            import torch
            import transformers
        except ImportError as error:
            raise EngineMissing(
                f"chat models in this process need torch and transformers ({error}): pip install 'hf-gateway[torch]'"
            ) from None
        trusted = trusts_remote_code(files, options, revision)
        self._name = name or str(files.path)
        device = str(options.get("device") or ("cuda" if torch.cuda.is_available() else "cpu"))
        check_device(device)
        wanted = str(options.get("dtype") or ("auto" if device.startswith("cuda") else "float32"))
        dtype = DTYPES.get(wanted, wanted)
        common = {"trust_remote_code": trusted, "local_files_only": True}
        try:
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(str(files.path), **common)
            if not getattr(self._tokenizer, "chat_template", None):
                raise EngineFailed(f"{files.path} has no chat template: it completes texts, and is not a chat model")
            self._model = load_causal_model(files.path, device, use_safetensors=True, dtype=dtype, **common)
        except EngineFailed:
            raise
        except Exception as error:  # loaders raise various exceptions
            raise EngineFailed(f"{files.path} cannot be loaded: {type(error).__name__}: {error}") from error
        self._prepare()

    def _prepare(self) -> None:
        from hf_gateway.engines import decoding

        self._decoding = decoding
        self._template = Template(self._tokenizer, self._name)
        self._turns = Turns()
        # A tokenizer of `tokenizers` must not be borrowed twice: one thread may decode while another encodes.
        self._tokenizing = fork_lock()
        self._process = os.getpid()
        self._defaults = copy.deepcopy(self._model.generation_config)
        decoding.without_draw(self._model.generation_config)
        ends = self._defaults.eos_token_id
        listed = [*ends] if isinstance(ends, Sequence) else [ends]
        # Generation configs of many chat models still name only the end token of their base model.
        self._ends = frozenset(end for end in (*listed, self._tokenizer.eos_token_id) if end is not None)
        if self._model.generation_config.pad_token_id is None:
            self._model.generation_config.pad_token_id = next(iter(self._ends), 0)
        markers = {THINK, THINK_END, CALL, CALL_END}
        self._silent = frozenset(
            token
            for token in self._tokenizer.all_special_ids
            if self._tokenizer.convert_ids_to_tokens(token) not in markers
        )

    @property
    def device(self) -> str:
        """Device that it runs on, as torch names it."""
        return str(self._model.device)

    @property
    def context(self) -> int | None:
        """Maximum tokens of prompt and answer together; None if its files do not say."""
        config = self._model.config.get_text_config()
        limits = (getattr(config, "max_position_embeddings", None), self._tokenizer.model_max_length)
        # Some tokenizers write 10**30 for "no limit".
        return min((int(limit) for limit in limits if isinstance(limit, int) and 0 < limit < 10**9), default=None)

    def start(self, request: ChatRequest) -> Generation:
        """Prepare an answer; it is generated, and may fail, while it is read.

        Reading raises ContextOverflow, EngineFailed, and ModelNotFound for features that this model does not support.
        Raises ModelNotFound for features that no model in this process supports.
        """
        if request.sampling.logprobs or request.sampling.top_logprobs:
            raise ModelNotFound("models in this process do not support logprobs")
        return Generation(lambda run: self._work(run, request), self._turns)

    def _work(self, run: Run, request: ChatRequest) -> None:
        # Before the run waits in the queue, so that invalid requests fail at once.
        with self._tokenizing, compute_guard.using("tokenizers"):
            prompt = self._template.prompt(request)
        length, context = len(prompt.ids), self.context
        if context is not None and length >= context:
            raise ContextOverflow(
                f"the conversation has {length} tokens, but the limit of {self._name} is {context} with its answer",
                limit=context,
            )
        wanted = request.sampling.max_tokens or self._defaults.max_new_tokens or context or _DEFAULT_MAX_TOKENS
        with self._turns.turn_of(run) as may_run, torch_computes(self.device, self._process):
            if may_run:
                self._generate(run, request, prompt, min(wanted, context - length) if context else wanted)

    def _generate(self, run: Run, request: ChatRequest, prompt: Prompt, most: int) -> None:
        import torch

        answer = self._answer(run, request, prompt)

        def take(token: int) -> bool:
            compute_guard.pause("torch")
            return answer.take(token)

        ids = torch.tensor([prompt.ids], device=self._model.device)
        config = copy.deepcopy(self._model.generation_config)
        config.max_new_tokens = most
        if request.sampling.repetition_penalty is not None:
            config.repetition_penalty = request.sampling.repetition_penalty
        self._model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            generation_config=config,
            logits_processor=self._processors(request, prompt),
            stopping_criteria=[self._decoding.StopCheck(len(prompt.ids), take)],
        )
        if run.cancelled:
            return
        answer.finish()
        usage = Usage(len(prompt.ids), answer.tokens, reasoning_tokens=answer.reasoning_tokens)
        run.put(ChatEvent(finish_reason=answer.finish_reason, usage=usage, model=self._name))

    def _answer(self, run: Run, request: ChatRequest, prompt: Prompt) -> "_Answer":
        reading = parser_for(self._tokenizer, self._template.source, prompt.text, prompt.begun, request.tools)
        stops = self._defaults.stop_strings or []
        one_call = len(request.forced_tools) == 1 or request.sampling.parallel_tool_calls is False
        return _Answer(
            run,
            Detokenizer(self._decode),
            reading,
            StopStrings([*request.stop, *([stops] if isinstance(stops, str) else stops)]),
            ends=self._ends,
            # transformers' own parser needs every token, and recognises those that are not text.
            silent=frozenset() if isinstance(reading, TemplateParser) else self._silent,
            most_calls=1 if one_call else None,
        )

    def _processors(self, request: ChatRequest, prompt: Prompt) -> list[Callable[..., Any]]:
        sampling, start = request.sampling, len(prompt.ids)
        made: list[Callable[..., Any]] = []
        if sampling.frequency_penalty or sampling.presence_penalty:
            made.append(
                self._decoding.Penalties(start, sampling.frequency_penalty or 0.0, sampling.presence_penalty or 0.0)
            )
        if prompt.ways:
            made.append(self._decoding.AllowedTokens(start, prompt.ways))
        shapes = self._decoding.shapes_of(self._defaults, sampling)
        if shapes is not None:
            made.append(self._decoding.SeededSampling(shapes, sampling.seed, self._model.device))
        return made

    def _decode(self, ids: Sequence[int]) -> str:
        with self._tokenizing, compute_guard.using("tokenizers"):
            return str(self._tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


class _Answer:
    """Turns tokens into events, and decides when and why the answer ends."""

    def __init__(
        self,
        run: Run,
        detokenizer: Detokenizer,
        parser: ResponseParser,
        stops: StopStrings,
        *,
        ends: frozenset[int],
        silent: frozenset[int],
        most_calls: int | None,
    ) -> None:
        """Set the parsers and the limits.

        Args:
            run: receives the events.
            detokenizer: turns token ids into text.
            parser: turns text into events.
            stops: the stop strings.
            ends: token ids that end an answer.
            silent: token ids that are not text.
            most_calls: maximum number of tool calls; None for any number.
        """
        self.tokens = 0
        self.reasoning_tokens = 0
        self._ended = False
        self._run, self._detokenizer, self._parser, self._stops = run, detokenizer, parser, stops
        self._ends, self._silent, self._most_calls = ends, silent, most_calls

    @property
    def finish_reason(self) -> str:
        """Why the answer ended, as in OpenAI's API."""
        if not self._ended:
            return "length"
        return "tool_calls" if self._parser.calls else "stop"

    def take(self, token: int) -> bool:
        """Process the next token; return whether to stop."""
        if self._run.cancelled:
            return True
        self.tokens += 1
        if token in self._ends:
            self._ended = True
            return True
        if token in self._silent:
            return False
        was_thinking = self._parser.thinking
        self._show(self._parser.feed(self._detokenizer.feed(token)))
        self.reasoning_tokens += was_thinking or self._parser.thinking
        if self._stops.met or (self._most_calls is not None and self._parser.calls >= self._most_calls):
            self._ended = True
        return self._ended

    def finish(self) -> None:
        """Emit what was held back because it could have been the beginning of a marker."""
        if not self._stops.met:
            self._show([*self._parser.feed(self._detokenizer.finish()), *self._parser.finish()])
        if rest := self._stops.finish():
            self._run.put(ChatEvent(text=rest))

    def _show(self, events: Sequence[ChatEvent]) -> None:
        for event in events:
            if event.text:
                if text := self._stops.feed(event.text):
                    self._run.put(ChatEvent(text=text))
            elif not self._stops.met:
                self._run.put(event)
