import type { Choice } from "./choices";

interface Props {
  noun: string;
  /** What each place is called; its number by default. */
  names?: string[];
  choices: Choice[];
  chosen: Choice[];
  least: number;
  busy: boolean;
  choose: (ids: string[]) => void;
}

/** Which are compared: a list of choices each, that can be taken away. */
export function Picker({ noun, names, choices, chosen, least, busy, choose }: Props) {
  const ids = chosen.map((each) => each.id);
  return (
    <div class="picker">
      {chosen.map((choice, place) => (
        <div key={place} class="picked">
          <label class="field">
            <span>{noun} {names?.[place] ?? place + 1}</span>
            <select value={choice.id} disabled={busy} onChange={(event) => choose(ids.map((id, index) => (index === place ? event.currentTarget.value : id)))}>
              {choices.map((each) => <option key={each.id} value={each.id}>{each.label}</option>)}
            </select>
          </label>
          {chosen.length > least && (
            <button type="button" class="quiet small" disabled={busy} aria-label={`Remove ${noun.toLowerCase()} ${place + 1}`} title="Remove" onClick={() => choose(ids.filter((_, index) => index !== place))}>
              <span aria-hidden="true">×</span>
            </button>
          )}
        </div>
      ))}
    </div>
  );
}
