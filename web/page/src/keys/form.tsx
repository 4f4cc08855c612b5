import { useEffect, useRef, useState } from "preact/hooks";
import { type ApiError, asError, ask } from "../api";
import { moment } from "../format";
import { useModels } from "../models";
import { Failure } from "../parts/notices";
import type { Who } from "../session";
import { type Key, LIMITS, type NewKey, SCOPES, USUAL } from "./key";

const DAY_MS = 86_400_000;
const EXPIRIES = { "1": "In a day", "7": "In 7 days", "30": "In 30 days", "90": "In 90 days", "365": "In a year" } as const;
const BUDGETS = { usd_per_day: "USD a day", usd_per_month: "USD a month" } as const;

type Values = Record<string, unknown>;

/** Makes a key, or changes what one allows; only what was changed is sent. */
export function KeyForm({ who, before, done, close }: { who: Who; before: Key | null; done: (made: Key | NewKey) => void; close: () => void }) {
  const [fault, setFault] = useState("");
  const [error, setError] = useState<ApiError | null>(null);
  const [busy, setBusy] = useState(false);
  const [some, setSome] = useState(before?.chains != null || who.chains !== null);
  const form = useRef<HTMLFormElement>(null);
  useEffect(() => {
    const opener = document.activeElement;
    form.current?.querySelector<HTMLInputElement>("input")?.focus();
    return () => {
      if (opener instanceof HTMLElement && opener.isConnected) opener.focus();
    };
  }, []);
  const submit = async (event: SubmitEvent) => {
    event.preventDefault();
    if (form.current === null || busy) return;
    const values = valuesOf(new FormData(form.current), before, some);
    const wrong = faultOf(values);
    setFault(wrong);
    setError(null);
    if (wrong !== "") return;
    const changed = before === null ? values : changesOf(values, before);
    setBusy(true);
    try {
      if (before === null) done(await ask<NewKey>("admin/keys", { json: changed }));
      else if (Object.keys(changed).length === 0) close();
      else done(await ask<Key>(`admin/keys/${before.id}`, { method: "PATCH", json: changed }));
    } catch (thrown) {
      setError(asError(thrown));
      setBusy(false);
    }
  };
  const title = before === null ? "New key" : `Change ${before.name}`;
  return (
    <form class="card sheet-form" ref={form} onSubmit={(event) => void submit(event)} aria-label={title} noValidate>
      <h2>{title}</h2>
      <div class="fields">
        <label class="field">
          <span>Name</span>
          <input name="name" defaultValue={before?.name ?? ""} maxLength={200} placeholder="What it is for" autocomplete="off" />
        </label>
        {before === null && (
          <label class="field">
            <span>Tenant</span>
            <input name="tenant" defaultValue={who.tenant ?? ""} readOnly={who.tenant !== null} maxLength={200} placeholder="Who is billed; empty for nobody" autocomplete="off" />
          </label>
        )}
        <label class="field">
          <span>Expires</span>
          <select name="expires">
            <option value="">{before?.expires != null ? `As now: ${moment(before.expires)}` : "Never"}</option>
            {before?.expires != null && <option value="never">Never</option>}
            {Object.entries(EXPIRIES).map(([days, words]) => (
              <option key={days} value={days}>
                {words}
              </option>
            ))}
          </select>
        </label>
      </div>
      <fieldset>
        <legend>May do</legend>
        <ul class="scopes">
          {Object.entries(SCOPES).map(([scope, words]) => (
            <li key={scope}>
              <label class="check">
                {/* A key grants no more than that of its maker. */}
                <input type="checkbox" name="scope" value={scope} defaultChecked={(before?.scopes ?? USUAL).includes(scope) && who.scopes.includes(scope)} disabled={!who.scopes.includes(scope)} />
                <span>
                  <strong>{scope}</strong> <span class="muted">{words}</span>
                </span>
              </label>
            </li>
          ))}
        </ul>
      </fieldset>
      <Chains who={who} before={before} some={some} setSome={setSome} />
      <details open={before !== null && Object.keys(LIMITS).some((name) => before[name as keyof typeof LIMITS] !== null)}>
        <summary>Limits and budgets</summary>
        <div class="fields">
          {Object.entries(LIMITS).map(([name, words]) => (
            <label class="field" key={name}>
              <span>{words}</span>
              <input name={name} type="number" min="1" step="1" inputMode="numeric" defaultValue={before?.[name as keyof typeof LIMITS] ?? ""} placeholder="No limit" />
            </label>
          ))}
          {Object.entries(BUDGETS).map(([name, words]) => (
            <label class="field" key={name}>
              <span>{words}</span>
              <input name={name} type="number" min="0" step="any" inputMode="decimal" placeholder={before === null ? "No budget" : "As now"} />
            </label>
          ))}
        </div>
      </details>
      {fault !== "" && (
        <p class="fault" role="alert">
          {fault}
        </p>
      )}
      {error !== null && <Failure title={before === null ? "No key was made" : "The key was not changed"} error={error} />}
      <div class="row">
        <button type="submit" class="main" disabled={busy}>
          {before === null ? "Make the key" : "Save"}
        </button>
        <button type="button" onClick={close}>
          Cancel
        </button>
      </div>
    </form>
  );
}

