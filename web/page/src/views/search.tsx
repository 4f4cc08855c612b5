import { useEffect, useRef } from "preact/hooks";
import { type ApiError, answered, asError, isAbort } from "../api";
import { count, many, seconds } from "../format";
import { embedInBrowser, forget, type Placed } from "../in-browser";
import { type Model, ofTask, useModels } from "../models";
import { Busy, Empty, Failure, Forbidden } from "../parts/notices";
import { SAMPLE, SAMPLE_QUESTIONS } from "../sample";
import type { Who } from "../session";
import { Store, useStore } from "../store";
import { type Asking, cosine, embed } from "../vectors";

const BATCH_TEXTS = 64;
const SHOWN_HITS = 5;
/** How many of the nearest passages are given to the model that reranks. */
const RERANKED_HITS = 25;
const MAX_FILE_BYTES = 2_000_000;

interface Hit {
  text: string;
  score: number;
  /** Its place by the vectors alone. */
  before: number;
}

interface State {
  text: string;
  question: string;
  model: string;
  /** Whether texts are embedded in this browser where it can. */
  browser: boolean;
  rerank: boolean;
  rerankModel: string;
  working: string | null;
  embedded: { passages: number; space: string; dimension: number; served: string; why: string; seconds: number; tokens: number } | null;
  hits: Hit[] | null;
  /** The question that the hits are for, which may have been changed since. */
  asked: string;
  ways: string;
  error: { title: string; error: ApiError } | null;
  said: string;
}

const state = new Store<State>({
  text: "",
  question: "",
  model: "",
  browser: false,
  rerank: false,
  rerankModel: "",
  working: null,
  embedded: null,
  hits: null,
  asked: "",
  ways: "",
  error: null,
  said: "",
});

/** The vectors of passages, by space: a text is sent once, and vectors of two spaces never meet. */
const vectors = new Map<string, Map<string, Float32Array>>();
/** The space that each model answered in. */
const spaces = new Map<string, string>();
let stop: AbortController | null = null;

/** Return the passages of a text: what empty lines divide, each once. */
export function passagesOf(text: string): string[] {
  const parts = text.split(/\r?\n\s*\r?\n/).map((part) => part.trim());
  return [...new Set(parts.filter((part) => part !== ""))];
}

/** Embed texts where the user wants it. */
async function place(texts: string[], asked: Asking, signal: AbortSignal): Promise<Placed> {
  if (state.value.browser) return embedInBrowser(texts, asked, signal, (working) => state.update({ working }));
  return { ...(await embed(texts, asked, signal)), why: "" };
}

/** Embed the passages that are new; returns the vectors of all. */
async function embedPassages(passages: string[], model: string, signal: AbortSignal): Promise<Map<string, Float32Array>> {
  const began = performance.now();
  let known = vectors.get(spaces.get(model) ?? "") ?? new Map<string, Float32Array>();
  const fresh = passages.filter((passage) => !known.has(passage));
  let space = spaces.get(model);
  let { served, why } = state.value.embedded ?? { served: "", why: "" };
  let tokens = 0;
  for (let start = 0; start < fresh.length; start += BATCH_TEXTS) {
    state.update({ working: fresh.length > BATCH_TEXTS ? `Embedding ${count(start)} of ${many(fresh.length, "passage")} …` : `Embedding ${many(fresh.length, "passage")} …` });
    const batch = fresh.slice(start, start + BATCH_TEXTS);
    const answer = await place(batch, { model, role: "document", space }, signal);
    space = answer.space;
    ({ served, why } = answer);
    tokens += answer.tokens;
    spaces.set(model, space);
    known = vectors.get(space) ?? new Map<string, Float32Array>();
    vectors.set(space, known);
    for (const [index, text] of batch.entries()) {
      const row = answer.rows[index];
      if (row !== undefined) known.set(text, row);
    }
  }
  if (fresh.length > 0 || state.value.embedded === null) {
    const dimension = known.values().next().value?.length ?? 0;
    const spent = (performance.now() - began) / 1000;
    state.update({ embedded: { passages: passages.length, space: space ?? "", dimension, served, why, seconds: spent, tokens } });
  }
  return known;
}

