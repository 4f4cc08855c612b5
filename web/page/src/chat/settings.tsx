import type { Model } from "../models";
import { count } from "../format";
import { change } from "./talk";
import { type Conversation, faultsOf, type Parameters } from "./types";

const EXAMPLE_TOOL = '[{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}]';

/** Which model answers, and how. */
export function Settings({ conversation, models, busy }: { conversation: Conversation; models: Model[]; busy: boolean }) {
  return (
    <div class="settings">
      <label class="field model-field">
        <span>Model</span>
        <select value={conversation.model} disabled={busy} onChange={(event) => change({ ...conversation, model: event.currentTarget.value })}>
          {models.map((model) => (
            <option key={model.id} value={model.id}>
              {model.id === model.model ? model.id : `${model.id} · ${model.model}`}
              {model.context_length !== undefined && ` · ${count(model.context_length)} tokens`}
            </option>
          ))}
        </select>
      </label>
      <HowToAnswer conversation={conversation} change={change} tools />
    </div>
  );
}

/** The system prompt and the parameters, folded. */
export function HowToAnswer({ conversation, change, tools = false }: { conversation: Conversation; change: (conversation: Conversation) => void; tools?: boolean }) {
  const { parameters } = conversation;
  const faults = faultsOf(parameters);
  const set = (changes: Partial<Parameters>) => change({ ...conversation, parameters: { ...parameters, ...changes } });
  const changed = Object.values(parameters).filter((value) => value.trim() !== "").length + (conversation.system.trim() === "" ? 0 : 1);
  const number = (name: keyof Parameters, label: string, hint: string, step: string) => (
    <label class="field">
      <span>{label}</span>
      <input
        type="number"
        inputMode="decimal"
        step={step}
        min="0"
        value={parameters[name]}
        placeholder={hint}
        aria-invalid={faults[name] !== undefined}
        onInput={(event) => set({ [name]: event.currentTarget.value })}
      />
      {faults[name] !== undefined && <span class="fault">Must be {faults[name]}</span>}
    </label>
  );
  return (
    <details>
      <summary>
        System prompt and parameters
        {changed > 0 && <span class="badge">{changed} set</span>}
      </summary>
      <div class="parameters">
        <label class="field whole">
          <span>System prompt</span>
          <textarea rows={3} value={conversation.system} placeholder="How the model should answer" onInput={(event) => change({ ...conversation, system: event.currentTarget.value })} />
        </label>
        {number("temperature", "Temperature", "model's own", "0.1")}
        {number("top_p", "Top p", "model's own", "0.05")}
        {number("max_tokens", "Max tokens", "model's own", "1")}
        {number("seed", "Seed", "random", "1")}
        <label class="field">
          <span>Reasoning</span>
          <select value={parameters.reasoning_effort} onChange={(event) => set({ reasoning_effort: event.currentTarget.value })}>
            <option value="">model's own</option>
            <option value="none">none</option>
            <option value="low">low</option>
            <option value="medium">medium</option>
            <option value="high">high</option>
          </select>
        </label>
        {tools && <label class="field whole">
          <span>Tools (JSON)</span>
          <textarea class="mono" rows={3} spellcheck={false} value={parameters.tools} placeholder={EXAMPLE_TOOL} aria-invalid={faults.tools !== undefined} onInput={(event) => set({ tools: event.currentTarget.value })} />
          {faults.tools !== undefined && <span class="fault">Must be {faults.tools}</span>}
        </label>}
      </div>
    </details>
  );
}
