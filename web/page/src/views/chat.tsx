import { useEffect } from "preact/hooks";
import { Composer } from "../chat/composer";
import { ExportDialog } from "../chat/export-dialog";
import { MessageCard } from "../chat/message";
import { Settings } from "../chat/settings";
import { begin, change, choose, halt, open, remove, talk } from "../chat/talk";
import { type Conversation, faultsOf, openCalls } from "../chat/types";
import { type Model, ofTask, useModels } from "../models";
import { Busy, Empty, Failure, Forbidden } from "../parts/notices";
import type { Who } from "../session";
import { useStore } from "../store";

export function ChatView({ who }: { who: Who }) {
  const [listed, again] = useModels();
  useEffect(() => void open(), []);
  if (!who.scopes.includes("chat")) return <Alone><Forbidden view="chat" scope="chat" id={who.key} /></Alone>;
  if (listed.kind === "loading") return <Alone><Busy>Asking for the models …</Busy></Alone>;
  if (listed.kind === "failed") {
    return (
      <Alone>
        <Failure title="The models could not be listed" error={listed.error}>
          <button type="button" onClick={again}>Try again</button>
        </Failure>
      </Alone>
    );
  }
  const models = ofTask(listed.models, "chat");
  if (models.length === 0) return <Alone><NoChain who={who} again={again} /></Alone>;
  return <Room models={models} />;
}

function Alone({ children }: { children: preact.ComponentChildren }) {
  return (
    <div class="narrow">
      <h1>Chat</h1>
      {children}
    </div>
  );
}

function NoChain({ who, again }: { who: Who; again: () => void }) {
  if (who.chains !== null) {
    return (
      <Empty title="Your key may use no chain for chat">
        <p>The administrator of this server can allow one:</p>
        <pre class="command" tabIndex={0} role="group" aria-label="Command">
          <code>{`hf-gateway keys change ${who.key ?? "ID"} --chains NAME`}</code>
        </pre>
      </Empty>
    );
  }
  return (
    <Empty title="This server has no chain for chat yet">
      <p>Search works without one. For chat, add a chain to hf-gateway.toml, here with a model of your own Ollama and the hosted providers behind it:</p>
      <pre class="command" tabIndex={0} role="group" aria-label="Configuration">
        <code>{'[chains.chat]\ntask = "chat"\nmodel = "meta-llama/Llama-3.1-8B-Instruct"\ntargets = ["ollama:llama3.1", "hf"]'}</code>
      </pre>
      <p>Or without a file, by Hugging Face alone:</p>
      <pre class="command" tabIndex={0} role="group" aria-label="Command">
        <code>HF_MODEL_ID=meta-llama/Llama-3.1-8B-Instruct HF_TOKEN=hf_… hf-gateway serve</code>
      </pre>
      <p>Then start the server again, or send it SIGHUP.</p>
      <button type="button" onClick={again}>Look again</button>
    </Empty>
  );
}

function Room({ models }: { models: Model[] }) {
  const now = useStore(talk);
  const { current, answering } = now;
  const model = models.find((each) => each.id === current.model) ?? models[0];
  useEffect(() => {
    // A conversation whose chain is gone goes on with one that is there.
    if (model !== undefined && model.id !== current.model) change({ ...current, model: model.id }, false);
  }, [model, current.id]);
  const busy = answering === current.id;
  const valid = Object.keys(faultsOf(current.parameters)).length === 0;
  const calls = busy ? [] : openCalls(current);
  return (
    <div class="chat">
      <Shelf now={now.conversations ?? []} current={current} kept={now.kept} />
      <section class="room" aria-label="Conversation">
        <div class="room-head">
          <h1>{current.title || "New conversation"}</h1>
          {current.messages.length > 0 && <ExportDialog conversation={current} />}
        </div>
        <Settings conversation={current} models={models} busy={busy} />
        <div class="messages">
          {current.messages.length === 0 && <Start />}
          {current.messages.map((message, index) => (
            <MessageCard
              key={message.id}
              message={message}
              model={model}
              answering={busy && index === current.messages.length - 1}
              last={index === current.messages.length - 1}
              busy={answering !== null}
            />
          ))}
        </div>
        <p class="hidden" role="status">{now.said}</p>
        <Composer key={current.id} calls={calls} busy={busy} blocked={!valid || (answering !== null && !busy)} onStop={halt} />
      </section>
    </div>
  );
}

function Start() {
  return (
    <div class="start">
      <h2>Ask something</h2>
      <p class="muted">
        Answers come from the first target of the chain that can give one; under each stands which one it was, why the others were not, and what it cost. Conversations are kept in
        this browser, and nowhere else.
      </p>
    </div>
  );
}

function Shelf({ now, current, kept }: { now: Conversation[]; current: Conversation; kept: boolean }) {
  return (
    <aside class="shelf" aria-label="Conversations">
      <button type="button" class="new" onClick={begin} disabled={current.messages.length === 0}>New conversation</button>
      {now.length > 0 && (
        <details open={matchMedia("(min-width: 60rem)").matches}>
          <summary>{now.length === 1 ? "1 conversation" : `${now.length} conversations`}</summary>
          <ul>
            {now.map((each) => (
              <li key={each.id}>
                <button type="button" class="quiet entry" aria-current={each.id === current.id ? "true" : undefined} onClick={() => choose(each)}>
                  {each.title || "Untitled"}
                </button>
                <button type="button" class="quiet small" aria-label={`Delete ${each.title || "Untitled"}`} title="Delete" onClick={() => void remove(each)}>
                  <span aria-hidden="true">×</span>
                </button>
              </li>
            ))}
          </ul>
        </details>
      )}
      <p class="muted small-print">{kept ? "Kept in this browser only." : "This browser keeps nothing: conversations end with this page."}</p>
    </aside>
  );
}
