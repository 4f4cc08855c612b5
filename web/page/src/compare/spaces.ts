import { type ApiError, asError, ask, isAbort } from "../api";
import { session } from "../session";
import { Store } from "../store";
import { cosine, embed } from "../vectors";
import type { Choice } from "./choices";

export const MOST_TEXTS = 24;
/** The least cosine of the same text for two ways of computing it to be one space, as the server has it. */
const SAME_COSINE = 0.999;

/** The texts as one of the two embeds them. */
export interface Side {
  choice: Choice;
  space: string;
  served: string;
  dimension: number;
  seconds: number;
  matrix: number[][] | null;
  error: ApiError | null;
}

export interface Verdict {
  tone: "good" | "bad" | "warn";
  title: string;
  detail: string;
  /** Where the descriptions of the two spaces differ. */
  differences: { field: string; a: string; b: string }[];
}

export interface Comparison {
  texts: string[];
  sides: Side[];
  /** The cosine of each text by the one with each by the other; null where their lengths differ. */
  across: number[][] | null;
  verdict: Verdict;
}

interface State {
  text: string;
  chosen: string[];
  working: boolean;
  found: Comparison | null;
  said: string;
}

export const spaces = new Store<State>({ text: "", chosen: ["", ""], working: false, found: null, said: "" });

let stop: AbortController | null = null;

session.watch(() => {
  if (session.value.kind !== "out") return;
  halt();
  spaces.update({ found: null, said: "" });
});

export function halt(): void {
  stop?.abort();
}

/** Return the texts that are compared: one a line, each once. */
export function textsOf(text: string): string[] {
  return [...new Set(text.split(/\r?\n/).map((line) => line.trim()).filter((line) => line !== ""))];
}

/** Embed the texts by both, and say whether their vectors are of one space. */
export async function compare(choices: Choice[]): Promise<void> {
  stop?.abort();
  const own = new AbortController();
  stop = own;
  const texts = textsOf(spaces.value.text).slice(0, MOST_TEXTS);
  spaces.update({ working: true, found: null, said: "" });
  try {
    const made = await Promise.all(choices.map((choice) => embedded(texts, choice, own.signal)));
    const [a, b] = made;
    if (a === undefined || b === undefined) return;
    const across = a.rows !== null && b.rows !== null && a.side.dimension === b.side.dimension ? matrixOf(a.rows, b.rows) : null;
    const verdict = await judge(a.side, b.side, across, own.signal);
    spaces.update({ found: { texts, sides: [a.side, b.side], across, verdict }, said: verdict.title });
  } catch (thrown) {
    if (!isAbort(thrown)) throw thrown;
    spaces.update({ said: "Stopped" });
  } finally {
    if (stop === own) {
      stop = null;
      spaces.update({ working: false });
    }
  }
}

async function embedded(texts: string[], choice: Choice, signal: AbortSignal): Promise<{ side: Side; rows: Float32Array[] | null }> {
  const began = performance.now();
  const side: Side = { choice, space: "", served: "", dimension: 0, seconds: 0, matrix: null, error: null };
  try {
    const { rows, space, served } = await embed(texts, { model: choice.chain, role: "document", target: choice.target }, signal);
    const seconds = (performance.now() - began) / 1000;
    return { side: { ...side, space, served, dimension: rows[0]?.length ?? 0, seconds, matrix: matrixOf(rows, rows) }, rows };
  } catch (thrown) {
    if (isAbort(thrown)) throw thrown;
    return { side: { ...side, error: asError(thrown) }, rows: null };
  }
}

function matrixOf(one: Float32Array[], other: Float32Array[]): number[][] {
  return one.map((row) => other.map((column) => cosine(row, column)));
}

/** Return the least cosine between a text's vectors by the two. */
export function worstOf(across: number[][]): number {
  return Math.min(...across.map((row, index) => row[index] ?? 1));
}

async function judge(a: Side, b: Side, across: number[][] | null, signal: AbortSignal): Promise<Verdict> {
  const failed = [a, b].filter((side) => side.error !== null);
  if (failed.length > 0) {
    const title = failed.length === 2 ? "Neither of the two answered" : "One of the two did not answer";
    return { tone: "bad", title, detail: "Whether they are one space was not measured.", differences: [] };
  }
  const worst = across === null ? null : worstOf(across);
  const measured = worst === null ? `The one's vectors have ${a.dimension} numbers, the other's ${b.dimension}.` : `The same text by both: worst cosine ${worst.toFixed(4)}.`;
  if (a.space === b.space) {
    if (worst !== null && worst >= SAME_COSINE) {
      return { tone: "good", title: "One space", detail: `${measured} Vectors of both may be kept in one index.`, differences: [] };
    }
    return { tone: "bad", title: "One name, but not one space", detail: `${measured} Do not mix their vectors; see Health for the check of each target.`, differences: [] };
  }
  const differences = differing(await described(a.space, signal), await described(b.space, signal));
  if (worst !== null && worst >= SAME_COSINE) {
    return { tone: "warn", title: "Two names, but the vectors agree", detail: `${measured} The server keeps the two apart, since what is known of them differs.`, differences };
  }
  return { tone: "warn", title: "Two spaces", detail: `${measured} Vectors of one must not be compared with those of the other: each needs an index of its own.`, differences };
}

/** Return what the server knows of a space; nothing where it says nothing. */
async function described(id: string, signal: AbortSignal): Promise<Record<string, unknown>> {
  try {
    return (await ask<{ space: Record<string, unknown> }>(`v1/spaces/${encodeURIComponent(id)}`, { signal })).space;
  } catch (thrown) {
    if (isAbort(thrown)) throw thrown;
    return {};
  }
}

function differing(a: Record<string, unknown>, b: Record<string, unknown>): Verdict["differences"] {
  return [...new Set([...Object.keys(a), ...Object.keys(b)])]
    .map((field) => ({ field, a: words(a[field]), b: words(b[field]) }))
    .filter((each) => each.a !== each.b);
}

function words(value: unknown): string {
  if (value === undefined || value === null || value === "") return "–";
  return typeof value === "string" ? value : JSON.stringify(value);
}

/** Return for how many texts both name the same other text as the nearest. */
export function agreeing(sides: Side[]): number {
  const [a, b] = sides.map((side) => (side.matrix ?? []).map(nearest));
  return (a ?? []).filter((place, index) => place === b?.[index]).length;
}

function nearest(row: number[], self: number): number {
  const others = row.map((value, index) => (index === self ? -Infinity : value));
  return others.indexOf(Math.max(...others));
}
