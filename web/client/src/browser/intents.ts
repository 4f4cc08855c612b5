import { dot } from "./space.js";

/** What vectors are made with: a BrowserEmbedder, a HybridEmbedder or a GatewayClient. */
export type EmbedTexts = (texts: readonly string[]) => Promise<readonly Float32Array[]>;

export interface IntentOptions {
  /** Least similarity of a text with an example of its intent, between -1 and 1; by default 0.35. */
  threshold?: number | undefined;
  /** Least distance between the best intent and the next; by default 0.05. */
  margin?: number | undefined;
}

export interface Intent {
  /** The name of the intent; null for "do not know". */
  intent: string | null;
  /** The similarity of the best intent, whether it is taken or not. */
  score: number;
  /** The example that is nearest to the text. */
  nearest: string;
  /** Why there is no intent; undefined if there is one. */
  reason: string | undefined;
  /** The similarity of each intent's nearest example, best first. */
  scores: { intent: string; score: number }[];
}

interface Example {
  intent: string;
  text: string;
  vector: Float32Array;
}

/** Tells what a text wants by the nearest of given examples, or that it does not know. */
export class IntentClassifier {
  readonly #examples: Example[];
  readonly #embed: EmbedTexts;
  readonly #threshold: number;
  readonly #margin: number;

  private constructor(examples: Example[], embed: EmbedTexts, { threshold = 0.35, margin = 0.05 }: IntentOptions) {
    this.#examples = examples;
    this.#embed = embed;
    this.#threshold = threshold;
    this.#margin = margin;
  }

  /** Embed the examples of each intent. Throws TypeError if there is an intent without one. */
  static async of(intents: Readonly<Record<string, readonly string[]>>, embed: EmbedTexts, options: IntentOptions = {}): Promise<IntentClassifier> {
    const pairs = Object.entries(intents).flatMap(([intent, texts]) => {
      if (!texts.length) throw new TypeError(`the intent '${intent}' has no example`);
      return texts.map((text) => ({ intent, text }));
    });
    if (!pairs.length) throw new TypeError("there is no intent");
    const vectors = await embed(pairs.map(({ text }) => text));
    return new IntentClassifier(pairs.map((pair, place) => ({ ...pair, vector: unit(vectors[place]!) })), embed, options);
  }

  /** Return the intent of a text. */
  async classify(text: string): Promise<Intent> {
    return (await this.classifyBatch([text]))[0]!;
  }

  /** Return the intent of each text, in order. */
  async classifyBatch(texts: readonly string[]): Promise<Intent[]> {
    return (await this.#embed(texts)).map((vector) => this.#nearest(unit(vector)));
  }

  #nearest(vector: Float32Array): Intent {
    const best = new Map<string, { example: Example; score: number }>();
    for (const example of this.#examples) {
      const score = dot(vector, example.vector);
      if (score > (best.get(example.intent)?.score ?? -Infinity)) best.set(example.intent, { example, score });
    }
    const [first, second] = [...best.values()].sort((one, other) => other.score - one.score);
    const { example, score } = first!;
    let reason: string | undefined;
    if (!(score >= this.#threshold)) reason = `nothing is near: ${score.toFixed(2)}, and ${this.#threshold} is demanded`;
    else if (second && score - second.score < this.#margin) reason = `'${example.intent}' and '${second.example.intent}' are nearly equally near`;
    const scores = [...best.values()].map((each) => ({ intent: each.example.intent, score: each.score })).sort((one, other) => other.score - one.score);
    return { intent: reason ? null : example.intent, score, nearest: example.text, reason, scores };
  }
}

function unit(vector: Float32Array): Float32Array {
  const norm = Math.sqrt(dot(vector, vector)) || 1;
  return vector.map((each) => each / norm);
}
