import { useState } from "preact/hooks";
import { useAnswer } from "../answer";
import { many, sentence, short, usd } from "../format";
import { Away, Words } from "../parts/markdown";
import { Busy, Command, Failure } from "../parts/notices";
import type { Who } from "../session";

type Verdict = "fits" | "tight" | "too_big" | "unknown";

interface HubModel {
  id: string;
  task: string | null;
  pipeline_tag: string | null;
  downloads: number;
  likes: number;
  gated: false | "auto" | "manual" | null;
  private: boolean;
  license: { identifier: string | null; class: string; meaning: string; name: string | null; link: string | null };
  fit: { verdict: Verdict; checked: boolean; reasons: string[]; problems: string[]; memory: number | null; download: number | null };
  targets: { target: string; serves: boolean | null; why: string; usd_per_million_tokens: { input: number | null; output: number | null } }[];
  stale: string | null;
}

interface Found {
  source: "hub" | "cache";
  reason: string | null;
  machine: { memory: number | null; available: number | null; disk: number | null; gpus: { name: string; free: number }[] };
  models: HubModel[];
}

const VERDICTS = { fits: ["Fits this machine", "good"], tight: ["Fits barely", "warn"], too_big: ["Too big for this machine", "bad"], unknown: ["Fit unknown", ""] } as const;
const TONES: Record<string, string> = { permissive: "good", copyleft: "warn", "use-restricted": "warn", "non-commercial": "bad", "no-derivatives": "bad" };
const SORTS = { downloads: "Most downloads", likes: "Most likes", trending: "Trending", updated: "Last updated" } as const;

/** Searches the Hub through the server, which knows its machine. */
export function HubSearch({ who, price }: { who: Who; price: ((model: string) => void) | null }) {
  const [asked, setAsked] = useState<string | null>(null);
  const all = who.tenant === null && who.chains === null;
  const [{ body, error, asking }, again] = useAnswer<Found>(all ? asked : null);
  const submit = (event: SubmitEvent) => {
    event.preventDefault();
    const data = new FormData(event.currentTarget as HTMLFormElement);
    const text = (name: string) => String(data.get(name) ?? "").trim();
    const path = `admin/hub/search?${new URLSearchParams({ query: text("query"), tags: text("tags"), sort: text("sort"), check: String(data.has("check")) })}`;
    if (path === asked) again();
    else setAsked(path);
  };
  return (
    <section class="card hub" aria-labelledby="hub">
      <h2 id="hub">Search the Hub</h2>
      {!all ? (
        <p class="muted">The Hub is searched for all tenants: your {who.tenant !== null ? "key is one tenant's" : "key is for some chains only"}, so that this needs another one.</p>
      ) : (
        <form onSubmit={submit}>
          <div class="fields">
            <label class="field">
              <span>Words in the name</span>
              <input name="query" type="search" maxLength={200} placeholder="minilm" autocomplete="off" spellcheck={false} />
            </label>
            <label class="field">
              <span>Tags</span>
              <input name="tags" maxLength={500} placeholder="sentence-similarity, license:mit" autocomplete="off" spellcheck={false} />
            </label>
            <label class="field">
              <span>Order</span>
              <select name="sort">
                {Object.entries(SORTS).map(([sort, words]) => (
                  <option key={sort} value={sort}>
                    {words}
                  </option>
                ))}
              </select>
            </label>
          </div>
          <div class="row wide-row">
            <button type="submit" class="main" disabled={asking && asked !== null}>
              Search the Hub
            </button>
            <label class="check">
              <input type="checkbox" name="check" />
              Look at the files, which takes longer and is exact
            </label>
          </div>
        </form>
      )}
      <p role="status" class={asking && asked !== null ? "hidden" : "muted"}>
        {asking && asked !== null ? "Searching the Hub" : body === null || error !== null ? "" : `${many(body.models.length, "model")} found${machineWords(body)}`}
      </p>
      {asking && asked !== null && <Busy>Searching the Hub …</Busy>}
      {error !== null && (
        <Failure title="The Hub was not searched" error={error}>
          <button type="button" onClick={again}>
            Try again
          </button>
        </Failure>
      )}
      {body !== null && error === null && <Results found={body} price={price} again={again} />}
    </section>
  );
}

