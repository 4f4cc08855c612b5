import { Store } from "./store";

/** The server's root: the page lies at `<root>/ui/`, whatever path a proxy serves it under. */
export const ROOT = new URL("../", document.baseURI);

/** A request that has no answer, in the server's words where it gave some. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    readonly retryAfter: number | null = null,
  ) {
    super(message);
  }

  /** Whether nothing answered at all. */
  get offline(): boolean {
    return this.status === 0;
  }
}

/** Return what is thrown as an ApiError. */
export function asError(thrown: unknown): ApiError {
  if (thrown instanceof ApiError) return thrown;
  return new ApiError(-1, "page_failed", `the page failed: ${thrown instanceof Error ? thrown.message : String(thrown)}`);
}

/** Return whether something was thrown because the user stopped it. */
export function isAbort(thrown: unknown): boolean {
  return thrown instanceof DOMException && thrown.name === "AbortError";
}

export interface Sending {
  method?: string;
  json?: unknown;
  headers?: Record<string, string>;
  signal?: AbortSignal | undefined;
}

/** Whether the server answers; false from the first request that nothing answers until one is answered again. */
export const connection = new Store<{ there: boolean }>({ there: true });

/** Called with the problem of a request whose caller is not known any more. */
let signedOut: (error: ApiError) => void = () => undefined;

export function onSignedOut(notify: (error: ApiError) => void): void {
  signedOut = notify;
}

const UNREACHABLE = "the server does not answer; it may have been stopped, or the network is gone";
const POLL_MS = 1000;

/** Send a request; the answer is one with a good status. Throws ApiError, or AbortError. */
export async function send(path: string, sending: Sending = {}): Promise<Response> {
  const headers = new Headers(sending.headers);
  if (sending.json !== undefined) headers.set("content-type", "application/json");
  let response: Response;
  try {
    response = await fetch(new URL(path, ROOT), {
      method: sending.method ?? (sending.json === undefined ? "GET" : "POST"),
      headers,
      body: sending.json === undefined ? null : JSON.stringify(sending.json),
      signal: sending.signal ?? null,
      credentials: "same-origin",
      cache: "no-store",
    });
  } catch (thrown) {
    if (isAbort(thrown)) throw thrown;
    lose();
    throw new ApiError(0, "unreachable", UNREACHABLE);
  }
  if (!connection.value.there) connection.set({ there: true });
  if (response.ok) return response;
  const error = await problemOf(response);
  if (response.status === 401 && !headers.has("authorization")) signedOut(error);
  throw error;
}

/** Send a request and return the body of its answer. */
export async function ask<T>(path: string, sending: Sending = {}): Promise<T> {
  return (await answered<T>(path, sending)).body;
}

/** Send a request and return the body and the headers of its answer. */
export async function answered<T>(path: string, sending: Sending = {}): Promise<{ body: T; headers: Headers }> {
  const response = await send(path, sending);
  try {
    return { body: (await response.json()) as T, headers: response.headers };
  } catch (thrown) {
    if (isAbort(thrown)) throw thrown;
    throw new ApiError(0, "broken", "the answer broke off before its end");
  }
}

/** Yield the data of each event of a stream. Throws ApiError if the connection breaks. */
export async function* events(response: Response): AsyncGenerator<string> {
  if (response.body === null) throw new ApiError(0, "broken", "the answer has no body");
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const parts = (rest + value).split(/\r?\n\r?\n/);
      rest = parts.pop() ?? "";
      for (const part of parts) {
        const data = part.split(/\r?\n/).filter((line) => line.startsWith("data:"));
        if (data.length > 0) yield data.map((line) => line.slice(5).trimStart()).join("\n");
      }
    }
  } catch (thrown) {
    if (isAbort(thrown)) throw thrown;
    lose();
    throw new ApiError(0, "broken", "the connection to the server broke off in the middle of the answer");
  } finally {
    reader.cancel().catch(() => undefined);
  }
}

/** Return the problem that an answer's body has, in any of the forms of the server's surfaces. */
async function problemOf(response: Response): Promise<ApiError> {
  const wait = Number(response.headers.get("retry-after"));
  const retryAfter = Number.isFinite(wait) && wait > 0 ? wait : null;
  try {
    const body = (await response.json()) as { error?: unknown; code?: unknown };
    const held = body.error;
    if (typeof held === "string") return new ApiError(response.status, String(body.code ?? "error"), held, retryAfter);
    if (typeof held === "object" && held !== null && "message" in held) {
      const { message, code } = held as { message: unknown; code?: unknown };
      return new ApiError(response.status, String(code ?? "error"), String(message), retryAfter);
    }
  } catch {
    // Not of this server: a proxy's own page.
  }
  const words = `something between this page and the server answered with the status ${response.status}`;
  return new ApiError(response.status, "foreign", words, retryAfter);
}

/** Ask whether the server answers, after something failed that was no request of this module. */
export async function isThere(): Promise<boolean> {
  try {
    await send("livez");
  } catch (thrown) {
    return !asError(thrown).offline;
  }
  return true;
}

function lose(): void {
  if (!connection.value.there) return;
  connection.set({ there: false });
  void wait();
}

/** Ask until the server is there again. */
async function wait(): Promise<void> {
  while (!connection.value.there) {
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    try {
      const response = await fetch(new URL("livez", ROOT), { cache: "no-store" });
      if (response.ok) connection.set({ there: true });
    } catch {
      // Not yet.
    }
  }
}
