import { inWorker, type ModelOptions, type ModelWorker, setupOf } from "./model-worker.js";
import type { Heard } from "./worker.js";

/** Samples in a second of what a model hears. */
const RATE = 16_000;
/** Seconds that a model hears at once. */
const WINDOW_S = 30;

export interface TranscribeOptions extends ModelOptions {
  /** The name of a model in the server's `[server.browser_models]`. */
  model: string;
  /** The type of the weights, by transformers.js' names; by default what the model's config.json says, and else `fp32`. */
  dtype?: string | undefined;
}

export interface SpeechOptions {
  /** The language that is spoken, such as `fr`; a model for many languages takes it for English without. */
  language?: string | undefined;
  /** `translate` into English. */
  task?: "transcribe" | "translate" | undefined;
  /** Most tokens of each 30 seconds; by default the model's own limit. */
  maxNewTokens?: number | undefined;
  signal?: AbortSignal | undefined;
}

/**
 * A Whisper model of the operator's that hears in this browser; the sound does not leave it.
 * @experimental What it hears was compared with Python for a model of random weights alone.
 */
export class BrowserTranscriber {
  readonly #worker: ModelWorker;

  private constructor(worker: ModelWorker) {
    this.#worker = worker;
  }

  /** Load a model. Throws GatewayError: `runtime_missing` if the server has nothing to run models with, `model_failed` if it cannot be loaded. */
  static async load(options: TranscribeOptions): Promise<BrowserTranscriber> {
    const setup = { ...(await setupOf("speech", options.model, options)), dtype: options.dtype };
    return inWorker(setup, options, async (worker) => new BrowserTranscriber(worker));
  }

  /**
   * Return the text of speech.
   * @param sound samples at 16 kHz between -1 and 1, or a file of a kind that the browser plays. Each 30 seconds are heard by themselves.
   */
  async transcribe(sound: Float32Array | Blob, { language, task, maxNewTokens, signal }: SpeechOptions = {}): Promise<Heard> {
    const samples = sound instanceof Float32Array ? sound : await samplesOf(sound);
    const wanted = { language, task, max_new_tokens: maxNewTokens };
    const settings = Object.fromEntries(Object.entries(wanted).filter(([, value]) => value != undefined));
    const heard: Heard[] = [];
    for (let start = 0; start < samples.length; start += RATE * WINDOW_S) {
      signal?.throwIfAborted();
      const part = samples.slice(start, start + RATE * WINDOW_S);
      heard.push((await this.#worker.send({ spoken: { samples: part, settings } })) as Heard);
    }
    return { text: heard.map(({ text }) => text.trim()).join(" "), tokens: heard.flatMap(({ tokens }) => tokens) };
  }

  /** End the worker, and free the model's memory. */
  close(): void {
    this.#worker.close();
  }
}

/** Return the samples of a file of sound: all its channels in one, at 16 kHz. */
async function samplesOf(file: Blob): Promise<Float32Array> {
  const decoded = await new OfflineAudioContext(1, 1, RATE).decodeAudioData(await file.arrayBuffer());
  const mixed = new Float32Array(decoded.length);
  for (let channel = 0; channel < decoded.numberOfChannels; channel++) {
    decoded.getChannelData(channel).forEach((each, place) => (mixed[place]! += each / decoded.numberOfChannels));
  }
  return mixed;
}