function Results({ found, price, again }: { found: Found; price: ((model: string) => void) | null; again: () => void }) {
  const none = found.models.length === 0;
  return (
    <>
      {found.source === "cache" && (
        <div class="notice warn">
          <p>
            <strong>{none ? "The Hub was not reached, and this machine knows no such model." : "The Hub was not reached; these are models that this machine knows already."}</strong>
          </p>
          {found.reason !== null && <p><Words text={sentence(found.reason)} /></p>}
          <button type="button" onClick={again}>
            Try again
          </button>
        </div>
      )}
      {none && found.source === "hub" && <p>No model has these words and tags. Fewer of them find more.</p>}
      <ul class="found">
        {found.models.map((model) => (
          <Result key={model.id} model={model} price={price} />
        ))}
      </ul>
    </>
  );
}

function Result({ model, price }: { model: HubModel; price: ((model: string) => void) | null }) {
  const [words, tone] = VERDICTS[model.fit.verdict];
  const { license } = model;
  const serving = model.targets.filter((target) => target.serves);
  return (
    <li>
      <div class="target-line">
        <h3>
          <Away href={`https://huggingface.co/${model.id}`}>{model.id}</Away>
        </h3>
        <span class={`state ${tone}`}>
          {words}
          {!model.fit.checked && model.fit.verdict !== "unknown" && ", estimated"}
        </span>
        <span class={`state ${TONES[license.class] ?? ""}`} title={license.meaning}>
          {license.name ?? license.identifier ?? "No licence"}
        </span>
        {model.gated !== false && model.gated !== null && <span class="badge">Gated</span>}
        {model.private && <span class="badge">Private</span>}
      </div>
      <p class="muted small-print">
        {model.task ?? model.pipeline_tag ?? "no task of a chain"} · {short(model.downloads)} downloads a month · {many(model.likes, "like")}
        {model.fit.memory !== null && ` · ${bytes(model.fit.memory)} of memory`}
        {model.fit.download !== null && ` · ${bytes(model.fit.download)} to download`}
      </p>
      {serving.length > 0 && <p class="small-print">Can be served by {serving.map((target) => target.target + priceOf(target)).join(", ")}</p>}
      <details>
        <summary>
          Why, and how to serve it<span class="hidden">: {model.id}</span>
        </summary>
        <ul class="reasons">
          {[...model.fit.problems, ...model.fit.reasons, `licence: ${license.meaning}`].map((reason) => (
            <li key={reason}>
              <Words text={sentence(reason)} />
            </li>
          ))}
        </ul>
        {model.task !== null && (
          <>
            <p>In hf-gateway.toml, then reload or restart:</p>
            <Command>{chainOf(model, serving[0]?.target ?? "local")}</Command>
          </>
        )}
        {price !== null && (
          <button type="button" class="small" onClick={() => price(model.id)} aria-label={`Set a price of ${model.id}`}>
            Set a price
          </button>
        )}
      </details>
    </li>
  );
}

/** Return the lines of a configuration with which the server would serve a model. */
function chainOf(model: HubModel, target: string): string {
  const name = (model.id.split("/").pop() ?? model.id).toLowerCase().replace(/[^a-z0-9-]+/g, "-");
  const task = model.task === "embedding" ? "" : `task = "${model.task}"\n`;
  return `[chains.${name}]\n${task}model = "${model.id}"\ntargets = ["${target}"]`;
}

function priceOf({ usd_per_million_tokens: { input, output } }: HubModel["targets"][number]): string {
  return input === null && output === null ? "" : ` (${[input === null ? "" : `${usd(input)} per 1M in`, output === null ? "" : `${usd(output)} per 1M out`].filter(Boolean).join(", ")})`;
}

function machineWords({ machine }: Found): string {
  const [gpu] = machine.gpus;
  const parts = [machine.available === null ? "" : `${bytes(machine.available)} of memory free`, machine.disk === null ? "" : `${bytes(machine.disk)} of disk free`, gpu === undefined ? "" : `${gpu.name} with ${bytes(gpu.free)} free`];
  const known = parts.filter(Boolean);
  return known.length === 0 ? "" : `; this machine has ${known.join(", ")}`;
}

function bytes(value: number): string {
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let place = 0;
  let rest = value;
  while (rest >= 1000 && place < units.length - 1) {
    rest /= 1000;
    place += 1;
  }
  return `${rest < 10 && place > 0 ? rest.toFixed(1) : Math.round(rest)} ${units[place]}`;
}
