import { streamed } from "../chat/stream";
import { bodyOf, type Conversation, type Facts, type Message, newConversation, newId } from "../chat/types";
import { many } from "../format";
import { session } from "../session";
import { Store } from "../store";
import { pick } from "../vectors";
import type { Choice } from "./choices";

export const LEAST_CHOICES = 2;
export const MOST_CHOICES = 5;

/** The answer of one of those that are compared. */
export interface Column {
  id: string;
  choice: Choice;
  message: Message;
  answering: boolean;
}

interface State {
  /** The system prompt and the parameters that all get. */
  how: Conversation;
  prompt: string;
  /** The ids of the choices; "" for one that was not chosen yet. */
  chosen: string[];
  columns: Column[];
  /** What the columns answer, which may have been changed since. */
  asked: Conversation | null;
  said: string;
}

export const match = new Store<State>({ how: newConversation(""), prompt: "", chosen: ["", ""], columns: [], asked: null, said: "" });

const stops = new Map<string, AbortController>();

session.watch(() => {
  if (session.value.kind !== "out") return;
  halt();
  // The prompt and what was chosen stay; answers are for who asked.
  match.update({ columns: [], asked: null, said: "" });
});

export function promptOf(asked: Conversation): string {
  return asked.messages[0]?.content ?? "";
}

/** Ask all at once. */
export function begin(choices: Choice[]): void {
  const { how, prompt } = match.value;
  halt();
  const columns = choices.map((choice) => ({ id: newId(), choice, message: blank(), answering: true }));
  match.update({ columns, asked: { ...how, messages: [{ id: newId(), role: "user", content: prompt.trim() }] }, said: `Asking ${many(choices.length, "model")} …` });
  for (const column of columns) void ask(column);
}

/** Ask one of them again. */
export function again(column: Column): void {
  const fresh = { ...column, message: blank(), answering: true };
  put(fresh);
  void ask(fresh);
}

/** Stop one of them, or all. */
export function halt(id?: string): void {
  for (const [each, stop] of stops) if (id === undefined || id === each) stop.abort();
}

function blank(): Message {
  return { id: newId(), role: "assistant", content: "" };
}

function put(column: Column): void {
  match.update({ columns: match.value.columns.map((each) => (each.id === column.id ? column : each)) });
}

async function ask(column: Column): Promise<void> {
  const { asked } = match.value;
  if (asked === null) return;
  const { id, choice } = column;
  const stop = new AbortController();
  stops.set(id, stop);
  const json = bodyOf({ ...asked, model: choice.chain });
  const message = await streamed(column.message, { json, headers: pick(choice.target), signal: stop.signal }, (growing) => put({ ...column, message: growing }));
  stops.delete(id);
  put({ ...column, message, answering: false });
  match.update({ said: `${choice.label} ${outcome(message)}${rest()}` });
}

function outcome(message: Message): string {
  if (message.error !== undefined) return message.facts === undefined ? "did not answer" : "broke off";
  return message.stopped === true ? "was stopped" : "answered";
}

function rest(): string {
  const waiting = match.value.columns.filter((each) => each.answering).length;
  return waiting === 0 ? "; all are done" : `; ${waiting} still answering`;
}

/** Seconds below which the time between the first token and the last is the network's and the browser's, not the model's. */
const MEASURABLE_S = 0.05;

/** Return the tokens a second from the first token on; null where they were not counted, came at once, or there was one alone. */
export function speedOf(facts: Facts | undefined): number | null {
  if (facts === undefined || facts.outputTokens === null || facts.outputTokens < 2 || facts.firstSeconds === null) return null;
  return cameAtOnce(facts) ? null : (facts.outputTokens - 1) / (facts.seconds - facts.firstSeconds);
}

/** Return whether the answer came in too short a time to tell how fast it was made. */
export function cameAtOnce(facts: Facts): boolean {
  return facts.firstSeconds !== null && facts.seconds - facts.firstSeconds < MEASURABLE_S;
}

/** Return the ids of the columns that are best at something; none where they do not differ. */
export function bestOf(columns: Column[], value: (facts: Facts) => number | null, most: boolean): Set<string> {
  const found = columns.flatMap(({ id, message }) => {
    const held = message.facts === undefined || message.error !== undefined || message.stopped === true ? null : value(message.facts);
    return held === null ? [] : [{ id, held }];
  });
  const values = found.map((each) => each.held);
  const [best, worst] = most ? [Math.max(...values), Math.min(...values)] : [Math.min(...values), Math.max(...values)];
  return new Set(best === worst ? [] : found.filter((each) => each.held === best).map((each) => each.id));
}
