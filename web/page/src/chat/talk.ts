import { ApiError, asError, events, isAbort, send } from "../api";
import { Store } from "../store";
import { drop, keep, keptConversations } from "./shelf";
import { type Attempt, bodyOf, type Conversation, type Facts, type Message, newConversation, newId, type ToolCall } from "./types";

interface State {
  /** null until the browser's own have been read. */
  conversations: Conversation[] | null;
  current: Conversation;
  /** The id of the conversation that is being answered. */
  answering: string | null;
  said: string;
  kept: boolean;
}

export const talk = new Store<State>({ conversations: null, current: newConversation(""), answering: null, said: "", kept: true });

const TITLE_CHARS = 60;
const SAID_CHARS = 600;
let stop: AbortController | null = null;

export async function open(): Promise<void> {
  if (talk.value.conversations === null) talk.update({ conversations: await keptConversations() });
}

/** Put a changed conversation in its place; `save` keeps it in the browser, too. */
export function change(conversation: Conversation, save = true): void {
  const { conversations, current } = talk.value;
  const begun = conversation.messages.length > 0;
  const others = (conversations ?? []).filter((each) => each.id !== conversation.id);
  talk.update({
    current: current.id === conversation.id ? conversation : current,
    conversations: begun ? [conversation, ...others].sort((one, other) => other.updated - one.updated) : others,
  });
  if (save && begun) void keep(conversation).then((kept) => kept !== talk.value.kept && talk.update({ kept }));
}

export function begin(): void {
  const { current } = talk.value;
  const fresh = newConversation(current.model);
  talk.update({ current: { ...fresh, system: current.system, parameters: current.parameters }, said: "" });
}

export function choose(conversation: Conversation): void {
  talk.update({ current: conversation, said: "" });
}

export async function remove(conversation: Conversation): Promise<void> {
  if (talk.value.answering === conversation.id) stop?.abort();
  talk.update({ conversations: (talk.value.conversations ?? []).filter((each) => each.id !== conversation.id) });
  if (talk.value.current.id === conversation.id) begin();
  await drop(conversation.id);
}

/** Return the conversation of an id as it is now, or null if it was removed meanwhile. */
function found(id: string): Conversation | null {
  const { conversations, current } = talk.value;
  return current.id === id ? current : ((conversations ?? []).find((each) => each.id === id) ?? null);
}

export function say(content: string, images: string[]): void {
  const { current } = talk.value;
  const message: Message = { id: newId(), role: "user", content, ...(images.length > 0 ? { images } : {}) };
  const title = current.title || content.trim().replace(/\s+/g, " ").slice(0, TITLE_CHARS) || "A picture";
  void answer({ ...current, title, updated: Date.now(), messages: [...current.messages, message] });
}

/** Answer the tool calls at the end of the conversation. */
export function giveResults(results: { call: ToolCall; content: string }[]): void {
  const { current } = talk.value;
  const messages = results.map(({ call, content }): Message => ({ id: newId(), role: "tool", toolCallId: call.id, content }));
  void answer({ ...current, updated: Date.now(), messages: [...current.messages, ...messages] });
}

/** Ask again for the last answer. */
export function retry(): void {
  const { current } = talk.value;
  const last = current.messages.findLastIndex((message) => message.role !== "assistant");
  if (last >= 0) void answer({ ...current, updated: Date.now(), messages: current.messages.slice(0, last + 1) });
}

export function halt(): void {
  stop?.abort();
}

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

async function answer(conversation: Conversation): Promise<void> {
  stop?.abort();
  const own = new AbortController();
  stop = own;
  const { id } = conversation;
  const asked = conversation.messages;
  let message: Message = { id: newId(), role: "assistant", content: "" };
  const facts: Facts = {
    servedBy: null,
    attempts: [],
    inputTokens: null,
    outputTokens: null,
    costUsd: null,
    firstSeconds: null,
    seconds: 0,
    finish: null,
  };
  const began = performance.now();
  const since = () => (performance.now() - began) / 1000;
  const show = (save: boolean) => {
    const now = found(id);
    if (now !== null) change({ ...now, updated: save ? Date.now() : now.updated, messages: [...asked, message] }, save);
  };
  talk.update({ answering: id, said: "Waiting for the answer …" });
  change({ ...conversation, messages: [...asked, message] });
  let frame = 0;
  const soon = () => {
    // One rendering a frame, however fast the tokens come; a hidden page has no frames, and is shown at the end.
    frame ||= requestAnimationFrame(() => {
      frame = 0;
      show(false);
    });
  };
  try {
    const response = await send("v1/chat/completions", {
      json: { ...bodyOf(conversation, asked), stream: true, stream_options: { include_usage: true, include_details: true } },
      signal: own.signal,
    });
    let whole = false;
    for await (const data of events(response)) {
      if (data === "[DONE]") {
        whole = true;
        break;
      }
      const chunk = JSON.parse(data) as Chunk;
      if (chunk.error !== undefined) throw new ApiError(502, chunk.error.code ?? "error", chunk.error.message);
      const choice = chunk.choices?.[0];
      if (choice?.delta !== undefined && carries(choice.delta)) {
        facts.firstSeconds ??= since();
        message = joined(message, choice.delta);
        soon();
      }
      if (choice?.finish_reason) facts.finish = choice.finish_reason;
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
    if (!whole) throw new ApiError(0, "broken", "the answer ended before its end; the server may have been stopped");
    facts.seconds = since();
    message = { ...message, facts };
  } catch (thrown) {
    facts.seconds = since();
    if (isAbort(thrown)) message = { ...message, facts, stopped: true };
    else {
      const error = asError(thrown);
      const partial = message.content !== "" || message.reasoning !== undefined;
      message = { ...message, error: { title: partial ? "The answer broke off" : "There is no answer", message: error.message } };
      if (partial) message = { ...message, facts };
    }
  } finally {
    cancelAnimationFrame(frame);
    show(true);
    if (stop === own) {
      stop = null;
      talk.update({ answering: null, said: spoken(message) });
    }
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

/** Return what a screen reader hears of an answer. */
function spoken(message: Message): string {
  if (message.error !== undefined) return "";
  if (message.stopped === true) return "Stopped";
  if (message.toolCalls?.length) return `The model wants to call ${message.toolCalls.map((call) => call.name).join(", ")}`;
  return `Answer: ${message.content.slice(0, SAID_CHARS)}`;
}
