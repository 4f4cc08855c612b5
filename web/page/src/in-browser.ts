import type { HybridEmbedder, VectorClient } from "../../client/src/browser";
import { ApiError, ROOT } from "./api";
import { many } from "./format";
import { type Asking, embed, type Embedded } from "./vectors";

/** Vectors, and why the browser or the server computed them. */
export interface Placed extends Embedded {
  why: string;
}

/** The server, as what embeds in this browser asks it. */
class PageServer implements VectorClient {
  space: string | undefined;
  last: Embedded | undefined;

  constructor(readonly model: string) {}

  expectSpace(id: string): void {
    this.space ??= id;
    if (this.space !== id) throw new ApiError(412, "space_mismatch", `the chain's vectors are of the space ${id} now, and were of ${this.space}`);
  }

  async embedBatch(texts: readonly string[], { inputType, signal }: { inputType?: Asking["role"] | undefined; signal?: AbortSignal | undefined }): Promise<Float32Array[]> {
    const asked = { model: this.model, role: inputType ?? "document", space: this.space };
    this.last = await embed([...texts], asked, signal ?? new AbortController().signal);
    this.expectSpace(this.last.space);
    return this.last.rows;
  }
}

interface Pair {
  server: PageServer;
  hybrid: HybridEmbedder;
}

/** What embeds in this browser, for each model; it is kept as long as the page. */
const pairs = new Map<string, Promise<Pair>>();
let report: (words: string) => void = () => undefined;

/**
 * Return vectors of texts that this browser has computed where it could, and else the server, in the same space.
 * `progress` is called with what is done before the first vector.
 */
export async function embedInBrowser(texts: string[], asked: Asking, signal: AbortSignal, progress: (words: string) => void): Promise<Placed> {
  report = progress;
  const made = pairs.get(asked.model) ?? makePair(asked.model);
  pairs.set(asked.model, made);
  made.catch(() => pairs.delete(asked.model));
  const { server, hybrid } = await made;
  if (asked.space !== undefined) server.expectSpace(asked.space);
  const { vectors, space, by, reason } = await hybrid.embedBatch(texts, { inputType: asked.role, signal });
  if (by === "server" && server.last !== undefined) return { ...server.last, why: `not in this browser: ${reason}` };
  const { device, threads } = await hybrid.prepare();
  const served = device === "webgpu" ? "this browser (WebGPU)" : `this browser (WebAssembly, ${many(threads, "thread")})`;
  return { rows: vectors, space, served, why: reason, tokens: 0 };
}

/** Forget what was loaded for a model whose space has changed. */
export function forget(model: string): void {
  const known = pairs.get(model);
  pairs.delete(model);
  known?.then(({ hybrid }) => hybrid.close()).catch(() => undefined);
}

async function makePair(model: string): Promise<Pair> {
  const { BrowserEmbedder, HybridEmbedder } = await import("../../client/src/browser").catch(() => {
    throw new ApiError(0, "unreachable", "the part of the page that runs models cannot be loaded; load the page again");
  });
  const onProgress = (loaded: number, total: number) => report(`Loading the model into this browser: ${Math.round((100 * loaded) / total)} % of ${Math.round(total / 1e6)} MB …`);
  const load = () => {
    report("Loading the model into this browser …");
    return BrowserEmbedder.load({ baseUrl: ROOT.href, model, onProgress });
  };
  const server = new PageServer(model);
  return { server, hybrid: new HybridEmbedder({ client: server, model, load }) };
}
