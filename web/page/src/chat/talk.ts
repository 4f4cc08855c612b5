import { Store } from "../store";
import { drop, keep, keptConversations } from "./shelf";
import { streamed } from "./stream";
import { bodyOf, type Conversation, type Message, newConversation, newId, type ToolCall } from "./types";

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

async function answer(conversation: Conversation): Promise<void> {
  stop?.abort();
  const own = new AbortController();
  stop = own;
  const { id } = conversation;
  const asked = conversation.messages;
  const show = (message: Message, save: boolean) => {
    const now = found(id);
    if (now !== null) change({ ...now, updated: save ? Date.now() : now.updated, messages: [...asked, message] }, save);
  };
  const empty: Message = { id: newId(), role: "assistant", content: "" };
  talk.update({ answering: id, said: "Waiting for the answer …" });
  change({ ...conversation, messages: [...asked, empty] });
  const message = await streamed(empty, { json: bodyOf(conversation, asked), signal: own.signal }, (growing) => show(growing, false));
  show(message, true);
  if (stop === own) {
    stop = null;
    talk.update({ answering: null, said: spoken(message) });
  }
}

/** Return what a screen reader hears of an answer. */
function spoken(message: Message): string {
  if (message.error !== undefined) return "";
  if (message.stopped === true) return "Stopped";
  if (message.toolCalls?.length) return `The model wants to call ${message.toolCalls.map((call) => call.name).join(", ")}`;
  return `Answer: ${message.content.slice(0, SAID_CHARS)}`;
}
