import { NO_PARAMETERS } from "../chat/types";
import { csv } from "../parts/download";
import { type Column, promptOf, speedOf } from "./match";
import type { Conversation } from "../chat/types";
import type { Comparison } from "./spaces";

/** Return answers side by side as JSON. */
export function answersJson(asked: Conversation, columns: Column[]): string {
  const parameters = Object.fromEntries(
    Object.entries(asked.parameters).filter(([name, value]) => name in NO_PARAMETERS && name !== "tools" && value.trim() !== ""),
  );
  return `${JSON.stringify({ prompt: promptOf(asked), system: asked.system, parameters, answers: columns.map(row) }, null, 2)}\n`;
}

/** Return answers as CSV, one a row. */
export function answersCsv(columns: Column[]): string {
  const rows = columns.map(row);
  return csv(Object.keys(rows[0] ?? {}), rows.map((each) => Object.values(each)));
}

function row({ choice, message, answering }: Column) {
  const { facts, error } = message;
  return {
    chain: choice.chain,
    target: choice.target,
    served_by: facts?.servedBy ?? null,
    outcome: answering ? "answering" : error !== undefined ? "failed" : message.stopped === true ? "stopped" : "answered",
    first_token_seconds: rounded(facts?.firstSeconds),
    tokens_per_second: rounded(speedOf(facts)),
    prompt_tokens: facts?.inputTokens ?? null,
    completion_tokens: facts?.outputTokens ?? null,
    cost_usd: facts?.costUsd ?? null,
    seconds: rounded(facts?.seconds),
    error: error?.message ?? null,
    answer: message.content,
  };
}

function rounded(value: number | null | undefined): number | null {
  return value === null || value === undefined ? null : Number(value.toPrecision(4));
}

/** Return similarities of two sides as CSV, one pair of texts a row. */
export function pairsCsv({ texts, sides, across }: Comparison): string {
  const rows = texts.flatMap((one, i) =>
    texts.map((other, j) => [one, other, ...sides.map((side) => cell(side.matrix?.[i]?.[j])), cell(across?.[i]?.[j])]),
  );
  return csv(["text_a", "text_b", "cosine_by_a", "cosine_by_b", "cosine_a_to_b"], rows);
}

/** Return similarities of two sides as JSON. */
export function pairsJson({ texts, sides, across, verdict }: Comparison): string {
  const made = sides.map(({ choice, space, served, dimension, error, matrix }) => ({
    chain: choice.chain,
    target: choice.target,
    served_by: served || null,
    space: space || null,
    dimension,
    error: error?.message ?? null,
    cosines: matrix?.map((each) => each.map(cell)) ?? null,
  }));
  return `${JSON.stringify({ texts, a: made[0], b: made[1], cosines_a_to_b: across?.map((each) => each.map(cell)) ?? null, verdict: verdict.title }, null, 2)}\n`;
}

function cell(value: number | undefined): number | null {
  return value === undefined ? null : Number(value.toFixed(6));
}
