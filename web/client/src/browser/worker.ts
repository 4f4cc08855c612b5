import { problemOf } from "./space.js";

// Runs a model in a worker, so that the page goes on meanwhile. All that it loads comes from the server that the page names.

/** What a model gives: vectors of texts, labels of texts, or the text of speech. */
export type Kind = "vectors" | "labels" | "speech";

/** What the worker is told before its first text. */
export interface Setup {
  kind: Kind;
  /** Address of the server's runtime, with a slash at its end. */
  runtime: string;
  /** Name of each file of the runtime → its digest. */
  files: Record<string, string>;
  /** Address of the server's models, with a slash at its end. */
  models: string;
  /** Name of the model there. */
  model: string;
  /** Sent with each request for a file of the model. */
  headers: Record<string, string>;
  device: "wasm" | "webgpu";
  threads: number;
  /** The library's name of the weights' type, of a model of the operator's; undefined for what the model's own config.json says. */
  dtype: string | undefined;
}

/** What the worker says of the model that it has loaded. */
export interface Loaded {
  /** Threads that compute. */
  threads: number;
  /** Maximum tokens of a text; those behind are cut. */
  maxTokens: number;
  /** What the server says of the model. */
  about: About;
}

interface About {
  pooling?: "mean" | "cls" | "last_token";
  normalize?: boolean;
  dimension?: number | null;
  /** Names of the labels, in the order of the network's numbers. */
  labels?: string[];
  problem_type?: string | null;
}

/** What was heard. */
export interface Heard {
  text: string;
  /** The ids of the tokens that the model has generated, with the special ones. */
  tokens: number[];
}

export interface Spoken {
  /** Samples at 16 kHz, of at most 30 seconds. */
  samples: Float32Array;
  /** Settings of the generation, such as `language`. */
  settings: Record<string, unknown>;
}

export type Value = Loaded | Float32Array[] | number[] | Heard;
export type Request = { id: number; setup: Setup } | { id: number; texts: string[] } | { id: number; count: string[] } | { id: number; spoken: Spoken };
export type Reply =
  | { id: number; value: Value }
  | { id: number; error: string }
  | { progress: { loaded: number; total: number } };

/** The kind that the library gives to each of a device's files. */
const BUILDS = { wasm: "ort-wasm-simd-threaded", webgpu: "ort-wasm-simd-threaded.asyncify" };

let library: any;
let tokenizer: any;
let network: any;
let features: any;
let about: About;
let maxTokens = Infinity;

async function load({ kind, runtime, files, models, model, headers, device, threads, dtype }: Setup): Promise<Loaded> {
  const address = (name: string) => `${runtime}${name}?v=${files[name]}`;
  library = await import(/* @vite-ignore */ address("transformers.min.js"));
  const { env } = library;
  // Nothing from another host, and no copy that outlives the server's own rules of caching. The library looks for a file only below a path.
  const localModelPath = new URL(models).pathname;
  Object.assign(env, { allowRemoteModels: false, allowLocalModels: true, localModelPath, useBrowserCache: false, useWasmCache: false });
  env.fetch = (path: string, init: RequestInit = {}) => {
    const sent = new Headers(init.headers);
    for (const [name, value] of Object.entries(headers)) sent.set(name, value);
    return fetch(new URL(path, models), { ...init, headers: sent });
  };
  env.backends.onnx.wasm.wasmPaths = { mjs: address(`${BUILDS[device]}.mjs`), wasm: address(`${BUILDS[device]}.wasm`) };
  env.backends.onnx.wasm.numThreads = threads;
  const answer = await env.fetch(`${localModelPath}${model}/config.json`);
  if (!answer.ok) throw problemOf(await answer.json().catch(() => undefined), answer.status);
  const config = await answer.json();
  about = config.hf_gateway ?? {};
  if (kind == "labels" && !about.labels) throw new Error(`'${model}' has no labels: it is not the model of a chain for classification`);
  const progress_callback = ({ status, file, loaded, total }: any) => {
    if (status == "progress" && file.endsWith(".onnx") && total) postMessage({ progress: { loaded, total } } satisfies Reply);
  };
  tokenizer = await library.AutoTokenizer.from_pretrained(model);
  if (kind == "speech") {
    features = await library.AutoFeatureExtractor.from_pretrained(model);
    const wanted = dtype ?? config["transformers.js_config"]?.dtype ?? "fp32";
    network = await library.AutoModelForSpeechSeq2Seq.from_pretrained(model, { dtype: wanted, device, progress_callback });
  } else {
    // Weights become float32 once, when the model is loaded, and not for each text: three times faster for one text.
    const session_options = { extra: { session: { disable_quant_qdq: "1" } } };
    network = await library.AutoModel.from_pretrained(model, { dtype: "q8", device, progress_callback, session_options });
    maxTokens = tokenizer.model_max_length ?? Infinity;
  }
  return { threads: env.backends.onnx.wasm.numThreads, maxTokens, about };
}

