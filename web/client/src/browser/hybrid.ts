import { GatewayError } from "../index.js";
import type { BrowserEmbedder } from "./embedder.js";
import type { Role } from "./space.js";

const MAX_TEXTS = 64;
const MAX_CHARACTERS = 20_000;
const MIN_MEMORY_GIB = 2;

export type Place = "browser" | "server";

/** What asks the server, such as a GatewayClient. */
export interface VectorClient {
  /** The id of the vector space that it is bound to. */
  readonly space: string | undefined;
  /** Bind it to a space; throws if it is bound to another one. */
  expectSpace(id: string): void;
  /** Return a vector for each text. Throws an error with a `status`, which is 0 if there was no answer. */
  embedBatch(texts: readonly string[], options: { model?: string | undefined; inputType?: Role | undefined; signal?: AbortSignal | undefined }): Promise<Float32Array[]>;
}

export interface HybridOptions {
  /** Asks the server; its vectors have to be of the browser's space. */
  client: VectorClient;
  /** Loads the model into this browser, at the first text that it is asked for. */
  load: () => Promise<BrowserEmbedder>;
  /** The chain of the server, as `load` names it; by default the server's chain for vectors. */
  model?: string | undefined;
  /** Who is asked first; by default the browser. */
  first?: Place | undefined;
  /** Most texts of one call that the browser takes; by default 64. */
  maxTexts?: number | undefined;
  /** Most characters of all texts of one call that the browser takes; by default 20,000. */
  maxCharacters?: number | undefined;
  /** Least memory of the device, in GiB as `navigator.deviceMemory` has it; by default 2. */
  minMemory?: number | undefined;
  /** For `navigator`, of which this reads `deviceMemory` and `onLine`. */
  device?: { deviceMemory?: number; onLine?: boolean } | undefined;
}

export interface Routed {
  vectors: Float32Array[];
  /** The id of their vector space. */
  space: string;
  /** Who computed them. */
  by: Place;
  /** Why, in words for people. */
  reason: string;
}

/**
 * Embeds texts in the browser or on the server, in one vector space: the one is asked first, the other where the first may not or cannot.
 */
export class HybridEmbedder {
  readonly #options: HybridOptions;
  #loading: Promise<BrowserEmbedder> | undefined;
  /** Why the browser's model cannot be used: that it is of another space does not change by trying again. */
  #refused: string | undefined;

  constructor(options: HybridOptions) {
    this.#options = options;
  }

  /** The id of the vector space; undefined before the first answer. */
  get space(): string | undefined {
    return this.#options.client.space;
  }

  /** Return the vectors of texts, who computed them, and why. Throws the error of the last that was asked. */
  async embedBatch(texts: readonly string[], { inputType = "document", signal }: { inputType?: Role | undefined; signal?: AbortSignal | undefined } = {}): Promise<Routed> {
    const first = this.#options.first ?? "browser";
    const against = this.#againstBrowser(texts);
    if (against) return this.#onServer(texts, inputType, signal, against);
    if (first == "browser") {
      try {
        return await this.#inBrowser(texts, inputType, signal, "the browser is asked first");
      } catch (error) {
        if (signal?.aborted) throw error;
        return this.#onServer(texts, inputType, signal, message(error));
      }
    }
    if ((this.#options.device ?? navigator).onLine === false) {
      return this.#inBrowser(texts, inputType, signal, "this device is offline");
    }
    try {
      return await this.#onServer(texts, inputType, signal, "the server is asked first");
    } catch (error) {
      if (signal?.aborted || !isServers(error)) throw error;
      return await this.#inBrowser(texts, inputType, signal, message(error));
    }
  }

  /** Load the model now, so that the first text need not wait for it. */
  async prepare(): Promise<BrowserEmbedder> {
    if (this.#refused) throw new GatewayError(this.#refused, 412, "space_mismatch");
    this.#loading ??= this.#options.load();
    try {
      const loaded = await this.#loading;
      this.#options.client.expectSpace(loaded.space);
      return loaded;
    } catch (error) {
      this.#loading = undefined;
      if (error instanceof GatewayError && error.code == "space_mismatch") this.#refused = error.message;
      throw error;
    }
  }

  /** End the browser's model, and free its memory; it is loaded again when it is needed. */
  close(): void {
    this.#loading?.then((loaded) => loaded.close()).catch(() => undefined);
    this.#loading = undefined;
  }

  /** Return why the browser does not take these texts, or undefined if it may. */
  #againstBrowser(texts: readonly string[]): string | undefined {
    const { maxTexts = MAX_TEXTS, maxCharacters = MAX_CHARACTERS, minMemory = MIN_MEMORY_GIB, device = navigator as { deviceMemory?: number } } = this.#options;
    const characters = texts.reduce((sum, text) => sum + text.length, 0);
    if (this.#refused) return this.#refused;
    if (typeof WebAssembly == "undefined" || typeof Worker == "undefined") return "this browser cannot run models: it has no WebAssembly or no workers";
    if (device.deviceMemory != undefined && device.deviceMemory < minMemory) return `this device has ${device.deviceMemory} GiB of memory, and the model is loaded from ${minMemory} GiB`;
    if (texts.length > maxTexts) return `${texts.length} texts are more than the ${maxTexts} that the browser takes at once`;
    if (characters > maxCharacters) return `${characters} characters are more than the ${maxCharacters} that the browser takes at once`;
    return undefined;
  }

  async #inBrowser(texts: readonly string[], inputType: Role, signal: AbortSignal | undefined, reason: string): Promise<Routed> {
    const browser = await untilAborted(this.prepare(), signal);
    const vectors = await browser.embedBatch(texts, { inputType, signal });
    return { vectors, space: browser.space, by: "browser", reason };
  }

  async #onServer(texts: readonly string[], inputType: Role, signal: AbortSignal | undefined, reason: string): Promise<Routed> {
    const { client, model } = this.#options;
    const vectors = await client.embedBatch(texts, { inputType, signal, model });
    return { vectors, space: client.space!, by: "server", reason };
  }
}

/** Return whether another place may answer where the server did not. */
function isServers(error: unknown): boolean {
  const status = (error as { status?: unknown } | null)?.status;
  return typeof status == "number" && (status == 0 || status == 429 || status >= 500);
}

function message(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Wait for work that others may wait for, too, and no longer than until the signal. */
function untilAborted<Result>(work: Promise<Result>, signal: AbortSignal | undefined): Promise<Result> {
  if (!signal) return work;
  return new Promise((resolve, reject) => {
    const leave = () => reject(signal.reason);
    if (signal.aborted) leave();
    signal.addEventListener("abort", leave);
    work.then(resolve, reject).finally(() => signal.removeEventListener("abort", leave));
  });
}
