import { useEffect, useRef, useState } from "preact/hooks";
import { type ApiError, asError, ask } from "../api";
import { Failure } from "../parts/notices";
import { PARTS, type PriceRow, TASKS } from "./prices";

/** Sets a row of the catalogue; fields that are left empty are unknown. */
export function PriceForm({ model, done, close }: { model: string; done: (said: string) => void; close: () => void }) {
  const [task, setTask] = useState("text-generation");
  const [fault, setFault] = useState("");
  const [error, setError] = useState<ApiError | null>(null);
  const form = useRef<HTMLFormElement>(null);
  useEffect(() => form.current?.querySelector<HTMLInputElement>("input")?.focus(), []);
  const parts = TASKS[task]?.parts ?? [];
  const submit = async (event: SubmitEvent) => {
    event.preventDefault();
    if (form.current === null) return;
    const data = new FormData(form.current);
    const text = (name: string) => String(data.get(name) ?? "").trim();
    const usd = Object.fromEntries(parts.flatMap((part) => (text(part) === "" ? [] : [[part, text(part)]])));
    setError(null);
    setFault("");
    if (text("model") === "") return setFault("Name the model by its id on the Hub, such as org/model.");
    if (Object.keys(usd).length === 0) return setFault("Give at least one price; 0 if it is free.");
    const context = text("context_length");
    try {
      const { replaced } = await ask<{ replaced: boolean; model: PriceRow }>("admin/models", {
        json: {
          model: text("model"),
          task,
          usd,
          ...(text("provider") === "" ? {} : { provider: text("provider") }),
          ...(context === "" ? {} : { context_length: Number(context) }),
        },
      });
      done(`The row of ${text("model")} was ${replaced ? "replaced" : "added"}`);
    } catch (thrown) {
      setError(asError(thrown));
    }
  };
  return (
    <form class="sheet-form ask-first" ref={form} onSubmit={(event) => void submit(event)} aria-label="Add a model" noValidate>
      <div class="fields">
        <label class="field">
          <span>Model</span>
          <input name="model" defaultValue={model} maxLength={500} placeholder="org/model" autocomplete="off" spellcheck={false} />
        </label>
        <label class="field">
          <span>Task</span>
          <select value={task} onChange={(event) => setTask(event.currentTarget.value)}>
            {Object.entries(TASKS).map(([name, { title }]) => (
              <option key={name} value={name}>
                {title}
              </option>
            ))}
          </select>
        </label>
        <label class="field">
          <span>Provider</span>
          <input name="provider" maxLength={500} placeholder="Any Inference Provider" autocomplete="off" spellcheck={false} />
        </label>
        <label class="field">
          <span>Context, in tokens</span>
          <input name="context_length" type="number" min="1" step="1" inputMode="numeric" placeholder="Unknown" />
        </label>
        {parts.map((part) => (
          <label class="field" key={part}>
            <span>{PARTS[part]}</span>
            <input name={part} type="number" min="0" step="any" inputMode="decimal" placeholder="Unknown" />
          </label>
        ))}
      </div>
      <p class="muted small-print">
        A provider is one of Hugging Face's router, such as novita, or a target of this server's configuration, such as openai:https://api.example.com.
      </p>
      {fault !== "" && (
        <p class="fault" role="alert">
          {fault}
        </p>
      )}
      {error !== null && <Failure title="The row was not set" error={error} />}
      <div class="row">
        <button type="submit" class="main">
          Set the row
        </button>
        <button type="button" onClick={close}>
          Cancel
        </button>
      </div>
    </form>
  );
}
