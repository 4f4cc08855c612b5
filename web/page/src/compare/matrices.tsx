import type { ComponentChildren } from "preact";
import { many, seconds, sentence } from "../format";
import { Words } from "../parts/markdown";
import { Busy } from "../parts/notices";
import { useStore } from "../store";
import { Exports } from "./answers";
import { type Choice, chosenOf } from "./choices";
import { pairsCsv, pairsJson } from "./export";
import { Picker } from "./picker";
import { agreeing, compare, type Comparison, halt, MOST_TEXTS, type Side, spaces, textsOf, type Verdict } from "./spaces";

const LETTERS = ["A", "B"];
const SAMPLE = "The harbour freezes in winter.\nIn January ships cannot leave the port.\nBread is baked at four in the morning.\nThe baker gets up early.\nWo ist der Bahnhof?";

/** Two ways of embedding the same texts. */
export function Matrices({ choices }: { choices: Choice[] }) {
  const now = useStore(spaces);
  const chosen = chosenOf(choices, now.chosen);
  const texts = textsOf(now.text);
  const ready = texts.length > 0 && !now.working;
  return (
    <>
      <form class="card compared" onSubmit={(event) => { event.preventDefault(); if (ready) void compare(chosen); }}>
        <Picker noun="Model" names={LETTERS} choices={choices} chosen={chosen} least={2} busy={now.working} choose={(ids) => spaces.update({ chosen: ids })} />
        <label class="field">
          <span>Texts, one a line</span>
          <textarea rows={5} value={now.text} placeholder={"Paste texts here,\nor take the sample."} onInput={(event) => spaces.update({ text: event.currentTarget.value })} />
        </label>
        {texts.length > MOST_TEXTS && <p class="notice warn">Only the first {MOST_TEXTS} of {many(texts.length, "text")} are compared.</p>}
        <div class="row">
          {now.working ? <button key="stop" type="button" class="stop" onClick={halt}>Stop</button> : <button key="begin" type="submit" class="main" disabled={!ready}>Compare</button>}
          <button type="button" disabled={now.working} onClick={() => spaces.update({ text: SAMPLE })}>Use the sample</button>
        </div>
      </form>
      <p class="hidden" role="status">{now.said}</p>
      {now.working && <Busy>Embedding {many(Math.min(texts.length, MOST_TEXTS), "text")} by both …</Busy>}
      {now.found !== null && <Found found={now.found} />}
      {now.found === null && !now.working && (
        <p class="muted">How alike the texts are by the one and by the other comes here, and whether the vectors of both may be kept in one index.</p>
      )}
    </>
  );
}

function Found({ found }: { found: Comparison }) {
  const { texts, sides, across, verdict } = found;
  const whole = sides.every((side) => side.matrix !== null);
  return (
    <>
      <Judged
        verdict={verdict}
        sides={sides}
        exports={sides.some((side) => side.matrix !== null) && <Exports name="similarities" asCsv={() => pairsCsv(found)} asJson={() => pairsJson(found)} />}
      >
        {whole && texts.length > 2 && <p>Both name the same nearest text for {agreeing(sides)} of {many(texts.length, "text")}.</p>}
      </Judged>
      <div class="matrices">
        {sides.map((side, index) => <SideCard key={index} letter={LETTERS[index] ?? ""} side={side} texts={texts} />)}
        {across !== null && (
          <section class="card" aria-label="A to B">
            <h3>A to B</h3>
            <p class="muted">Rows by A, columns by B; in one space the diagonal is 1.</p>
            <Matrix texts={texts} values={across} what="A to B" />
          </section>
        )}
      </div>
    </>
  );
}

interface JudgedProps {
  verdict: Verdict;
  sides: Side[];
  exports: ComponentChildren;
  children: ComponentChildren;
}

function Judged({ verdict, sides, exports, children }: JudgedProps) {
  return (
    <section class="card judged" aria-label="Verdict">
      <div class="card-head">
        <h2><span class={`state ${verdict.tone}`}>{verdict.title}</span></h2>
        {exports}
      </div>
      <p>{verdict.detail}</p>
      {verdict.differences.length > 0 && (
        <div class="scrolls" tabIndex={0} role="group" aria-label="Where the two spaces differ">
          <table class="differences">
            <thead>
              <tr><th scope="col">Differs in</th>{sides.map((_, index) => <th key={index} scope="col">{LETTERS[index]}</th>)}</tr>
            </thead>
            <tbody>
              {verdict.differences.map(({ field, a, b }) => (
                <tr key={field}><th scope="row">{field.replaceAll("_", " ")}</th><td>{a}</td><td>{b}</td></tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      {children}
    </section>
  );
}

function SideCard({ letter, side, texts }: { letter: string; side: Side; texts: string[] }) {
  return (
    <section class="card" aria-label={`${letter}: ${side.choice.label}`}>
      <h3><span class="badge">{letter}</span> {side.choice.label}</h3>
      {side.error !== null && (
        <div class="notice bad" role="alert">
          <p><strong>It did not answer</strong></p>
          <p class="said"><Words text={sentence(side.error.message)} /></p>
        </div>
      )}
      {side.matrix !== null && (
        <>
          <p class="muted">
            By {side.served} in {seconds(side.seconds)}, {many(side.dimension, "number")} a vector. Space <code>{side.space}</code>
          </p>
          <Matrix texts={texts} values={side.matrix} what={`Similarity by ${letter}`} />
        </>
      )}
    </section>
  );
}

/** Return a cosine with two digits, and never -0.00. */
function two(value: number): string {
  return (Math.round(value * 100) / 100 || 0).toFixed(2);
}

/** Cosines of texts with texts; the darker, the more alike. */
function Matrix({ texts, values, what }: { texts: string[]; values: number[][]; what: string }) {
  return (
    <div class="scrolls" tabIndex={0} role="group" aria-label={what}>
      <table class="matrix">
        <caption class="hidden">{what}</caption>
        <thead>
          <tr>
            <th scope="col"><span class="hidden">Text</span></th>
            {texts.map((text, index) => <th key={index} scope="col" title={text}>{index + 1}</th>)}
          </tr>
        </thead>
        <tbody>
          {values.map((row, index) => (
            <tr key={index}>
              <th scope="row" title={texts[index]}>{index + 1}. {texts[index]}</th>
              {row.map((value, place) => (
                <td key={place} style={{ "--share": String(Math.max(0, Math.min(1, value))) }}>{two(value)}</td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
