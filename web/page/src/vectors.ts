import { answered } from "./api";

/** Vectors of texts, and what is known of them. */
export interface Embedded {
  rows: Float32Array[];
  space: string;
  served: string;
  tokens: number;
}

export interface Asking {
  model: string;
  role: "query" | "document";
  /** The space that the vectors have to be of; a chain that was changed meanwhile refuses instead of answering in another. */
  space?: string | undefined;
  /** The index of the target that is to answer; null or none for the first that can. */
  target?: number | null;
}

/** Embed texts. Throws ApiError, or AbortError. */
export async function embed(texts: string[], { model, role, space, target = null }: Asking, signal: AbortSignal): Promise<Embedded> {
  const { body, headers } = await answered<{ data: { embedding: string }[]; usage: { total_tokens: number } }>("v1/embeddings", {
    json: { model, input: texts, encoding_format: "base64", input_type: role },
    headers: { ...(space === undefined ? {} : { "x-hf-gateway-space": space }), ...pick(target) },
    signal,
  });
  return {
    rows: body.data.map((each) => floats(each.embedding)),
    space: decodeURIComponent(headers.get("x-hf-gateway-space") ?? ""),
    served: decodeURIComponent(headers.get("x-hf-gateway-served-by") ?? ""),
    tokens: body.usage.total_tokens,
  };
}

/** Return the header that picks one target of a chain; null for the first that can answer. */
export function pick(target: number | null): Record<string, string> {
  return target === null ? {} : { "x-hf-gateway-target": String(target) };
}

function floats(base64: string): Float32Array {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  return new Float32Array(bytes.buffer);
}

export function cosine(one: Float32Array, other: Float32Array): number {
  let product = 0;
  let a = 0;
  let b = 0;
  for (let index = 0; index < one.length; index++) {
    const x = one[index] ?? 0;
    const y = other[index] ?? 0;
    product += x * y;
    a += x * x;
    b += y * y;
  }
  return product / Math.sqrt(a * b || 1);
}
