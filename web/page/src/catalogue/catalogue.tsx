import { useEffect, useRef, useState } from "preact/hooks";
import { useAnswer } from "../answer";
import { type ApiError, asError, ask } from "../api";
import { count, many } from "../format";
import { Busy, Empty, Failure, Forbidden } from "../parts/notices";
import type { Who } from "../session";
import { PriceForm } from "./price-form";
import { type PriceRow, priceWords, TASKS } from "./prices";

const SHOWN_ROWS = 100;

interface Rows {
  models: PriceRow[];
  left_out: number;
}

/** The prices and contexts that calls are costed by; rows are set and removed by administrators of all. */
export function Catalogue({ who, suggested, done }: { who: Who; suggested: string | null; done: () => void }) {
  const all = who.tenant === null && who.chains === null;
  const allowed = all && who.scopes.includes("admin");
  const [words, setWords] = useState("");
  const [adding, setAdding] = useState(false);
  const [removing, setRemoving] = useState<PriceRow | null>(null);
  const [said, setSaid] = useState("");
  const query = new URLSearchParams({ limit: String(SHOWN_ROWS), ...(words.trim() === "" ? {} : { search: words.trim() }) });
  const [{ body, error, asking }, again] = useAnswer<Rows>(allowed ? `admin/models?${query}` : null);
  useEffect(() => {
    if (suggested !== null) setAdding(true);
  }, [suggested]);
  if (!all && who.scopes.includes("admin")) {
    return (
      <Empty title="Prices are the same for all tenants">
        <p>They are set with a key that is for no tenant and for all chains. What a call of yours costs stands above and in Usage.</p>
      </Empty>
    );
  }
  if (!allowed) return <Forbidden view="seeing and setting prices" scope="admin" id={who.key} />;
  const close = () => {
    setAdding(false);
    done();
  };
  const finish = (words: string) => {
    setSaid(words);
    setRemoving(null);
    close();
    again();
  };
  return (
    <section class="card sheet catalogue" aria-labelledby="catalogue">
      <div class="card-head">
        <h2 id="catalogue">Prices and contexts</h2>
        <button type="button" class="small" aria-expanded={adding} onClick={() => (adding ? close() : setAdding(true))}>
          Add a model
        </button>
      </div>
      <p class="muted" role="status">
        {said || "Calls are costed by these rows. A row adds no chain, and removing one removes none."}
      </p>
      {adding && <PriceForm key={suggested ?? ""} model={suggested ?? ""} done={finish} close={close} />}
      <label class="field filter">
        <span>Find a model</span>
        <input type="search" value={words} onInput={(event) => setWords(event.currentTarget.value)} maxLength={200} autocomplete="off" spellcheck={false} />
      </label>
      {error !== null && (
        <Failure title="The catalogue could not be read" error={error}>
          <button type="button" onClick={again}>
            Try again
          </button>
        </Failure>
      )}
      {body === null && error === null && <Busy>Asking for the catalogue …</Busy>}
      {removing !== null && <Removing row={removing} rows={body?.models ?? []} done={finish} close={() => setRemoving(null)} />}
      {body !== null && body.models.length === 0 && <p>{words.trim() === "" ? "The catalogue is empty: every cost is unknown until a price is set, or `hf-gateway models refresh` has fetched the router's." : asking ? "Looking …" : "No model of the catalogue has this in its name."}</p>}
      {body !== null && body.models.length > 0 && <PriceTable body={body} remove={setRemoving} />}
    </section>
  );
}

function PriceTable({ body, remove }: { body: Rows; remove: (row: PriceRow) => void }) {
  return (
    <>
      <div class="scrolls" tabIndex={0} role="group" aria-labelledby="catalogue">
        <table>
          <thead>
            <tr>
              <th scope="col">Model</th>
              <th scope="col" class="words">
                Task
              </th>
              <th scope="col" class="words">
                Provider
              </th>
              <th scope="col" class="words">
                Price
              </th>
              <th scope="col">Context</th>
              <th scope="col" class="words">
                Set by
              </th>
              <th scope="col">
                <span class="hidden">Remove</span>
              </th>
            </tr>
          </thead>
          <tbody>
            {body.models.map((row) => (
              <tr key={`${row.model} ${row.task} ${row.provider ?? ""}`}>
                <th scope="row">{row.model}</th>
                <td class="words">{TASKS[row.task]?.title ?? row.task}</td>
                <td class="words">{row.provider ?? "any"}</td>
                <td class="words price">{priceWords(row.usd)}</td>
                <td>{row.context_length === null ? <span class="muted">unknown</span> : count(row.context_length)}</td>
                <td class="words">{row.pinned ? "hand" : row.source}</td>
                <td>
                  <button type="button" class="quiet small" aria-label={`Remove ${row.model}, ${row.task}, ${row.provider ?? "any provider"}`} onClick={() => remove(row)}>
                    Remove
                  </button>
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {body.left_out > 0 && <p class="muted small-print">{many(body.left_out, "more row")} of the catalogue; find them by name.</p>}
    </>
  );
}

function Removing({ row, rows, done, close }: { row: PriceRow; rows: PriceRow[]; done: (said: string) => void; close: () => void }) {
  const [error, setError] = useState<ApiError | null>(null);
  const keep = useRef<HTMLButtonElement>(null);
  useEffect(() => keep.current?.focus(), [row]);
  // A row of any provider has no name of its own: with it go those of the same model and task.
  const gone = rows.filter((each) => each.model === row.model && each.task === row.task && (row.provider === null || each.provider === row.provider));
  const remove = async () => {
    const query = new URLSearchParams({ task: row.task, ...(row.provider === null ? {} : { provider: row.provider }) });
    try {
      const { models } = await ask<Rows>(`admin/models/${row.model.split("/").map(encodeURIComponent).join("/")}?${query}`, { method: "DELETE" });
      done(`${many(models.length, "row")} of ${row.model} removed`);
    } catch (thrown) {
      setError(asError(thrown));
    }
  };
  return (
    <div class="ask-first">
      <p>
        Remove {gone.length > 1 ? `the ${gone.length} rows` : "the row"} of {row.model} for {TASKS[row.task]?.title.toLowerCase() ?? row.task}
        {row.provider !== null && ` at ${row.provider}`}? New calls of it have an unknown cost within half a minute. {!row.pinned && "Rows of the router come back with the next refresh."}
      </p>
      <div class="row">
        <button type="button" class="stop" onClick={() => void remove()}>
          Remove {gone.length > 1 ? "the rows" : "the row"}
        </button>
        <button type="button" ref={keep} onClick={close}>
          Keep
        </button>
      </div>
      {error !== null && <Failure title="Nothing was removed" error={error} />}
    </div>
  );
}
