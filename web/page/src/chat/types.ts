/** What a conversation is; kept in this browser alone. */

export interface ToolCall {
  id: string;
  name: string;
  arguments: string;
}

export interface Attempt {
  target: string;
  outcome: string;
  error: string | null;
  seconds: number;
  calls: number;
}

/** What is known of an answer beside its text. */
export interface Facts {
  servedBy: string | null;
  attempts: Attempt[];
  inputTokens: number | null;
  outputTokens: number | null;
  costUsd: number | null;
  firstSeconds: number | null;
  seconds: number;
  finish: string | null;
}

export interface Message {
  id: string;
  role: "user" | "assistant" | "tool";
  content: string;
  images?: string[];
  reasoning?: string;
  toolCalls?: ToolCall[];
  /** Of a tool's result: the call that it answers. */
  toolCallId?: string;
  facts?: Facts;
  /** Why the answer broke off or never came. */
  error?: { title: string; message: string };
  stopped?: boolean;
}

export interface Parameters {
  temperature: string;
  top_p: string;
  max_tokens: string;
  seed: string;
  reasoning_effort: string;
  /** JSON of the tools that the model may call. */
  tools: string;
}

export interface Conversation {
  id: string;
  title: string;
  updated: number;
  model: string;
  system: string;
  parameters: Parameters;
  messages: Message[];
}

export const NO_PARAMETERS: Parameters = { temperature: "", top_p: "", max_tokens: "", seed: "", reasoning_effort: "", tools: "" };

/** Return an id that no other conversation or message of this browser has; also where the page is plain http. */
export function newId(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function newConversation(model: string): Conversation {
  return { id: newId(), title: "", updated: Date.now(), model, system: "", parameters: { ...NO_PARAMETERS }, messages: [] };
}

/** Return why parameters cannot be sent, by their names; empty if they can. */
export function faultsOf(parameters: Parameters): Partial<Record<keyof Parameters, string>> {
  const found: Partial<Record<keyof Parameters, string>> = {};
  const number = (name: keyof Parameters, least: number, most: number, whole: boolean) => {
    const text = parameters[name].trim();
    const value = Number(text);
    if (text !== "" && (!Number.isFinite(value) || value < least || value > most || (whole && !Number.isInteger(value)))) {
      found[name] = `a ${whole ? "whole " : ""}number from ${least} to ${most}`;
    }
  };
  number("temperature", 0, 100, false);
  number("top_p", 0.01, 1, false);
  number("max_tokens", 1, 1_000_000, true);
  number("seed", 0, Number.MAX_SAFE_INTEGER, true);
  const tools = parameters.tools.trim();
  if (tools !== "") {
    try {
      if (!Array.isArray(JSON.parse(tools))) found.tools = "a JSON list of tools";
    } catch (thrown) {
      found.tools = `JSON; ${thrown instanceof Error ? thrown.message : ""}`;
    }
  }
  return found;
}

/** Return the body of a request that continues a conversation, as OpenAI's API has it. */
export function bodyOf(conversation: Conversation, messages: Message[] = conversation.messages): Record<string, unknown> {
  const { parameters } = conversation;
  const body: Record<string, unknown> = { model: conversation.model, messages: sentMessages(conversation.system, messages) };
  for (const name of ["temperature", "top_p", "max_tokens", "seed"] as const) {
    if (parameters[name].trim() !== "") body[name] = Number(parameters[name]);
  }
  if (parameters.reasoning_effort !== "") body.reasoning_effort = parameters.reasoning_effort;
  if (parameters.tools.trim() !== "") body.tools = JSON.parse(parameters.tools);
  return body;
}

function sentMessages(system: string, messages: Message[]): unknown[] {
  const sent: unknown[] = system.trim() === "" ? [] : [{ role: "system", content: system }];
  for (const message of messages) {
    if (message.role === "tool") {
      sent.push({ role: "tool", tool_call_id: message.toolCallId, content: message.content });
    } else if (message.role === "user") {
      const pictures = (message.images ?? []).map((url) => ({ type: "image_url", image_url: { url } }));
      sent.push({ role: "user", content: pictures.length > 0 ? [{ type: "text", text: message.content }, ...pictures] : message.content });
    } else if (message.toolCalls !== undefined && message.toolCalls.length > 0) {
      const calls = message.toolCalls.map((call) => ({ id: call.id, type: "function", function: { name: call.name, arguments: call.arguments } }));
      sent.push({ role: "assistant", content: message.content || null, tool_calls: calls });
    } else if (message.content !== "") {
      sent.push({ role: "assistant", content: message.content });
    }
  }
  return sent;
}

/** Return the tool calls at the end of a conversation that have no result yet. */
export function openCalls(conversation: Conversation): ToolCall[] {
  const last = conversation.messages.at(-1);
  return last?.role === "assistant" && last.error === undefined && last.stopped !== true ? (last.toolCalls ?? []) : [];
}
