import { inWorker, type ModelOptions, type ModelWorker, refuseLong, rowsOf, setupOf } from "./model-worker.js";
import type { Loaded } from "./worker.js";

export interface ClassifyOptions extends ModelOptions {
  /** A chain of the server for labels with a `local` target, or its model. */
  model: string;
  /** Cut texts that are longer than the model takes, as chains with `truncate` do; by default they are refused. */
  truncate?: boolean | undefined;
}

export interface Label {
  label: string;
  /** Between 0 and 1; for a model that estimates a number, that number. */
  score: number;
}

/** A model of the server that gives texts its labels in this browser, with the scores of the server's own engine. */
export class BrowserClassifier {
  readonly #worker: ModelWorker;
  readonly #loaded: Loaded;
  readonly #truncate: boolean;

  private constructor(worker: ModelWorker, loaded: Loaded, truncate: boolean) {
    this.#worker = worker;
    this.#loaded = loaded;
    this.#truncate = truncate;
  }

  /** Load a model. Throws GatewayError: `runtime_missing` if the server has nothing to run models with, `model_failed` if it cannot be loaded. */
  static async load(options: ClassifyOptions): Promise<BrowserClassifier> {
    const setup = await setupOf("labels", options.model, options);
    return inWorker(setup, options, async (worker, loaded) => new BrowserClassifier(worker, loaded, options.truncate ?? false));
  }

  /** The names of the labels. */
  get labels(): readonly string[] {
    return this.#loaded.about.labels!;
  }

  /** Return the labels of a text, best first. */
  async classify(text: string, options?: { signal?: AbortSignal | undefined }): Promise<Label[]> {
    return (await this.classifyBatch([text], options))[0]!;
  }

  /** Return the labels of each text, best first. Throws GatewayError `too_long` for a text that is not to be cut. */
  async classifyBatch(texts: readonly string[], { signal }: { signal?: AbortSignal | undefined } = {}): Promise<Label[][]> {
    if (!this.#truncate) await refuseLong(this.#worker, [...texts], this.#loaded.maxTokens);
    const rows = await rowsOf(this.#worker, [...texts], signal);
    const { labels, problem_type } = this.#loaded.about;
    return rows.map((row) => {
      const scores = scored([...row], problem_type);
      return labels!.map((label, place) => ({ label, score: scores[place]! })).sort((a, b) => b.score - a.score);
    });
  }

  /** End the worker, and free the model's memory. */
  close(): void {
    this.#worker.close();
  }
}

/** Return the scores that the server makes of a network's numbers, by the setting of the model's configuration. */
function scored(logits: number[], problemType: string | null | undefined): number[] {
  if (problemType == "regression") return logits;
  if (problemType == "multi_label_classification" || logits.length == 1) return logits.map((each) => 1 / (1 + Math.exp(-each)));
  const most = Math.max(...logits);
  const parts = logits.map((each) => Math.exp(each - most));
  const sum = parts.reduce((a, b) => a + b);
  return parts.map((each) => each / sum);
}