/**
 * Return a text's tokens, cut to the model's maximum with the special tokens at their end kept. The library's own cut drops those, which
 * gives another vector.
 */
function encode(text: string): number[] {
  const ids: number[] = tokenizer.encode(text);
  if (!(ids.length > maxTokens)) return ids;
  const special: number[] = tokenizer.encode("");
  let before = 0;
  while (before < special.length && special[before] == ids[before]) before++;
  const behind = special.slice(before);
  return [...ids.slice(0, maxTokens - behind.length), ...behind];
}

/** Return the vectors, or what the network says to each label, of texts that are computed at once. */
async function rowsOf(texts: string[]): Promise<Float32Array[]> {
  const rows = texts.map(encode);
  const longest = Math.max(...rows.map((row) => row.length));
  const [ids, mask] = [new BigInt64Array(rows.length * longest), new BigInt64Array(rows.length * longest)];
  ids.fill(BigInt(tokenizer.pad_token_id ?? 0));
  for (const [text, row] of rows.entries()) {
    row.forEach((id, place) => (ids[text * longest + place] = BigInt(id)));
    mask.fill(1n, text * longest, text * longest + row.length);
  }
  const tensor = (data: BigInt64Array) => new library.Tensor("int64", data, [rows.length, longest]);
  const { last_hidden_state: states, logits } = await network({ input_ids: tensor(ids), attention_mask: tensor(mask) });
  const width: number = (logits ?? states).dims.at(-1);
  if (logits) return rows.map((_, text) => logits.data.slice(text * width, (text + 1) * width));
  return rows.map((row, text) => pooled(states.data, text * longest * width, row.length, width));
}

/** Return the vector of `count` tokens' states of `width` numbers each, which begin at `start`. */
function pooled(states: Float32Array, start: number, count: number, width: number): Float32Array {
  const [first, end] = { mean: [0, count], cls: [0, 1], last_token: [count - 1, count] }[about.pooling!] as [number, number];
  const vector = new Float32Array(width);
  for (let token = first; token < end; token++) {
    for (let index = 0; index < width; index++) vector[index]! += states[start + token * width + index]! / (end - first);
  }
  const kept = about.dimension ? vector.slice(0, about.dimension) : vector;
  if (!about.normalize) return kept;
  const norm = Math.hypot(...kept) || 1;
  return kept.map((each) => each / norm);
}

/** Return what a model for speech hears. */
async function hear({ samples, settings }: Spoken): Promise<Heard> {
  const inputs = await features(samples);
  const found = await network.generate({ ...inputs, ...settings });
  const tokens = [...found.data].map(Number);
  return { text: tokenizer.decode(tokens, { skip_special_tokens: true }), tokens };
}

async function answer(request: Request): Promise<Value> {
  if ("setup" in request) return load(request.setup);
  if ("count" in request) return request.count.map((text) => tokenizer.encode(text).length as number);
  if ("spoken" in request) return hear(request.spoken);
  return rowsOf(request.texts);
}

let last: Promise<unknown> = Promise.resolve();
self.onmessage = ({ data }: MessageEvent<Request>) => {
  // One at a time: the runtime has one session.
  last = last.then(async () => {
    try {
      const value = await answer(data);
      postMessage({ id: data.id, value } satisfies Reply);
    } catch (error) {
      postMessage({ id: data.id, error: error instanceof Error ? error.message : String(error) } satisfies Reply);
    }
  });
};
