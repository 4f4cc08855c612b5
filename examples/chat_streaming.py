"""Chat without a framework: an answer that streams from the first of three places that can give it.

pip install "hf-gateway[torch]" && python examples/chat_streaming.py

With HF_TOKEN set a hosted provider answers. Without it Ollama does, if it runs and `ollama pull llama3.1` was done.
Otherwise a small model in this process, which is downloaded once (0.7 GB).
"""

import sys

from hf_gateway import Gateway
from hf_gateway.errors import GatewayError, StreamInterrupted

QUESTION = "Why is the sky blue? Answer in three sentences."

gateway = Gateway(
    "meta-llama/Llama-3.1-8B-Instruct",  # what it is called on the Hub; Ollama's name for it is known
    targets=["hf", "ollama", "local:HuggingFaceTB/SmolLM2-360M-Instruct"],  # tried in this order
    task="chat",
    temperature=0,
    max_tokens=300,
)

with gateway, gateway.stream(QUESTION) as stream:
    try:
        for event in stream:
            print(event.text, end="", flush=True)
    except StreamInterrupted as error:
        # Its beginning was read already, so no other target is asked: another model's answer would not continue it.
        print(f"\n\nbroken off: {error}")
        print(f"kept: the first {len(error.partial)} characters")
        sys.exit(1)
    except GatewayError as error:
        sys.exit(f"no target could answer: {error}")

result = stream.result
print(f"\n\n{result.usage.input_tokens} tokens in, {result.usage.output_tokens} out, {result.seconds:.1f} s")
print(f"first words after {result.first_content_seconds:.1f} s, from {result.model} at {result.served_by}")
for attempt in result.attempts:
    print(" ", attempt.target, attempt.outcome, attempt.error or "")
