import { AnswerBody, Others } from "../chat/message";
import { HowToAnswer } from "../chat/settings";
import { faultsOf } from "../chat/types";
import type { Facts } from "../chat/types";
import { count, seconds, usd } from "../format";
import { CopyButton } from "../parts/copy";
import { download } from "../parts/download";
import { useStore } from "../store";
import { type Choice, chosenOf } from "./choices";
import { answersCsv, answersJson } from "./export";
import { again, begin, bestOf, cameAtOnce, type Column, halt, LEAST_CHOICES, match, MOST_CHOICES, promptOf, speedOf } from "./match";
import { Picker } from "./picker";

/** One prompt, several answers. */
export function Answers({ choices }: { choices: Choice[] }) {
  const now = useStore(match);
  const chosen = chosenOf(choices, now.chosen);
  const answering = now.columns.some((column) => column.answering);
  const ready = now.prompt.trim() !== "" && Object.keys(faultsOf(now.how.parameters)).length === 0;
  const submit = (event: Event) => {
    event.preventDefault();
    if (ready && !answering) begin(chosen);
  };
  const choose = (ids: string[]) => match.update({ chosen: ids });
  return (
    <>
      <form class="card compared" onSubmit={submit}>
        <Picker noun="Model" choices={choices} chosen={chosen} least={LEAST_CHOICES} busy={answering} choose={choose} />
        <label class="field">
          <span>Prompt</span>
          <textarea
            rows={3}
            value={now.prompt}
            placeholder="What all of them are asked"
            onInput={(event) => match.update({ prompt: event.currentTarget.value })}
            onKeyDown={(event) => {
              if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) submit(event);
            }}
          />
        </label>
        <div class="settings">
          <HowToAnswer conversation={now.how} change={(how) => match.update({ how })} />
        </div>
        <div class="row">
          {/* Two elements: one that became the other within its click would do the other's work, too. */}
          {answering ? (
            <button key="stop" type="button" class="stop" onClick={() => halt()}>Stop all</button>
          ) : (
            <button key="begin" type="submit" class="main" disabled={!ready}>Compare</button>
          )}
          {chosen.length < MOST_CHOICES && <button type="button" disabled={answering} onClick={() => choose([...chosen.map((each) => each.id), ""])}>Add a model</button>}
          <span class="muted hint">Ctrl + Enter compares</span>
        </div>
      </form>
      <p class="hidden" role="status">{now.said}</p>
      {now.asked === null ? (
        <p class="muted">The answers come here side by side, each with the time to its first token, its speed and its cost.</p>
      ) : (
        <>
          <div class="card-head results-head">
            <h2 class="asked">“{promptOf(now.asked)}”</h2>
            <Exports name="comparison" disabled={answering} asCsv={() => answersCsv(now.columns)} asJson={() => now.asked === null ? "" : answersJson(now.asked, now.columns)} />
          </div>
          <Columns columns={now.columns} busy={answering} />
        </>
      )}
    </>
  );
}

export function Exports({ name, disabled = false, asCsv, asJson }: { name: string; disabled?: boolean; asCsv: () => string; asJson: () => string }) {
  return (
    <div class="row exports">
      <button type="button" class="small" disabled={disabled} onClick={() => download(`${name}.csv`, asCsv(), "text/csv")}>Save CSV</button>
      <button type="button" class="small" disabled={disabled} onClick={() => download(`${name}.json`, asJson(), "application/json")}>Save JSON</button>
    </div>
  );
}

interface Row {
  title: string;
  shown: (facts: Facts) => string | null;
  /** What the best is called, and by which value it is found. */
  best?: [string, (facts: Facts) => number | null, boolean];
}

const ROWS: Row[] = [
  { title: "First token", shown: (facts) => (facts.firstSeconds === null ? null : seconds(facts.firstSeconds)), best: ["first", (facts) => facts.firstSeconds, false] },
  { title: "Speed", shown: (facts) => perSecond(speedOf(facts)) ?? (cameAtOnce(facts) ? "came at once" : null), best: ["fastest", speedOf, true] },
  { title: "Tokens", shown: (facts) => (facts.inputTokens === null || facts.outputTokens === null ? null : `${count(facts.inputTokens)} → ${count(facts.outputTokens)}`) },
  { title: "Cost", shown: (facts) => (facts.costUsd === null ? null : usd(facts.costUsd)), best: ["cheapest", (facts) => facts.costUsd, false] },
  { title: "In all", shown: (facts) => seconds(facts.seconds) },
];

function perSecond(speed: number | null): string | null {
  return speed === null ? null : `${speed < 10 ? speed.toFixed(1) : count(Math.round(speed))} tokens/s`;
}

function Columns({ columns, busy }: { columns: Column[]; busy: boolean }) {
  const best = ROWS.map((row) => (row.best === undefined || busy ? new Set<string>() : bestOf(columns, row.best[1], row.best[2])));
  return (
    <div class="columns">
      {columns.map((column) => {
        const { id, choice, message, answering } = column;
        const { facts } = message;
        return (
          <article key={id} class="card column" aria-label={choice.label} aria-busy={answering}>
            <h3>{choice.label}</h3>
            <div class="body">
              <AnswerBody message={message} answering={answering} />
            </div>
            <footer>
              {facts !== undefined && !answering && (
                <dl>
                  {ROWS.map((row, index) => (
                    <div key={row.title}>
                      <dt>{row.title}</dt>
                      <dd>
                        {row.shown(facts) ?? <span class="muted">unknown</span>}
                        {best[index]?.has(id) && <> <span class="badge">{row.best?.[0]}</span></>}
                      </dd>
                    </div>
                  ))}
                  <div class="served">
                    <dt>Served by</dt>
                    <dd>{facts.servedBy ?? <span class="muted">unknown</span>}</dd>
                  </div>
                </dl>
              )}
              <div class="actions">
                {answering ? (
                  <button type="button" class="quiet small" onClick={() => halt(id)} aria-label={`Stop ${choice.label}`}>Stop</button>
                ) : (
                  <>
                    {message.content !== "" && <CopyButton text={message.content} what={`the answer of ${choice.label}`} />}
                    <button type="button" class="quiet small" onClick={() => again(column)} aria-label={`Ask again ${choice.label}`}>Ask again</button>
                  </>
                )}
              </div>
              {facts !== undefined && !answering && <Others attempts={facts.attempts} />}
            </footer>
          </article>
        );
      })}
    </div>
  );
}
