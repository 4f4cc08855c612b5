import type { paths } from "./openapi.js";

type Body<Path extends keyof paths> = paths[Path] extends {
  post: { requestBody: { content: { "application/json": infer Content } } };
}
  ? Content
  : never;
type Result<Path extends keyof paths, Method extends "get" | "post"> = paths[Path] extends {
  [Name in Method]: { responses: { 200: { content: { "application/json": infer Content } } } };
}
  ? Content
  : never;
type Optional<Fields> = { [Name in keyof Fields]?: Fields[Name] | undefined };

export type Model = Result<"/v1/models", "get">["data"][number];
export type Status = Result<"/huggingface/status", "get">;
export type Ranked = Result<"/v1/rerank", "post">["results"][number];
export type Message = Body<"/v1/chat/completions">["messages"][number];

export interface GatewayOptions {
  /** Address of the server, with its root path if it has one; in a page by default the page's own server. */
  baseUrl?: string | undefined;
  /** A key of the server. Never put one into a page: sign in there, or let the page ask a server of yours. */
  apiKey?: string | undefined;
  /** The id of the only vector space whose vectors are taken; by default that of the first answer. */
  expectSpace?: string | undefined;
  /** Names that `generateEmbedding` tries in this order; by default `hf`, `ollama`, `hash`. */
  chains?: readonly string[] | undefined;
  /** By default the `fetch` of the platform. */
  fetch?: typeof fetch | undefined;
}

export interface CallOptions {
  /** A chain of the server, a model or an alias; by default the server's chain of the task. */
  model?: string | undefined;
  signal?: AbortSignal | undefined;
}

export interface EmbedOptions extends CallOptions {
  /** `query` for texts that are searched for. */
  inputType?: "query" | "document" | undefined;
}

export interface RerankOptions extends CallOptions, Optional<Omit<Body<"/v1/rerank">, "query" | "documents" | "model">> {}

export interface ChatOptions
  extends CallOptions,
    Optional<Omit<Body<"/v1/chat/completions">, "messages" | "model" | "stream" | "stream_options" | "n">> {}

export interface ToolCall {
  id: string;
  name: string;
  /** JSON, as the model wrote it. */
  arguments: string;
}

export interface Usage {
  prompt_tokens: number;
  completion_tokens: number;
  total_tokens: number;
}

/** A piece of an answer, or its end. */
export type ChatEvent =
  | { text: string; done: false }
  | { text: ""; done: true; finish: string | undefined; toolCalls: ToolCall[]; usage: Usage | undefined };

/** What the server answered instead of a result, or why there was no answer. */
export class GatewayError extends Error {
  override readonly name = "GatewayError";

  constructor(
    message: string,
    /** Status of the answer; 0 if there was none, 200 if a stream broke off. */
    readonly status: number,
    /** A short name: the server's own, or `unreachable`, `cut`, `not_json`, `space_mismatch`. */
    readonly code: string,
    /** The text of a chat that was received before. */
    readonly partial = "",
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}

const decode = (base64: string): Float32Array =>
  new Float32Array(Uint8Array.from(atob(base64), (char) => char.charCodeAt(0)).buffer);

/** Return the error of an error body: `{"error": {...}}`, `{"error": "...", ...}`, or anything else. */
const failure = (body: any, status: number, partial = ""): GatewayError => {
  const error = body?.error ?? body;
  return new GatewayError(
    error?.message ?? (typeof error == "string" ? error : `the server answered with status ${status}`),
    status,
    error?.code ?? body?.code ?? error?.type ?? "unknown",
    partial,
  );
};

/** A client of one server, whose vectors are all of one vector space. It sends each request once. */
export class GatewayClient {
  readonly #base: string;
  readonly #key: string | undefined;
  readonly #chains: readonly string[];
  readonly #fetch: typeof fetch;
  #space: string | undefined;
  /** Settled when the first request for vectors is over: until then the space is not known. */
  #first: Promise<unknown> | undefined;

  constructor(options: GatewayOptions = {}) {
    this.#base = (options.baseUrl ?? "").replace(/\/+$/, "");
    this.#key = options.apiKey;
    this.#chains = options.chains ?? ["hf", "ollama", "hash"];
    this.#fetch = options.fetch ?? ((...args) => fetch(...args));
    this.#space = options.expectSpace;
  }

  /** The id of the vector space to which this client is bound; undefined before the first answer. */
  get space(): string | undefined {
    return this.#space;
  }

  /** Bind this client to a vector space; throws if it is bound to another one. */
  expectSpace(id: string): void {
    this.#check(id);
  }

  /** Return the vector of a text. */
  async embed(text: string, options?: EmbedOptions): Promise<Float32Array> {
    return (await this.embedBatch([text], options))[0]!;
  }

  /** Return a vector for each text, in order. */
  async embedBatch(texts: readonly string[], { model, inputType, signal }: EmbedOptions = {}): Promise<Float32Array[]> {
    if (!texts.length) return [];
    const body = { model, input: texts, input_type: inputType, encoding_format: "base64" };
    const answer: Result<"/v1/embeddings", "post"> = await this.#vectors("/v1/embeddings", body, signal);
    return answer.data.map((each) => decode(each.embedding as string));
  }

  /** Return the vector of a text as numbers. */
  generateHuggingFaceEmbedding = async (text: string, { model, signal }: CallOptions = {}): Promise<number[]> => {
    const body = { text, model };
    const answer: Result<"/huggingface/embedding", "post"> = await this.#vectors("/huggingface/embedding", body, signal);
    return answer.embedding;
  };

