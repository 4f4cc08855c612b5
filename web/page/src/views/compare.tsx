import { useState } from "preact/hooks";
import { Answers } from "../compare/answers";
import { type Choice, choicesOf, useChains } from "../compare/choices";
import "../compare/compare.css";
import { Matrices } from "../compare/matrices";
import { Busy, Empty, Failure, Forbidden } from "../parts/notices";
import type { Who } from "../session";

const KINDS = {
  chat: { title: "Answers", view: "chat", noun: "chat", toml: '[chains.large]\ntask = "chat"\nmodel = "meta-llama/Llama-3.3-70B-Instruct"\ntargets = ["hf"]' },
  embed: { title: "Vectors", view: "embedding texts", noun: "embeddings", toml: '[chains.other]\nmodel = "BAAI/bge-small-en-v1.5"\ntargets = ["local"]' },
} as const;

type Kind = keyof typeof KINDS;

/** What is compared stays while another view is shown. */
let last: Kind | null = null;

export function CompareView({ who }: { who: Who }) {
  const [{ body, error }, again] = useChains();
  const [kind, setKind] = useState<Kind>(last ?? (who.scopes.includes("chat") || !who.scopes.includes("embed") ? "chat" : "embed"));
  const choices = body === null ? [] : choicesOf(body, kind === "chat" ? "chat" : "embedding");
  return (
    <>
      <div class="head">
        <div>
          <h1>Compare</h1>
          <p class="lead">The same to several models, or to targets of one, side by side.</p>
        </div>
        <fieldset class="kinds">
          <legend class="hidden">What is compared</legend>
          {Object.entries(KINDS).map(([name, { title }]) => (
            <label key={name}>
              <input type="radio" name="kind" checked={kind === name} onChange={() => { last = name as Kind; setKind(last); }} />
              {title}
            </label>
          ))}
        </fieldset>
      </div>
      {!who.scopes.includes(kind) ? (
        <Forbidden view={KINDS[kind].view} scope={kind} id={who.key} />
      ) : error !== null && body === null ? (
        <Failure title="The models could not be listed" error={error}>
          <button type="button" onClick={again}>Try again</button>
        </Failure>
      ) : body === null ? (
        <Busy>Asking for the models …</Busy>
      ) : choices.length === 0 ? (
        <None kind={kind} who={who} again={again} />
      ) : (
        <>
          {choices.length === 1 && <Single kind={kind} />}
          <Shown kind={kind} choices={choices} />
        </>
      )}
    </>
  );
}

function Shown({ kind, choices }: { kind: Kind; choices: Choice[] }) {
  return kind === "chat" ? <Answers choices={choices} /> : <Matrices choices={choices} />;
}

function None({ kind, who, again }: { kind: Kind; who: Who; again: () => void }) {
  const { noun, toml } = KINDS[kind];
  if (who.chains !== null) {
    return (
      <Empty title={`Your key may use no chain for ${noun}`}>
        <p>The administrator of this server can allow some:</p>
        <pre class="command" tabIndex={0} role="group" aria-label="Command">
          <code>{`hf-gateway keys change ${who.key ?? "ID"} --chains NAME,NAME`}</code>
        </pre>
      </Empty>
    );
  }
  return (
    <Empty title={`This server has no chain for ${noun} to compare`}>
      <p>Add two to hf-gateway.toml, or one with two targets. Then start the server again, or send it SIGHUP:</p>
      <Toml text={toml} />
      <button type="button" onClick={again}>Look again</button>
    </Empty>
  );
}

/** Said where there is one model: it can be compared with itself alone. */
function Single({ kind }: { kind: Kind }) {
  return (
    <details class="notice warn">
      <summary>There is only one model for {KINDS[kind].noun}, so that it is compared with itself. How to add another</summary>
      <Toml text={KINDS[kind].toml} />
    </details>
  );
}

function Toml({ text }: { text: string }) {
  return (
    <pre class="command" tabIndex={0} role="group" aria-label="Configuration">
      <code>{text}</code>
    </pre>
  );
}
