import { ApiError, asError, events, isAbort, send } from "../api";
import type { Attempt, Facts, Message } from "./types";

interface Chunk {
  error?: { message: string; code?: string };
  choices?: { delta?: Delta; finish_reason?: string | null }[];
  usage?: { prompt_tokens: number; completion_tokens: number } | null;
  hf_gateway?: { served_by?: string; attempts?: Attempt[]; cost_usd?: number | null };
}

interface Delta {
  content?: string | null;
  reasoning_content?: string;
  refusal?: string | null;
  tool_calls?: { index: number; id?: string; function: { name?: string; arguments?: string } }[];
}

interface Asking {
  /** The request's body, as OpenAI's API has it. */
  json: Record<string, unknown>;
  headers?: Record<string, string>;
  signal: AbortSignal;
}

/**
 * Ask for an answer, and return the message that it becomes: with its facts, or with what came and why it broke off.
 *
 * `show` gets the message as it grows, once a frame.
 */
export async function streamed(empty: Message, { json, headers = {}, signal }: Asking, show: (message: Message) => void): Promise<Message> {
  let message = empty;
  const facts: Facts = { servedBy: null, attempts: [], inputTokens: null, outputTokens: null, costUsd: null, firstSeconds: null, seconds: 0, finish: null };
  const began = performance.now();
  const since = () => (performance.now() - began) / 1000;
  let frame = 0;
  const soon = () => {
    // One rendering a frame, however fast the tokens come; a hidden page has no frames, and is shown at the end.
    frame ||= requestAnimationFrame(() => {
      frame = 0;
      show(message);
    });
  };
  try {
    const response = await send("v1/chat/completions", {
      json: { ...json, stream: true, stream_options: { include_usage: true, include_details: true } },
      headers,
      signal,
    });
    let whole = false;
    for await (const data of events(response)) {
      if (data === "[DONE]") {
        whole = true;
        break;
      }
      const chunk = JSON.parse(data) as Chunk;
      if (chunk.error !== undefined) throw new ApiError(502, chunk.error.code ?? "error", chunk.error.message);
      const delta = chunk.choices?.[0]?.delta;
      if (delta !== undefined && carries(delta)) {
        facts.firstSeconds ??= since();
        message = joined(message, delta);
        soon();
      }
      note(facts, chunk);
    }
    if (!whole) throw new ApiError(0, "broken", "the answer ended before its end; the server may have been stopped");
    facts.seconds = since();
    return { ...message, facts };
  } catch (thrown) {
    facts.seconds = since();
    if (isAbort(thrown)) return { ...message, facts, stopped: true };
    const partial = message.content !== "" || message.reasoning !== undefined;
    const error = { title: partial ? "The answer broke off" : "There is no answer", message: asError(thrown).message };
    return partial ? { ...message, error, facts } : { ...message, error };
  } finally {
    cancelAnimationFrame(frame);
  }
}

/** Take what one event says of the answer. */
function note(facts: Facts, chunk: Chunk): void {
  facts.finish = chunk.choices?.[0]?.finish_reason ?? facts.finish;
  if (chunk.usage) {
    facts.inputTokens = chunk.usage.prompt_tokens;
    facts.outputTokens = chunk.usage.completion_tokens;
  }
  if (chunk.hf_gateway !== undefined) {
    facts.servedBy = chunk.hf_gateway.served_by ?? facts.servedBy;
    facts.attempts = chunk.hf_gateway.attempts ?? facts.attempts;
    facts.costUsd = chunk.hf_gateway.cost_usd ?? facts.costUsd;
  }
}

function carries(delta: Delta): boolean {
  return Boolean(delta.content || delta.reasoning_content || delta.refusal || delta.tool_calls?.length);
}

/** Return a message with what one event adds. */
function joined(message: Message, delta: Delta): Message {
  const made = { ...message, content: message.content + (delta.content ?? "") + (delta.refusal ?? "") };
  if (delta.reasoning_content) made.reasoning = (message.reasoning ?? "") + delta.reasoning_content;
  if (delta.tool_calls !== undefined) {
    const calls = [...(message.toolCalls ?? [])];
    for (const piece of delta.tool_calls) {
      const old = calls[piece.index] ?? { id: "", name: "", arguments: "" };
      calls[piece.index] = {
        id: piece.id ?? old.id,
        name: old.name + (piece.function.name ?? ""),
        arguments: old.arguments + (piece.function.arguments ?? ""),
      };
    }
    made.toolCalls = calls;
  }
  return made;
}
