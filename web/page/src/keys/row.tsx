import { useEffect, useRef, useState } from "preact/hooks";
import { type ApiError, asError, ask } from "../api";
import { moment } from "../format";
import { Fact } from "../parts/fact";
import { Failure } from "../parts/notices";
import type { Who } from "../session";
import { KeyForm } from "./form";
import { type Key, limits, type NewKey, stateOf } from "./key";

const GRACES = { "0": "At once", "3600": "After an hour", "86400": "After a day", "604800": "After 7 days" } as const;

export type Change = { kind: "changed" | "revoked"; key: Key } | { kind: "rotated"; key: NewKey; grace: number };

/** A key with what it allows, and what can be done with it. */
export function KeyRow({ who, one, changed }: { who: Who; one: Key; changed: (change: Change) => void }) {
  const [open, setOpen] = useState<"" | "change" | "rotate" | "revoke">("");
  const state = stateOf(one);
  const own = one.id === who.key;
  const toggle = (what: "change" | "rotate" | "revoke") => setOpen(open === what ? "" : what);
  const finish = (change: Change) => {
    setOpen("");
    changed(change);
  };
  return (
    <li class="card key">
      <div class="target-line">
        <h3>{one.name}</h3>
        <span class={`state ${state.tone}`}>{state.word}</span>
        {own && <span class="badge">You are signed in with it</span>}
        {!state.ends && (
          <div class="actions">
            <button type="button" class="quiet small" aria-expanded={open === "change"} aria-label={`Change ${one.name}`} onClick={() => toggle("change")}>
              Change
            </button>
            <button type="button" class="quiet small" aria-expanded={open === "rotate"} aria-label={`Rotate ${one.name}`} onClick={() => toggle("rotate")}>
              Rotate
            </button>
            <button type="button" class="quiet small" aria-expanded={open === "revoke"} aria-label={`Revoke ${one.name}`} onClick={() => toggle("revoke")}>
              Revoke
            </button>
          </div>
        )}
      </div>
      <Facts one={one} />
      {open === "change" && <KeyForm who={who} before={one} done={(key) => finish({ kind: "changed", key })} close={() => setOpen("")} />}
      {open === "rotate" && <Rotate one={one} own={own} done={finish} close={() => setOpen("")} />}
      {open === "revoke" && <Revoke one={one} own={own} done={finish} close={() => setOpen("")} />}
    </li>
  );
}

function Facts({ one }: { one: Key }) {
  const held = limits(one);
  return (
    <dl class="facts">
      <Fact name="Begins with">
        <code>hfg_{one.id}</code>
      </Fact>
      <Fact name="May do">{one.scopes.join(", ")}</Fact>
      <Fact name="May use">{one.chains === null ? "all chains" : one.chains.join(", ")}</Fact>
      {one.tenant !== null && <Fact name="Tenant">{one.tenant}</Fact>}
      {held !== "" && <Fact name="Limits">{held}</Fact>}
      <Fact name="Made">{moment(one.created)}</Fact>
      {one.expires !== null && <Fact name={stateOf(one).word === "Expired" ? "Expired" : "Expires"}>{moment(one.expires)}</Fact>}
      {one.revoked !== null && <Fact name="Revoked">{moment(one.revoked)}</Fact>}
      {one.previous_until !== null && Date.parse(one.previous_until) > Date.now() && (
        <Fact name="Its old secret is accepted until" tone="warn">
          {moment(one.previous_until)}
        </Fact>
      )}
    </dl>
  );
}

/** Sends a request for a key; returns what went wrong, whether it is under way, and the function that sends. */
function useSending<T>(path: string, sending: () => { method?: string; json?: unknown }, done: (answer: T) => void) {
  const [error, setError] = useState<ApiError | null>(null);
  const [busy, setBusy] = useState(false);
  const go = async () => {
    setBusy(true);
    setError(null);
    try {
      done(await ask<T>(path, sending()));
    } catch (thrown) {
      setError(asError(thrown));
      setBusy(false);
    }
  };
  return { error, busy, go };
}

function Rotate({ one, own, done, close }: { one: Key; own: boolean; done: (change: Change) => void; close: () => void }) {
  const [grace, setGrace] = useState("0");
  const field = useRef<HTMLSelectElement>(null);
  useEffect(() => field.current?.focus(), []);
  const { error, busy, go } = useSending<NewKey>(
    `admin/keys/${one.id}/rotate`,
    () => ({ json: { grace_seconds: Number(grace) } }),
    (key) => done({ kind: "rotated", key, grace: Number(grace) }),
  );
  return (
    <div class="ask-first">
      <p>
        The key gets a new secret, which is shown once. What it allows, its usage and its budgets stay.
        {own && " This page signs in again by the new one."}
      </p>
      <div class="row">
        <label class="grouping">
          <span>The old secret ends</span>
          <select ref={field} value={grace} onChange={(event) => setGrace(event.currentTarget.value)}>
            {Object.entries(GRACES).map(([seconds, words]) => (
              <option key={seconds} value={seconds}>
                {words}
              </option>
            ))}
          </select>
        </label>
        <button type="button" class="main" disabled={busy} onClick={() => void go()}>
          Rotate the key
        </button>
        <button type="button" onClick={close}>
          Cancel
        </button>
      </div>
      {error !== null && <Failure title="The key was not rotated" error={error} />}
    </div>
  );
}

function Revoke({ one, own, done, close }: { one: Key; own: boolean; done: (change: Change) => void; close: () => void }) {
  const keep = useRef<HTMLButtonElement>(null);
  useEffect(() => keep.current?.focus(), []);
  const { error, busy, go } = useSending<Key>(
    `admin/keys/${one.id}`,
    () => ({ method: "DELETE" }),
    (key) => done({ kind: "revoked", key }),
  );
  return (
    <div class="ask-first">
      <p>
        Revoke {one.name} for good? Whoever calls with it is refused within 5 seconds, and no way leads back.
        {own && <strong> You are signed in with it, and will be signed out.</strong>}
      </p>
      <div class="row">
        <button type="button" class="stop" disabled={busy} onClick={() => void go()}>
          Revoke the key
        </button>
        <button type="button" ref={keep} onClick={close}>
          Keep it
        </button>
      </div>
      {error !== null && <Failure title="The key was not revoked" error={error} />}
    </div>
  );
}