async function run(model: string, rerankModel: string | null): Promise<void> {
  const { text, question } = state.value;
  const passages = passagesOf(text);
  stop?.abort();
  const own = new AbortController();
  stop = own;
  state.update({ error: null, working: "Embedding …", hits: null, said: "" });
  try {
    const known = await embedPassages(passages, model, own.signal);
    if (question.trim() === "") {
      state.update({ said: `${many(passages.length, "passage")} embedded` });
      return;
    }
    state.update({ working: "Searching …" });
    const began = performance.now();
    const asked = await place([question], { model, role: "query", space: spaces.get(model) }, own.signal);
    const query = asked.rows[0] ?? new Float32Array();
    let hits = passages
      .map((passage) => ({ text: passage, score: cosine(query, known.get(passage) ?? new Float32Array()) }))
      .sort((one, other) => other.score - one.score)
      .map((hit, before) => ({ ...hit, before }));
    let ways = `by ${asked.served}`;
    if (rerankModel !== null) {
      state.update({ working: "Reranking …" });
      const nearest = hits.slice(0, RERANKED_HITS);
      const { body, headers } = await answered<{ results: { index: number; relevance_score: number }[] }>("v1/rerank", {
        json: { model: rerankModel, query: question, documents: nearest.map((hit) => hit.text) },
        signal: own.signal,
      });
      hits = body.results.flatMap((each) => {
        const hit = nearest[each.index];
        return hit === undefined ? [] : [{ ...hit, score: each.relevance_score }];
      });
      ways += `, reranked by ${decodeURIComponent(headers.get("x-hf-gateway-served-by") ?? rerankModel)}`;
    }
    ways += ` in ${seconds((performance.now() - began) / 1000)}`;
    const shown = hits.slice(0, SHOWN_HITS);
    state.update({ hits: shown, asked: question, ways, said: `${many(shown.length, "passage")} found; the nearest: ${shown[0]?.text ?? "none"}` });
  } catch (thrown) {
    if (isAbort(thrown)) {
      if (stop === own) state.update({ said: "Stopped" });
      return;
    }
    const error = asError(thrown);
    if (error.status === 412) {
      // The chain answers in another space now: what was embedded before is of no use with it.
      spaces.delete(model);
      forget(model);
      state.update({ embedded: null });
    }
    state.update({ error: { title: error.status === 412 ? "The model's vector space has changed; search again to embed the passages anew" : "The search failed", error } });
  } finally {
    if (stop === own) {
      stop = null;
      state.update({ working: null });
    }
  }
}

export function SearchView({ who }: { who: Who }) {
  const [listed, again] = useModels();
  if (!who.scopes.includes("embed")) return <Page><Forbidden view="embedding texts" scope="embed" id={who.key} /></Page>;
  if (listed.kind === "loading") return <Page><Busy>Asking for the models …</Busy></Page>;
  if (listed.kind === "failed") {
    return (
      <Page>
        <Failure title="The models could not be listed" error={listed.error}>
          <button type="button" onClick={again}>Try again</button>
        </Failure>
      </Page>
    );
  }
  const embedding = ofTask(listed.models, "embedding");
  if (embedding.length === 0) {
    return (
      <Page>
        <Empty title="There is no model for embeddings">
          <p>{who.chains === null ? "Add a chain to hf-gateway.toml; this one runs in the server's own process and needs no key:" : "Your key may use no chain for embeddings. The administrator of this server can allow one."}</p>
          {who.chains === null && (
            <pre class="command" tabIndex={0} role="group" aria-label="Configuration">
              <code>{'[chains.docs]\nmodel = "sentence-transformers/all-MiniLM-L6-v2"\ntargets = ["local"]'}</code>
            </pre>
          )}
        </Empty>
      </Page>
    );
  }
  return (
    <Page>
      <Workbench embedding={embedding} reranking={who.scopes.includes("rerank") ? ofTask(listed.models, "rerank") : []} mayRerank={who.scopes.includes("rerank")} />
    </Page>
  );
}

