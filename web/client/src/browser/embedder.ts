import { GatewayError } from "../index.js";
import { type Agreement, askServer, authorization, compareSpaces, measuredSpace, type MeasuredSpace, type Role, rootOf, type ServerOptions } from "./space.js";
import type { Loaded, Reply, Request, Setup } from "./worker.js";

const BATCH_TEXTS = 16;
const MAX_THREADS = 4;

export interface LoadOptions extends ServerOptions {
  /** A chain of the server with a `local` target, or its model; by default the server's first chain of vectors. */
  model?: string | undefined;
  /** `auto` takes WebGPU where there is one and its vectors are of the space, and else WebAssembly; by default `wasm`. */
  device?: "wasm" | "webgpu" | "auto" | undefined;
  /** Threads of WebAssembly; by default the processor's, at most 4, in a page that is isolated, and else 1. */
  threads?: number | undefined;
  /** Cut texts that are longer than the model takes, as chains with `truncate` do; by default they are refused. */
  truncate?: boolean | undefined;
  /** Called while the model is loaded, with bytes. */
  onProgress?: ((loaded: number, total: number) => void) | undefined;
  signal?: AbortSignal | undefined;
}

export interface BrowserEmbedOptions {
  /** `query` for texts that are searched for. */
  inputType?: Role | undefined;
  signal?: AbortSignal | undefined;
}

/** A model of the server that runs in this browser, and whose vectors are of the server's space: that was measured before its first use. */
export class BrowserEmbedder {
  readonly #worker: ModelWorker;
  readonly #measured: MeasuredSpace;

  private constructor(
    worker: ModelWorker,
    measured: MeasuredSpace,
    /** What computes. */
    readonly device: "wasm" | "webgpu",
    /** Threads that compute. */
    readonly threads: number,
    /** Maximum tokens of a text. */
    readonly maxTokens: number,
    /** Whether texts that are longer are cut. */
    readonly truncate: boolean,
    /** How near its vectors of the canary texts are to the server's. */
    readonly agreement: Agreement,
    /** Why WebGPU does not compute, if it was asked for. */
    readonly refused: string | undefined,
  ) {
    this.#worker = worker;
    this.#measured = measured;
  }

  /**
   * Load a model, and compare its vectors with the server's. Throws GatewayError: `runtime_missing` if the server has nothing to run
   * models with, `space_mismatch` if the vectors are not of its space, `model_failed` if it cannot be loaded.
   */
  static async load(options: LoadOptions = {}): Promise<BrowserEmbedder> {
    const measured = await measuredSpace(options.model, options, options.signal);
    const runtime = await askServer("ui/runtime", options, { signal: options.signal });
    if (!runtime.available) throw new GatewayError(runtime.reason, 404, "runtime_missing");
    const root = rootOf(options);
    const setup = {
      runtime: new URL("ui/runtime/", root).href,
      files: runtime.files,
      models: new URL("ui/models/", root).href,
      model: measured.chain,
      headers: authorization(options),
      threads: options.threads ?? defaultThreads(),
    };
    const wanted = options.device ?? "wasm";
    let refused = wanted != "wasm" && !(await hasWebGpu()) ? "this browser has no WebGPU" : undefined;
    if (wanted != "wasm" && !refused) {
      try {
        return await BrowserEmbedder.#checked({ ...setup, device: "webgpu" }, measured, undefined, options);
      } catch (error) {
        if (wanted == "webgpu" || options.signal?.aborted) throw error;
        refused = `WebGPU: ${error instanceof Error ? error.message : String(error)}`;
      }
    }
    if (wanted == "webgpu") throw new GatewayError(refused!, 0, "model_failed");
    return BrowserEmbedder.#checked({ ...setup, device: "wasm" }, measured, refused, options);
  }

