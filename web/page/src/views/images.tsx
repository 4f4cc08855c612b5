import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import { change, draw, drawing, faultsOf, type Form, halt } from "../images/draw";
import { Gallery } from "../images/gallery";
import "../images/images.css";
import { seconds } from "../format";
import { type Model, ofTask, useModels } from "../models";
import { Busy, Empty, Failure, Forbidden } from "../parts/notices";
import type { Who } from "../session";
import { useStore } from "../store";

const SIZES = ["512x512", "768x768", "1024x1024", "1024x768", "768x1024"];

export function ImagesView({ who }: { who: Who }) {
  const [listed, again] = useModels();
  if (!who.scopes.includes("image")) return <Page><Forbidden view="drawing pictures" scope="image" id={who.key} /></Page>;
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
  const models = ofTask(listed.models, "image");
  return <Page>{models.length === 0 ? <None who={who} again={again} /> : <Studio models={models} />}</Page>;
}

function Page({ children }: { children: ComponentChildren }) {
  return (
    <>
      <div class="head">
        <div>
          <h1>Images</h1>
          <p class="lead">Describe a picture, and get it with what it cost. Pictures stay in this page until it is closed.</p>
        </div>
      </div>
      {children}
    </>
  );
}

function None({ who, again }: { who: Who; again: () => void }) {
  if (who.chains !== null) {
    return (
      <Empty title="Your key may use no chain for images">
        <p>The administrator of this server can allow one:</p>
        <pre class="command" tabIndex={0} role="group" aria-label="Command">
          <code>{`hf-gateway keys change ${who.key ?? "ID"} --chains NAME`}</code>
        </pre>
      </Empty>
    );
  }
  return (
    <Empty title="This server has no chain for images yet">
      <p>Add one to hf-gateway.toml, here with a model on this machine and the hosted providers behind it. Then start the server again, or send it SIGHUP:</p>
      <pre class="command" tabIndex={0} role="group" aria-label="Configuration">
        <code>{'[chains.images]\ntask = "image"\nmodel = "stabilityai/sd-turbo"\ntargets = ["local", "hf"]'}</code>
      </pre>
      <button type="button" onClick={again}>Look again</button>
    </Empty>
  );
}

function Studio({ models }: { models: Model[] }) {
  const { form, since, pictures, error, said } = useStore(drawing);
  const model = (models.find((each) => each.id === form.model) ?? models[0])?.id ?? "";
  const faults = faultsOf(form);
  const ready = form.prompt.trim() !== "" && Object.keys(faults).length === 0;
  const begin = () => {
    if (ready && since === null) void draw({ ...form, model });
  };
  const field = (name: keyof Form, label: string, hint: string, more: Record<string, unknown>) => (
    <label class="field">
      <span>{label}</span>
      <input value={form[name]} placeholder={hint} aria-invalid={faults[name] !== undefined} onInput={(event) => change({ [name]: event.currentTarget.value })} {...more} />
      {faults[name] !== undefined && <span class="fault">Must be {faults[name]}</span>}
    </label>
  );
  return (
    <>
      <form class="card drawing" onSubmit={(event) => { event.preventDefault(); begin(); }}>
        <label class="field">
          <span>Prompt</span>
          <textarea
            rows={3}
            value={form.prompt}
            placeholder="A lighthouse on a rock at dusk, in watercolours"
            onInput={(event) => change({ prompt: event.currentTarget.value })}
            onKeyDown={(event) => {
              if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
              event.preventDefault();
              begin();
            }}
          />
        </label>
        <div class="parameters">
          <label class="field model-field">
            <span>Model</span>
            <select value={model} onChange={(event) => change({ model: event.currentTarget.value })}>
              {models.map((each) => <option key={each.id} value={each.id}>{each.id === each.model ? each.id : `${each.id} · ${each.model}`}</option>)}
            </select>
          </label>
          {field("size", "Size", "model's own", { list: "sizes", autocomplete: "off" })}
          <datalist id="sizes">{SIZES.map((size) => <option key={size} value={size} />)}</datalist>
          {field("steps", "Steps", "model's own", { type: "number", min: 1, step: 1 })}
          {field("guidance", "Guidance", "model's own", { type: "number", min: 0, step: 0.5 })}
          {field("seed", "Seed", "random", { type: "number", min: 0, step: 1 })}
        </div>
        <details>
          <summary>What it is not to show</summary>
          <label class="field">
            <span>Negative prompt</span>
            <input value={form.negative} placeholder="text, frame" onInput={(event) => change({ negative: event.currentTarget.value })} />
          </label>
        </details>
        <div class="row">
          {since !== null ? (
            <button key="stop" type="button" class="stop" onClick={halt}>Stop</button>
          ) : (
            <button key="draw" type="submit" class="main" disabled={!ready}>Draw</button>
          )}
          <span class="muted hint">Ctrl + Enter draws</span>
        </div>
      </form>
      {since !== null && <Busy>Drawing … <Elapsed since={since} /></Busy>}
      <p class="hidden" role="status">{since === null ? said : ""}</p>
      {error !== null && (
        <Failure title="There is no picture" error={error}>
          <button type="button" disabled={!ready || since !== null} onClick={begin}>Try again</button>
        </Failure>
      )}
      {pictures.length === 0 && since === null && error === null && (
        <p class="muted">The picture comes here, with its seed: the same seed and settings give the same picture again where the target keeps to them.</p>
      )}
      <Gallery pictures={pictures} busy={since !== null} />
    </>
  );
}

/** The time that has passed, for eyes alone: read out each second it would drown everything else. */
function Elapsed({ since }: { since: number }) {
  const [now, setNow] = useState(since);
  useEffect(() => {
    const timer = setInterval(() => setNow(performance.now()), 1000);
    return () => clearInterval(timer);
  }, [since]);
  const spent = Math.floor(Math.max(0, now - since) / 1000);
  return <span aria-hidden="true">{spent < 1 ? "" : seconds(spent)}</span>;
}