  /** Return the vector of a text by the first of `chains` that answers in the vector space of this client. */
  generateEmbedding = async (text: string, signal?: AbortSignal): Promise<number[]> => {
    let reason: unknown;
    for (const model of this.#chains) {
      try {
        return await this.generateHuggingFaceEmbedding(text, { model, signal });
      } catch (error) {
        const status = error instanceof GatewayError ? error.status : 400;
        // What the caller has to mend is no reason to ask another chain; a name that the server lacks tells the least.
        if (status && status < 500 && ![404, 412, 429].includes(status)) throw error;
        if (!reason || status != 404) reason = error;
      }
    }
    throw reason ?? new GatewayError("no chain to ask: `chains` is empty", 0, "no_chains");
  };

  /** Return documents in the order of their relevance, with scores. */
  async rerank(query: string, documents: readonly string[], { signal, ...more }: RerankOptions = {}): Promise<Ranked[]> {
    const answer = await this.#json("/v1/rerank", { query, documents, ...more }, signal);
    return answer.results;
  }

  /** Return the chains and aliases that the caller may use. */
  async models(signal?: AbortSignal): Promise<Model[]> {
    return (await this.#json("/v1/models", undefined, signal)).data;
  }

  /** Return which targets may be called now, and why the others may not. */
  async status(signal?: AbortSignal): Promise<Status> {
    return this.#json("/huggingface/status", undefined, signal);
  }

  /** Yield an answer as it is written; leaving the loop closes the connection, and the server stops its work. */
  async *chat(
    messages: string | readonly Message[],
    { signal, ...more }: ChatOptions = {},
  ): AsyncGenerator<ChatEvent, void, undefined> {
    const body = {
      ...more,
      messages: typeof messages == "string" ? [{ role: "user", content: messages }] : messages,
      stream: true,
      stream_options: { include_usage: true },
    };
    const answer = await this.#send("/v1/chat/completions", body, signal);
    const reader = answer.body!.getReader();
    const decoder = new TextDecoder();
    const toolCalls: ToolCall[] = [];
    let [rest, text, finish, usage] = ["", "", undefined as string | undefined, undefined as Usage | undefined];
    try {
      for (;;) {
        const { done, value } = await reader.read().catch((error) => {
          if (signal?.aborted) throw error;
          throw new GatewayError("the connection broke off", 200, "cut", text, { cause: error });
        });
        if (done) throw new GatewayError("the answer ended before its end", 200, "cut", text);
        const lines = (rest + decoder.decode(value, { stream: true })).split(/\r?\n/);
        rest = lines.pop()!;
        for (const line of lines) {
          signal?.throwIfAborted();
          if (!line.startsWith("data:")) continue;
          const data = line.slice(5).trim();
          if (data == "[DONE]") return yield { text: "", done: true, finish, toolCalls, usage };
          const event = JSON.parse(data);
          if (event.error) throw failure(event, 200, text);
          usage = event.usage ?? usage;
          const choice = event.choices?.[0];
          finish = choice?.finish_reason ?? finish;
          for (const part of choice?.delta?.tool_calls ?? []) {
            const call = (toolCalls[part.index] ??= { id: "", name: "", arguments: "" });
            call.id ||= part.id ?? "";
            call.name += part.function?.name ?? "";
            call.arguments += part.function?.arguments ?? "";
          }
          const piece = choice?.delta?.content;
          if (piece) {
            text += piece;
            yield { text: piece, done: false };
          }
        }
      }
    } finally {
      reader.cancel().catch(() => {});
    }
  }

  /** Send a request for vectors: of those at the same time the first alone, since its answer says which space the others take. */
  async #vectors(path: string, body: object, signal: AbortSignal | undefined): Promise<any> {
    while (!this.#space && this.#first) await this.#first;
    const work = this.#json(path, body, signal, this.#space);
    if (!this.#space) this.#first = work.then(() => {}, () => {}).then(() => (this.#first = undefined));
    return work;
  }

  #check(id: string): void {
    this.#space ??= id;
    if (id != this.#space) {
      throw new GatewayError(`vectors of the space '${id}' came, and this client's are of '${this.#space}'`, 412, "space_mismatch");
    }
  }

  async #json(path: string, body: object | undefined, signal: AbortSignal | undefined, space?: string): Promise<any> {
    const answer = await this.#send(path, body, signal, space);
    const found = answer.headers.get("x-hf-gateway-space");
    const content = await this.#parse(answer, signal);
    if (found && path.includes("embedding")) this.#check(found);
    return content;
  }

  async #send(path: string, body: object | undefined, signal: AbortSignal | undefined, space?: string): Promise<Response> {
    const headers: Record<string, string> = {};
    if (body) headers["content-type"] = "application/json";
    if (this.#key) headers.authorization = `Bearer ${this.#key}`;
    if (space) headers["x-hf-gateway-space"] = space;
    const init = { method: body ? "POST" : "GET", headers, body: body ? JSON.stringify(body) : null, signal: signal ?? null };
    const answer = await this.#fetch.call(undefined, this.#base + path, init).catch((error: unknown) => {
      if (signal?.aborted) throw error;
      throw new GatewayError(`no answer from ${this.#base || "the server of this page"}; is it running?`, 0, "unreachable", "", {
        cause: error,
      });
    });
    if (!answer.ok) throw failure(await answer.json().catch(() => undefined), answer.status);
    return answer;
  }

  #parse(answer: Response, signal: AbortSignal | undefined): Promise<any> {
    return answer.json().catch((error: unknown) => {
      if (signal?.aborted) throw error;
      throw new GatewayError("the answer is not JSON; is this address an hf-gateway server's?", answer.status, "not_json", "", {
        cause: error,
      });
    });
  }
}
