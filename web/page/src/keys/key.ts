import { count } from "../format";

/** A key without its secret, as `/admin/keys` shows it. */
export interface Key {
  id: string;
  name: string;
  tenant: string | null;
  scopes: string[];
  chains: string[] | null;
  requests_per_minute: number | null;
  tokens_per_minute: number | null;
  parallel: number | null;
  created: string;
  expires: string | null;
  revoked: string | null;
  previous_until: string | null;
}

/** A key with its secret, which is in one answer only. */
export interface NewKey extends Key {
  key: string;
}

/** What a key may do, with what that is in words; a new key gets those of the tasks unless others are chosen. */
export const SCOPES = {
  embed: "vectors of texts",
  chat: "answers of models",
  rerank: "order of passages",
  image: "pictures",
  classify: "labels",
  read: "models, health, the usage of its tenant; signing in here",
  metrics: "counters for monitoring",
  "any-model": "models that no chain has",
  admin: "keys, prices, everybody's usage",
} as const;
export const USUAL: readonly string[] = ["embed", "chat", "rerank", "image", "classify", "read"];

export const LIMITS = {
  requests_per_minute: "Requests a minute",
  tokens_per_minute: "Tokens a minute",
  parallel: "Requests at one time",
} as const;

/** Return whether a key is accepted now, and the word for it. */
export function stateOf(key: Key): { ends: boolean; word: string; tone: "good" | "bad" | "warn" } {
  if (key.revoked !== null) return { ends: true, word: "Revoked", tone: "bad" };
  if (key.expires !== null && Date.parse(key.expires) <= Date.now()) return { ends: true, word: "Expired", tone: "warn" };
  return { ends: false, word: "Valid", tone: "good" };
}

/** Return the limits of a key in words; empty if it has none. */
export function limits(key: Key): string {
  return Object.entries(LIMITS)
    .flatMap(([name, title]) => {
      const value = key[name as keyof typeof LIMITS];
      return value === null ? [] : [`${count(value)} ${title.toLowerCase()}`];
    })
    .join(", ");
}
