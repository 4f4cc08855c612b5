import { usd } from "../format";

/** The parts of a price with their units, by the names of `/admin/models`. */
export const PARTS = {
  input: "USD a million input tokens",
  output: "USD a million output tokens",
  cached: "USD a million cached tokens",
  image: "USD an image",
  second: "USD a second",
  document: "USD a document",
} as const;
export type Part = keyof typeof PARTS;

const UNITS: Record<Part, string> = {
  input: "per 1M in",
  output: "per 1M out",
  cached: "per 1M cached",
  image: "an image",
  second: "a second",
  document: "a document",
};

/** The parts by the names of `/v1/models`. */
const OF_CHAINS: Record<string, Part> = {
  input_usd_per_million_tokens: "input",
  output_usd_per_million_tokens: "output",
  cached_input_usd_per_million_tokens: "cached",
  usd_per_image: "image",
  usd_per_second: "second",
  usd_per_document: "document",
};

/** The tasks with the parts that a price of theirs can have. */
export const TASKS: Record<string, { title: string; parts: Part[] }> = {
  "text-generation": { title: "Chat", parts: ["input", "output", "cached", "second"] },
  "feature-extraction": { title: "Embeddings", parts: ["input", "second"] },
  "text-ranking": { title: "Reranking", parts: ["input", "document", "second"] },
  "text-to-image": { title: "Images", parts: ["image", "second", "input", "output"] },
  "text-classification": { title: "Labels", parts: ["input", "document", "image", "second"] },
  sparse: { title: "Sparse vectors", parts: ["input", "second"] },
};

/** A row of the catalogue. */
export interface PriceRow {
  model: string;
  task: string;
  provider: string | null;
  usd: Record<Part, string | null>;
  context_length: number | null;
  source: string;
  pinned: boolean;
  fetched_at: string | null;
}

/** Return a price in words; what is not known is not 0. */
export function priceWords(price: Partial<Record<Part, string | number | null>>): string {
  const known = (Object.keys(UNITS) as Part[]).filter((part) => price[part] != null);
  if (known.length === 0) return "unknown";
  if (known.every((part) => Number(price[part]) === 0)) return "free";
  return known.map((part) => `${Number(price[part]) === 0 ? "$0" : usd(Number(price[part]))} ${UNITS[part]}`).join(", ");
}

/** Return the price of a chain's first target in words. */
export function chainPrice(price: Record<string, number> | undefined): string {
  return priceWords(Object.fromEntries(Object.entries(price ?? {}).flatMap(([name, value]) => (OF_CHAINS[name] === undefined ? [] : [[OF_CHAINS[name], value]]))));
}
