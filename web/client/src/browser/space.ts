import { GatewayError } from "../index.js";

/** Cosine from which two vectors count as the same: what the server demands of its own targets. */
export const MIN_SAME_COSINE = 0.999;
/** Relative difference of lengths that is accepted. */
const MAX_NORM_DIFFERENCE = 0.01;
const ROLES = ["document", "query"] as const;

export type Role = (typeof ROLES)[number];

/** How to reach a server. */
export interface ServerOptions {
  /** Address of the server, with its root path if it has one; in a page by default the page's own server. */
  baseUrl?: string | undefined;
  /** A key of the server. Never put one into a page: sign in there, or let the page ask a server of yours. */
  apiKey?: string | undefined;
}

/** A vector space of the server, by the vectors that its canary texts have there. */
export interface MeasuredSpace {
  id: string;
  /** The chain that answers in it. */
  chain: string;
  /** What stands before a text of each role. */
  prompts: Record<Role, string>;
  /** The texts by which spaces are measured. */
  canaries: string[];
  /** Their vectors; undefined for a text that was not measured. */
  rows: Record<Role, (Float32Array | undefined)[]>;
}

/** What comparing vectors with a space's has given. */
export interface Agreement {
  /** The lowest cosine of any canary. */
  worst: number;
  /** How many vectors were compared. */
  compared: number;
  /** Why the vectors are not of the space; undefined if they are. */
  fault: string | undefined;
}

/** Return the vector space of a chain, named by its name or its model, as the server has measured it. Throws GatewayError. */
export async function measuredSpace(model: string | undefined, server: ServerOptions, signal?: AbortSignal): Promise<MeasuredSpace> {
  const { data } = await askServer("v1/models", server, { signal });
  const chains = data.filter((each: any) => each.task == "embedding" && each.space);
  const chain = chains.find((each: any) => each.id == model) ?? chains.find((each: any) => model == undefined || each.model == model);
  if (!chain) throw new GatewayError(`the server has no chain of vectors ${model == undefined ? "" : `'${model}' `}for this key`, 404, "model_not_found");
  const path = `v1/spaces/${chain.space.split("/").map(encodeURIComponent).join("/")}`;
  let found = await askServer(path, server, { signal });
  if (!found.fingerprint) {
    // A space is measured with the first vector of it.
    await askServer("v1/embeddings", server, { signal, json: { model: chain.id, input: "a" } });
    found = await askServer(path, server, { signal });
  }
  if (!found.fingerprint) {
    throw new GatewayError("the server has not measured this vector space (HF_GATEWAY_CHECK_SPACE is off), so vectors of a browser cannot be compared with it", 409, "space_not_measured");
  }
  const rows = Object.fromEntries(
    ROLES.map((role) => [role, (found.fingerprint.rows[role] ?? []).map((row: string | null) => (row ? floats(row) : undefined))]),
  ) as MeasuredSpace["rows"];
  const prompts = { document: found.space.document_prompt ?? "", query: found.space.query_prompt ?? "" };
  return { id: found.id, chain: chain.id, prompts, canaries: found.canaries, rows };
}

/** Compare the vectors that a browser gives to the canaries with those of a space. */
export function compareSpaces(expected: MeasuredSpace["rows"], measured: Partial<MeasuredSpace["rows"]>): Agreement {
  let [worst, norm, compared] = [1, 0, 0];
  for (const role of ROLES) {
    for (const [place, row] of (measured[role] ?? []).entries()) {
      const other = expected[role][place];
      if (!row || !other) continue;
      if (row.length != other.length) {
        return { worst: 0, compared, fault: `another dimension: ${row.length} numbers a vector, and the space has ${other.length}` };
      }
      const [a, b, product] = [Math.sqrt(dot(row, row)), Math.sqrt(dot(other, other)), dot(row, other)];
      const cosine = product / (a * b);
      // A vector of zeros, or with a number that is none, has no direction.
      worst = Number.isFinite(cosine) ? Math.min(worst, cosine) : -1;
      norm = Math.max(norm, Math.abs(a - b) / Math.max(a, b));
      compared++;
    }
  }
  let fault: string | undefined;
  if (!compared) fault = "none of the texts could be compared";
  else if (!(worst >= MIN_SAME_COSINE)) fault = `the lowest cosine is ${worst.toFixed(4)}, and ${MIN_SAME_COSINE} is demanded`;
  else if (!(norm <= MAX_NORM_DIFFERENCE)) fault = `lengths differ by ${(100 * norm).toFixed(1)} %`;
  return { worst, compared, fault };
}

/** Send a request to the server; returns the JSON of its answer. Throws GatewayError. */
export async function askServer(path: string, server: ServerOptions, { json, signal }: { json?: unknown; signal?: AbortSignal | undefined } = {}): Promise<any> {
  const headers: Record<string, string> = { ...authorization(server), ...(json ? { "content-type": "application/json" } : {}) };
  const init = { method: json ? "POST" : "GET", headers, body: json ? JSON.stringify(json) : null, signal: signal ?? null };
  const answer = await fetch(new URL(path, rootOf(server)), init).catch((error: unknown) => {
    if (signal?.aborted) throw error;
    throw new GatewayError("no answer from the server; is it running?", 0, "unreachable", "", { cause: error });
  });
  const body = await answer.json().catch(() => undefined);
  if (answer.ok && body) return body;
  throw problemOf(body, answer.status);
}

/** Return the error of an answer's body, in any of the forms that the server's surfaces have. */
export function problemOf(body: any, status: number): GatewayError {
  const error = body?.error ?? body;
  const words = error?.message ?? (typeof error == "string" ? error : `the server answered with status ${status}`);
  return new GatewayError(words, status, error?.code ?? body?.code ?? "unknown");
}

/** Return the header that names a key. */
export function authorization({ apiKey }: ServerOptions): Record<string, string> {
  return apiKey ? { authorization: `Bearer ${apiKey}` } : {};
}

/** Return the server's address, with a slash at its end. */
export function rootOf({ baseUrl }: ServerOptions): URL {
  return new URL(`${(baseUrl ?? "").replace(/\/+$/, "")}/`, location.href);
}

/** Return the product of two vectors. */
export function dot(one: Float32Array, other: Float32Array): number {
  let sum = 0;
  for (let index = 0; index < one.length; index++) sum += one[index]! * other[index]!;
  return sum;
}

function floats(base64: string): Float32Array {
  return new Float32Array(Uint8Array.from(atob(base64), (char) => char.charCodeAt(0)).buffer);
}
