import { GatewayError } from "../index.js";
import { inWorker, type ModelOptions, type ModelWorker, refuseLong, rowsOf, setupOf } from "./model-worker.js";
import { type Agreement, compareSpaces, measuredSpace, type MeasuredSpace, type Role } from "./space.js";
import type { Setup } from "./worker.js";

export interface LoadOptions extends ModelOptions {
  /** A chain of the server with a `local` target, or its model; by default the server's first chain of vectors. */
  model?: string | undefined;
  /** `auto` takes WebGPU where there is one and its vectors are of the space, and else WebAssembly; by default `wasm`. */
  device?: "wasm" | "webgpu" | "auto" | undefined;
  /** Cut texts that are longer than the model takes, as chains with `truncate` do; by default they are refused. */
  truncate?: boolean | undefined;
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
    const setup = await setupOf("vectors", measured.chain, options);
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
    return inWorker(setup, options, async (worker, loaded) => {
      const rows = await canaryRows(worker, measured);
      const agreement = compareSpaces(measured.rows, rows);
      if (agreement.fault) {
        throw new GatewayError(`the model in this browser is not of the space '${measured.id}': ${agreement.fault}; no vector of it is used`, 412, "space_mismatch");
      }
      return new BrowserEmbedder(worker, measured, setup.device, loaded.threads, loaded.maxTokens, options.truncate ?? false, agreement, refused);
    });
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
    if (!this.truncate) await refuseLong(this.#worker, prompted, this.maxTokens);
    return rowsOf(this.#worker, prompted, signal);
  }

  /** End the worker, and free the model's memory. */
  close(): void {
    this.#worker.close();
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

async function hasWebGpu(): Promise<boolean> {
  const gpu = (navigator as { gpu?: { requestAdapter(): Promise<unknown> } }).gpu;
  return !!(await gpu?.requestAdapter().catch(() => undefined));
}
