import { ApiError, asError, ask, connection, onSignedOut } from "./api";
import { Store } from "./store";

export interface Who {
  needs_key: boolean;
  key: string | null;
  tenant: string | null;
  scopes: string[];
  chains: string[] | null;
}

export type Session =
  | { kind: "loading" }
  | { kind: "out"; ended: string | null }
  | { kind: "in"; who: Who }
  | { kind: "failed"; error: ApiError };

export const session = new Store<Session>({ kind: "loading" });

onSignedOut((error) => {
  // Who was signed in is told why that is over; who never was is only asked for a key.
  const before = session.value;
  const ended = before.kind === "in" ? `You were signed out: ${error.message}.` : null;
  if (before.kind !== "out") session.set({ kind: "out", ended });
});

connection.watch(() => {
  if (connection.value.there && session.value.kind === "failed") void whoAmI();
});

/** Ask the server who is signed in. */
export async function whoAmI(): Promise<void> {
  try {
    session.set({ kind: "in", who: await ask<Who>("ui/session", { method: "POST" }) });
  } catch (thrown) {
    const error = asError(thrown);
    if (error.status !== 401) session.set({ kind: "failed", error });
    else if (session.value.kind !== "out") session.set({ kind: "out", ended: null });
  }
}

/** Exchange a key or token for the cookie. Throws ApiError. */
export async function signIn(credential: string): Promise<void> {
  const headers = { authorization: `Bearer ${credential.trim()}` };
  session.set({ kind: "in", who: await ask<Who>("ui/session", { method: "POST", headers }) });
}

export async function signOut(): Promise<void> {
  try {
    await fetch(new URL("../ui/session", document.baseURI), { method: "DELETE", credentials: "same-origin" });
  } finally {
    session.set({ kind: "out", ended: null });
    void whoAmI();
  }
}