function Page({ children }: { children: preact.ComponentChildren }) {
  return (
    <>
      <div class="head">
        <div>
          <h1>Search</h1>
          <p class="lead">Put texts in, ask a question, and get the passages that answer it. They stay in this page.</p>
        </div>
      </div>
      {children}
    </>
  );
}

function Workbench({ embedding, reranking, mayRerank }: { embedding: Model[]; reranking: Model[]; mayRerank: boolean }) {
  const now = useStore(state);
  const files = useRef<HTMLInputElement>(null);
  const question = useRef<HTMLInputElement>(null);
  useEffect(() => () => stop?.abort(), []);
  const model = (embedding.find((each) => each.id === now.model) ?? embedding[0])?.id ?? "";
  const reranker = (reranking.find((each) => each.id === now.rerankModel) ?? reranking[0])?.id ?? null;
  const passages = passagesOf(now.text);
  const submit = (event: Event) => {
    event.preventDefault();
    if (passages.length > 0 && now.working === null) void run(model, now.rerank ? reranker : null);
  };
  const read = async (event: Event) => {
    const input = event.currentTarget as HTMLInputElement;
    const parts = [now.text.trim()];
    for (const file of input.files ?? []) {
      if (file.size > MAX_FILE_BYTES) {
        state.update({ said: `${file.name} is larger than ${count(MAX_FILE_BYTES / 1e6)} MB and was left out` });
      } else parts.push((await file.text()).trim());
    }
    input.value = "";
    state.update({ text: parts.filter((part) => part !== "").join("\n\n"), hits: null });
  };
  return (
    <form class="search" onSubmit={submit}>
      <section class="card documents" aria-labelledby="documents">
        <div class="card-head">
          <h2 id="documents">1. Texts</h2>
          <span class="muted">{passages.length === 0 ? "none yet" : many(passages.length, "passage")}</span>
        </div>
        <label for="texts" class="muted">One passage a paragraph, with an empty line between</label>
        <textarea
          id="texts"
          rows={12}
          value={now.text}
          placeholder={"Paste texts here,\n\nor take the sample."}
          onInput={(event) => state.update({ text: event.currentTarget.value })}
        />
        <div class="row">
          <button type="button" onClick={() => { state.update({ text: SAMPLE, hits: null, error: null }); question.current?.focus(); }}>Use the sample</button>
          <button type="button" onClick={() => files.current?.click()}>Add files …</button>
          <input ref={files} type="file" multiple accept=".txt,.md,text/*" hidden aria-label="Text files" onChange={(event) => void read(event)} />
          {now.text !== "" && <button type="button" class="quiet" onClick={() => state.update({ text: "", hits: null, embedded: null })}>Clear</button>}
        </div>
        <Chooser label="Embedding model" models={embedding} value={model} onChange={(chosen) => state.update({ model: chosen, hits: null, embedded: null })} />
        <label class="check">
          <input type="checkbox" checked={now.browser} onChange={(event) => state.update({ browser: event.currentTarget.checked })} />
          Embed in this browser
        </label>
        {now.embedded !== null && (
          <p class="muted embedded">
            {many(now.embedded.passages, "passage")} embedded by {now.embedded.served} in {seconds(now.embedded.seconds)}
            {now.embedded.tokens > 0 && `, ${many(now.embedded.tokens, "token")}`}. Space <code>{now.embedded.space}</code>, {many(now.embedded.dimension, "number")} a vector.
            {now.embedded.why !== "" && ` Why there: ${now.embedded.why}.`}
          </p>
        )}
      </section>
      <section class="card asking" aria-labelledby="asking">
        <div class="card-head">
          <h2 id="asking">2. Question</h2>
        </div>
        <label for="question">What do you want to know?</label>
        <div class="ask">
          <input id="question" ref={question} type="search" value={now.question} placeholder="How long can I return something?" autocomplete="off" onInput={(event) => state.update({ question: event.currentTarget.value })} />
          {now.working === null ? (
            <button key="search" type="submit" class="main" disabled={passages.length === 0}>{now.question.trim() === "" && passages.length > 0 ? "Embed" : "Search"}</button>
          ) : (
            <button key="stop" type="button" onClick={() => stop?.abort()}>Stop</button>
          )}
        </div>
        <Reranking now={now} models={reranking} chosen={reranker} may={mayRerank} />
        {now.text === SAMPLE && now.hits === null && now.working === null && (
          <div class="row suggestions">
            <span class="muted">Try:</span>
            {SAMPLE_QUESTIONS.map((each) => (
              <button key={each} type="button" class="quiet small chip" onClick={() => { state.update({ question: each }); void run(model, now.rerank ? reranker : null); }}>{each}</button>
            ))}
          </div>
        )}
        {now.working !== null && <Busy>{now.working}</Busy>}
        <p class="hidden" role="status">{now.working === null ? now.said : ""}</p>
        {now.error !== null && (
          <Failure title={now.error.title} error={now.error.error}>
            <button type="submit">Try again</button>
          </Failure>
        )}
        {now.hits !== null ? <Hits now={now} hits={now.hits} /> : now.working === null && now.error === null && passages.length === 0 && (
          <p class="muted">Results come here: put some texts in first. <em>Use the sample</em> if you have none at hand.</p>
        )}
      </section>
    </form>
  );
}

