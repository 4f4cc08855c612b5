import { answered, ApiError, asError, isAbort } from "../api";
import type { Attempt } from "../chat/types";
import { seconds } from "../format";
import { session } from "../session";
import { Store } from "../store";

/** What is asked for, as it was typed; "" for the model's own. */
export interface Form {
  model: string;
  prompt: string;
  negative: string;
  size: string;
  steps: string;
  guidance: string;
  /** "" for a new one each time. */
  seed: string;
}

export interface Picture {
  id: number;
  form: Form;
  url: string;
  data: Blob;
  /** The seed that it was made with, if that is known. */
  seed: number | null;
  servedBy: string;
  attempts: Attempt[];
  costUsd: number | null;
  seconds: number;
}

interface State {
  form: Form;
  /** When what is drawn now was asked for, in milliseconds of performance.now(). */
  since: number | null;
  pictures: Picture[];
  error: ApiError | null;
  said: string;
}

const EMPTY: Form = { model: "", prompt: "", negative: "", size: "", steps: "", guidance: "", seed: "" };

export const drawing = new Store<State>({ form: EMPTY, since: null, pictures: [], error: null, said: "" });

/** How many pictures are kept in the page's memory. */
const MOST_PICTURES = 24;
const MOST_SEED = 2 ** 32;
let stop: AbortController | null = null;
let last = 0;

session.watch(() => {
  if (session.value.kind !== "out") return;
  stop?.abort();
  for (const { url } of drawing.value.pictures) URL.revokeObjectURL(url);
  drawing.update({ pictures: [], error: null, said: "" });
});

export function change(changes: Partial<Form>): void {
  drawing.update({ form: { ...drawing.value.form, ...changes } });
}

export function halt(): void {
  stop?.abort();
}

export function remove(picture: Picture): void {
  URL.revokeObjectURL(picture.url);
  drawing.update({ pictures: drawing.value.pictures.filter((each) => each.id !== picture.id), said: "Removed" });
}

/** Return why a form cannot be sent, by its fields; empty if it can. */
export function faultsOf(form: Form): Partial<Record<keyof Form, string>> {
  const found: Partial<Record<keyof Form, string>> = {};
  const size = form.size.trim();
  if (size !== "" && !/^[1-9]\d{0,4}\s*[x×]\s*[1-9]\d{0,4}$/i.test(size)) found.size = "width x height in pixels, such as 512x512";
  const number = (name: "steps" | "guidance" | "seed", least: number, most: number, whole: boolean) => {
    const value = Number(form[name]);
    if (form[name].trim() !== "" && (!(value >= least && value <= most) || (whole && !Number.isInteger(value)))) {
      found[name] = `a ${whole ? "whole " : ""}number from ${least} to ${most}`;
    }
  };
  number("steps", 1, 1000, true);
  number("guidance", 0, 1000, false);
  number("seed", 0, Number.MAX_SAFE_INTEGER, true);
  return found;
}

interface Answered {
  data: { b64_json: string }[];
  output_format?: string;
  hf_gateway: { served_by: string; attempts: Attempt[]; cost_usd: number | null; seeds: (number | null)[] };
}

/** Draw one picture; without a seed in the form by a new random one, which is shown with it. */
export async function draw(form: Form): Promise<void> {
  stop?.abort();
  const own = new AbortController();
  stop = own;
  const began = performance.now();
  drawing.update({ since: began, error: null, said: "" });
  const seed = form.seed.trim() === "" ? (crypto.getRandomValues(new Uint32Array(1))[0] ?? 0) % MOST_SEED : Number(form.seed);
  try {
    const { body } = await answered<Answered>("v1/images/generations", { json: bodyOf(form, seed), signal: own.signal });
    const first = body.data[0];
    if (first === undefined) throw new ApiError(-1, "empty", "the answer has no picture");
    const bytes = Uint8Array.from(atob(first.b64_json), (character) => character.charCodeAt(0));
    const data = new Blob([bytes], { type: `image/${body.output_format ?? "png"}` });
    const { served_by: servedBy, attempts, cost_usd: costUsd, seeds } = body.hf_gateway;
    const spent = (performance.now() - began) / 1000;
    const picture: Picture = { id: ++last, form, url: URL.createObjectURL(data), data, seed: seeds[0] ?? null, servedBy, attempts, costUsd, seconds: spent };
    const pictures = [picture, ...drawing.value.pictures];
    for (const { url } of pictures.slice(MOST_PICTURES)) URL.revokeObjectURL(url);
    drawing.update({ pictures: pictures.slice(0, MOST_PICTURES), said: `The picture is there, drawn by ${servedBy} in ${seconds(spent)}` });
  } catch (thrown) {
    if (isAbort(thrown)) {
      if (stop === own) drawing.update({ said: "Stopped" });
    } else drawing.update({ error: asError(thrown) });
  } finally {
    if (stop === own) {
      stop = null;
      drawing.update({ since: null });
    }
  }
}

function bodyOf(form: Form, seed: number): Record<string, unknown> {
  return {
    model: form.model,
    prompt: form.prompt.trim(),
    seed,
    include_details: true,
    ...(form.negative.trim() === "" ? {} : { negative_prompt: form.negative.trim() }),
    ...(form.size.trim() === "" ? {} : { size: form.size.replace(/\s/g, "").replace(/[X×]/, "x") }),
    ...(form.steps.trim() === "" ? {} : { steps: Number(form.steps) }),
    ...(form.guidance.trim() === "" ? {} : { guidance_scale: Number(form.guidance) }),
  };
}

/** Return the name of a picture's file: its first words, its seed, and its kind. */
export function fileName({ form, seed, data }: Picture): string {
  const words = form.prompt.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").slice(0, 40).replace(/^-|-$/g, "");
  return `${[words || "picture", ...(seed === null ? [] : [seed])].join("-")}.${data.type.replace("image/", "").replace("jpeg", "jpg")}`;
}
