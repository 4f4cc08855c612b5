import { GatewayError } from "../index.js";
import { askServer, authorization, rootOf, type ServerOptions } from "./space.js";
import type { Kind, Loaded, Reply, Request, Setup, Value } from "./worker.js";

const MAX_THREADS = 4;

export interface ModelOptions extends ServerOptions {
  /** Threads of WebAssembly; by default the processor's, at most 4, in a page that is isolated, and else 1. */
  threads?: number | undefined;
  /** Called while the model is loaded, with bytes. */
  onProgress?: ((loaded: number, total: number) => void) | undefined;
  signal?: AbortSignal | undefined;
}

/** Return what a worker needs to load a model. Throws GatewayError: `runtime_missing` if the server has nothing to run models with. */
export async function setupOf(kind: Kind, model: string, options: ModelOptions): Promise<Setup> {
  const runtime = await askServer("ui/runtime", options, { signal: options.signal });
  if (!runtime.available) throw new GatewayError(runtime.reason, 404, "runtime_missing");
  const root = rootOf(options);
  return {
    kind,
    runtime: new URL("ui/runtime/", root).href,
    files: runtime.files,
    models: new URL("ui/models/", root).href,
    model,
    headers: authorization(options),
    device: "wasm",
    threads: options.threads ?? defaultThreads(),
    dtype: undefined,
  };
}

/** Load a model in a worker of its own, and return what `made` makes of it; the worker is ended if that fails. */
export async function inWorker<Model>(setup: Setup, options: ModelOptions, made: (worker: ModelWorker, loaded: Loaded) => Promise<Model>): Promise<Model> {
  const worker = new ModelWorker(options.onProgress);
  const stop = () => worker.close();
  options.signal?.addEventListener("abort", stop);
  try {
    return await made(worker, (await worker.send({ setup })) as Loaded);
  } catch (error) {
    worker.close();
    options.signal?.throwIfAborted();
    throw error;
  } finally {
    options.signal?.removeEventListener("abort", stop);
  }
}

/** Refuse texts of which one has more tokens than a model takes. Throws GatewayError `too_long`. */
export async function refuseLong(worker: ModelWorker, texts: string[], maxTokens: number): Promise<void> {
  const counts = (await worker.send({ count: texts })) as number[];
  const most = Math.max(0, ...counts);
  if (most > maxTokens) throw new GatewayError(`a text has ${most} tokens, and the model takes ${maxTokens}`, 400, "too_long");
}

const BATCH_TEXTS = 16;

/** Return the network's row for each text, in order. */
export async function rowsOf(worker: ModelWorker, texts: string[], signal: AbortSignal | undefined): Promise<Float32Array[]> {
  // Texts of one length together, since the shorter ones of a batch are filled up.
  const order = texts.map((_, place) => place).sort((a, b) => texts[a]!.length - texts[b]!.length);
  const found: Float32Array[] = new Array(texts.length);
  for (let start = 0; start < order.length; start += BATCH_TEXTS) {
    signal?.throwIfAborted();
    const places = order.slice(start, start + BATCH_TEXTS);
    const rows = (await worker.send({ texts: places.map((place) => texts[place]!) })) as Float32Array[];
    places.forEach((place, index) => (found[place] = rows[index]!));
  }
  return found;
}

function defaultThreads(): number {
  return globalThis.crossOriginIsolated ? Math.min(MAX_THREADS, navigator.hardwareConcurrency || 1) : 1;
}

type Parts<Message> = Message extends { id: number } ? Omit<Message, "id"> : never;

/** The worker that runs a model: each message has an answer. */
export class ModelWorker {
  readonly #worker: Worker;
  readonly #waiting = new Map<number, { resolve: (value: Value) => void; reject: (error: unknown) => void }>();
  #last = 0;
  #ended: string | undefined;

  constructor(onProgress?: (loaded: number, total: number) => void) {
    this.#worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
    this.#worker.onmessage = ({ data }: MessageEvent<Reply>) => {
      if ("progress" in data) return onProgress?.(data.progress.loaded, data.progress.total);
      const { resolve, reject } = this.#waiting.get(data.id)!;
      this.#waiting.delete(data.id);
      if ("error" in data) reject(failed(data.error));
      else resolve(data.value);
    };
    this.#worker.onerror = (event) => this.#end(event.message || "its worker could not be started");
  }

  send(message: Parts<Request>): Promise<Value> {
    if (this.#ended != undefined) return Promise.reject(failed(this.#ended));
    return new Promise((resolve, reject) => {
      const id = ++this.#last;
      this.#waiting.set(id, { resolve, reject });
      this.#worker.postMessage({ ...message, id });
    });
  }

  close(): void {
    this.#end("it was closed");
  }

  #end(reason: string): void {
    this.#ended ??= reason;
    this.#worker.terminate();
    for (const { reject } of this.#waiting.values()) reject(failed(reason));
    this.#waiting.clear();
  }
}

function failed(reason: string): GatewayError {
  return new GatewayError(`the model in this browser failed: ${reason}`, 0, "model_failed");
}