function Chooser({ label, models, value, onChange }: { label: string; models: Model[]; value: string; onChange: (id: string) => void }) {
  return (
    <label class="field">
      <span>{label}</span>
      <select value={value} onChange={(event) => onChange(event.currentTarget.value)}>
        {models.map((model) => (
          <option key={model.id} value={model.id}>
            {model.id === model.model ? model.id : `${model.id} · ${model.model}`}
          </option>
        ))}
      </select>
    </label>
  );
}

function Reranking({ now, models, chosen, may }: { now: State; models: Model[]; chosen: string | null; may: boolean }) {
  return (
    <div class="rerank">
      <label class="check">
        <input type="checkbox" checked={now.rerank && chosen !== null} disabled={chosen === null} onChange={(event) => state.update({ rerank: event.currentTarget.checked })} />
        Rerank the {RERANKED_HITS} nearest
      </label>
      {chosen !== null && now.rerank && models.length > 1 && (
        <Chooser label="Model" models={models} value={chosen} onChange={(id) => state.update({ rerankModel: id })} />
      )}
      {chosen === null && (
        <details>
          <summary>{may ? "No chain for reranking" : "Your key does not allow reranking"}</summary>
          {may ? (
            <>
              <p>A chain like this one in hf-gateway.toml reads question and passage together, and orders more precisely:</p>
              <pre class="command" tabIndex={0} role="group" aria-label="Configuration">
                <code>{'[chains.rerank]\ntask = "rerank"\nmodel = "cross-encoder/ms-marco-MiniLM-L6-v2"\ntargets = ["local"]'}</code>
              </pre>
            </>
          ) : (
            <p>It lacks the scope <code>rerank</code>.</p>
          )}
        </details>
      )}
    </div>
  );
}

function Hits({ now, hits }: { now: State; hits: Hit[] }) {
  const scores = hits.map((hit) => hit.score);
  const most = Math.max(...scores);
  const least = Math.min(0, ...scores);
  return (
    <div class="hits">
      <h3>“{now.asked}”</h3>
      <p class="muted">{now.ways}</p>
      <ol>
        {hits.map((hit, place) => (
          <li key={hit.text}>
            <div class="score">
              <div class="bar" aria-hidden="true">
                <span style={{ width: `${Math.round(100 * (most > least ? (hit.score - least) / (most - least) : 1))}%` }} />
              </div>
              <span>
                <span class="hidden">Score </span>
                {hit.score.toFixed(3)}
              </span>
              {hit.before !== place && <span class="moved">{hit.before > place ? "↑" : "↓"} was {hit.before + 1}.</span>}
            </div>
            <p>{hit.text}</p>
          </li>
        ))}
      </ol>
    </div>
  );
}