  static async #checked(setup: Setup, measured: MeasuredSpace, refused: string | undefined, options: LoadOptions): Promise<BrowserEmbedder> {
    const worker = new ModelWorker(options.onProgress);
    const stop = () => worker.close();
    options.signal?.addEventListener("abort", stop);
    try {
      const loaded = (await worker.send({ setup })) as Loaded;
      const rows = await canaryRows(worker, measured);
      const agreement = compareSpaces(measured.rows, rows);
      if (agreement.fault) {
        throw new GatewayError(`the model in this browser is not of the space '${measured.id}': ${agreement.fault}; no vector of it is used`, 412, "space_mismatch");
      }
      return new BrowserEmbedder(worker, measured, setup.device, loaded.threads, loaded.maxTokens, options.truncate ?? false, agreement, refused);
    } catch (error) {
      worker.close();
      options.signal?.throwIfAborted();
      throw error;
    } finally {
      options.signal?.removeEventListener("abort", stop);
    }
  }

  /** The id of the vector space. */
  get space(): string {
    return this.#measured.id;
  }

  /** The chain of the server that answers in the same space. */
  get chain(): string {
    return this.#measured.chain;
  }

  /** Return the vector of a text. */
  async embed(text: string, options?: BrowserEmbedOptions): Promise<Float32Array> {
    return (await this.embedBatch([text], options))[0]!;
  }

  /** Return a vector for each text, in order. Throws GatewayError `too_long` for a text that is not to be cut. */
  async embedBatch(texts: readonly string[], { inputType = "document", signal }: BrowserEmbedOptions = {}): Promise<Float32Array[]> {
    const prompted = texts.map((text) => this.#measured.prompts[inputType] + text);
    if (!this.truncate) await this.#refuseLong(prompted);
    // Texts of one length together, since the shorter ones of a batch are filled up.
    const order = prompted.map((_, place) => place).sort((a, b) => prompted[a]!.length - prompted[b]!.length);
    const found: Float32Array[] = new Array(texts.length);
    for (let start = 0; start < order.length; start += BATCH_TEXTS) {
      signal?.throwIfAborted();
      const places = order.slice(start, start + BATCH_TEXTS);
      const rows = (await this.#worker.send({ texts: places.map((place) => prompted[place]!) })) as Float32Array[];
      places.forEach((place, index) => (found[place] = rows[index]!));
    }
    return found;
  }

  /** End the worker, and free the model's memory. */
  close(): void {
    this.#worker.close();
  }

  async #refuseLong(texts: string[]): Promise<void> {
    const counts = (await this.#worker.send({ count: texts })) as number[];
    const most = Math.max(0, ...counts);
    if (most > this.maxTokens) throw new GatewayError(`a text has ${most} tokens, and the model takes ${this.maxTokens}`, 400, "too_long");
  }
}

/** Return the model's vectors of the canaries in both roles, one text at a time as the server measures a target's first answer. */
async function canaryRows(worker: ModelWorker, measured: MeasuredSpace): Promise<Partial<MeasuredSpace["rows"]>> {
  const rows: Partial<MeasuredSpace["rows"]> = {};
  const known = new Map<string, Float32Array>();
  for (const role of ["document", "query"] as const) {
    rows[role] = [];
    for (const [place, canary] of measured.canaries.entries()) {
      if (!measured.rows[role][place]) {
        rows[role].push(undefined);
        continue;
      }
      const text = measured.prompts[role] + canary;
      const row = known.get(text) ?? ((await worker.send({ texts: [text] })) as Float32Array[])[0]!;
      known.set(text, row);
      rows[role].push(row);
    }
  }
  return rows;
}

function defaultThreads(): number {
  return globalThis.crossOriginIsolated ? Math.min(MAX_THREADS, navigator.hardwareConcurrency || 1) : 1;
}

async function hasWebGpu(): Promise<boolean> {
  const gpu = (navigator as { gpu?: { requestAdapter(): Promise<unknown> } }).gpu;
  return !!(await gpu?.requestAdapter().catch(() => undefined));
}

type Parts<Message> = Message extends { id: number } ? Omit<Message, "id"> : never;

/** The worker that runs a model: each message has an answer. */
class ModelWorker {
  readonly #worker: Worker;
  readonly #waiting = new Map<number, { resolve: (value: Loaded | Float32Array[] | number[]) => void; reject: (error: unknown) => void }>();
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

  send(message: Parts<Request>): Promise<Loaded | Float32Array[] | number[]> {
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