function Chains({ who, before, some, setSome }: { who: Who; before: Key | null; some: boolean; setSome: (some: boolean) => void }) {
  const [listed] = useModels();
  const known = listed.kind === "listed" ? listed.models.map((model) => model.id) : [];
  const names = [...new Set([...known, ...(before?.chains ?? [])])];
  return (
    <fieldset>
      <legend>May use</legend>
      <div class="row wide-row">
        <label class="check">
          <input type="radio" name="chains" checked={!some} disabled={who.chains !== null} onChange={() => setSome(false)} />
          All chains
        </label>
        <label class="check">
          <input type="radio" name="chains" checked={some} onChange={() => setSome(true)} />
          Only these
        </label>
      </div>
      {some && (
        <ul class="scopes">
          {names.map((name) => (
            <li key={name}>
              <label class="check">
                <input type="checkbox" name="chain" value={name} defaultChecked={before?.chains?.includes(name) ?? false} />
                {name}
              </label>
            </li>
          ))}
          {names.length === 0 && <li class="muted">The chains are not known yet.</li>}
        </ul>
      )}
    </fieldset>
  );
}

/** Return what the form says, by the names of the route; a field that is left out says nothing. */
function valuesOf(data: FormData, before: Key | null, some: boolean): Values {
  const text = (name: string) => String(data.get(name) ?? "").trim();
  const values: Values = { name: text("name"), scopes: data.getAll("scope"), chains: some ? data.getAll("chain") : null };
  if (before === null && text("tenant") !== "") values.tenant = text("tenant");
  if (text("expires") === "never") values.expires = null;
  else if (text("expires") !== "") values.expires = new Date(Date.now() + Number(text("expires")) * DAY_MS).toISOString();
  for (const name of Object.keys(LIMITS)) values[name] = text(name) === "" ? null : Number(text(name));
  for (const name of Object.keys(BUDGETS)) if (text(name) !== "") values[name] = text(name);
  return values;
}

/** Return what has to be mended before anything is sent; empty if nothing has. */
function faultOf(values: Values): string {
  if (values.name === "") return "Give the key a name: the list shows nothing else that people know it by.";
  if ((values.scopes as string[]).length === 0) return "Choose at least one thing that the key may do.";
  if ((values.chains as string[] | null)?.length === 0) return "Choose at least one chain, or all of them.";
  for (const [name, words] of Object.entries(LIMITS)) {
    const value = values[name] as number | null;
    if (value !== null && !(Number.isInteger(value) && value > 0)) return `${words}: a whole number above 0, or nothing for no limit.`;
  }
  for (const [name, words] of Object.entries(BUDGETS)) {
    if (values[name] !== undefined && !/^\d+(\.\d+)?$/.test(String(values[name]))) return `${words}: an amount such as 2.50, or nothing.`;
  }
  return "";
}

/** Return the values that are not those of the key. */
function changesOf(values: Values, before: Key): Values {
  const same = (one: unknown, other: unknown) => JSON.stringify(Array.isArray(one) ? [...one].sort() : one) === JSON.stringify(Array.isArray(other) ? [...other].sort() : other);
  return Object.fromEntries(Object.entries(values).filter(([name, value]) => !same(value, (before as unknown as Values)[name])));
}
