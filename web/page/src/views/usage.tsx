import { useAnswer } from "../answer";
import { count, many, short } from "../format";
import { Busy, Empty, Failure, Forbidden } from "../parts/notices";
import { session, type Who } from "../session";
import { Store, useStore } from "../store";
import { DayChart } from "../usage/chart";
import { amount, type Figures, type Filter, FILTERS, GROUPINGS, type Grouping, latency, MEASURES, type MeasureName, PERIODS, type Period, type Report } from "../usage/figures";
import { GroupTable } from "../usage/table";
import "../usage/usage.css";

interface Choice {
  period: Period;
  by: Grouping;
  measure: MeasureName;
  only: Partial<Record<Filter, string>>;
}

const FIRST: Choice = { period: "30d", by: "model", measure: "calls", only: {} };
const choice = new Store<Choice>(FIRST);

session.watch(() => {
  if (session.value.kind === "out") choice.set(FIRST);
});

function pathOf({ period, only }: Choice, by: Grouping): string {
  return `admin/usage?${new URLSearchParams({ by, since: period, ...only })}`;
}

export function UsageView({ who }: { who: Who }) {
  // A caller with a tenant sees its own calls; those of all are an administrator's.
  const allowed = who.tenant !== null || who.scopes.includes("admin");
  const chosen = useStore(choice);
  const [daily, againDaily] = useAnswer<Report>(allowed ? pathOf(chosen, "day") : null);
  const [grouped, againGrouped] = useAnswer<Report>(allowed && chosen.by !== "day" ? pathOf(chosen, chosen.by) : null);
  if (!allowed) {
    return (
      <>
        <h1>Usage</h1>
        <Forbidden view="looking at everybody's usage" scope="admin" id={who.key} />
      </>
    );
  }
  const table = chosen.by === "day" ? daily : grouped;
  const error = daily.error ?? table.error;
  const again = () => {
    againDaily();
    againGrouped();
  };
  const total = daily.body?.total ?? null;
  const asking = daily.asking || table.asking;
  return (
    <>
      <div class="head">
        <div>
          <h1>Usage</h1>
          <p class="lead" role="status">
            {asking ? "Asking the ledger …" : total !== null && error === null ? said(total, chosen) : ""}
          </p>
        </div>
        <div class="row">
          <label class="grouping">
            <span>Period</span>
            <select value={chosen.period} onChange={(event) => choice.update({ period: event.currentTarget.value as Period })}>
              {Object.entries(PERIODS).map(([period, title]) => (
                <option key={period} value={period}>
                  Last {title}
                </option>
              ))}
            </select>
          </label>
          <button type="button" onClick={again} disabled={asking}>
            Refresh
          </button>
        </div>
      </div>
      {Object.keys(chosen.only).length > 0 && <Filters chosen={chosen} />}
      {error !== null && (
        <Failure title="The usage could not be summed up" error={error}>
          <button type="button" onClick={again}>
            Try again
          </button>
        </Failure>
      )}
      {total === null && error === null && <Busy>Asking the ledger …</Busy>}
      {daily.body !== null && total !== null && (isNone(total) ? <Nothing chosen={chosen} /> : <Body daily={daily.body} table={table.body} chosen={chosen} />)}
    </>
  );
}

function isNone(total: Figures): boolean {
  return total.requests === 0 && total.attempts === 0;
}

function said(total: Figures, { period }: Choice): string {
  const failed = total.failed === 0 ? "none failed" : `${count(total.failed)} failed`;
  return isNone(total) ? `No calls in the last ${PERIODS[period]}` : `${many(total.requests, "call")} in the last ${PERIODS[period]}, ${failed}`;
}

function Filters({ chosen }: { chosen: Choice }) {
  const filters = FILTERS.flatMap((filter) => (chosen.only[filter] === undefined ? [] : [[filter, chosen.only[filter]] as const]));
  const without = (filter: Filter) => {
    const { [filter]: _, ...only } = chosen.only;
    choice.update({ only });
  };
  return (
    <ul class="row only" aria-label="Only">
      {filters.map(([filter, name]) => (
        <li key={filter}>
          <button type="button" class="small chip" onClick={() => without(filter)} aria-label={`Show more than the ${filter} ${name}`}>
            {GROUPINGS[filter]}: {name} <span aria-hidden="true">✕</span>
          </button>
        </li>
      ))}
    </ul>
  );
}

function Nothing({ chosen }: { chosen: Choice }) {
  const filtered = Object.keys(chosen.only).length > 0;
  return (
    <Empty title={filtered ? "No call matches" : "No calls yet"}>
      <p>
        {filtered
          ? `In the last ${PERIODS[chosen.period]} there was no such call.`
          : `In the last ${PERIODS[chosen.period]} nobody called this server. Each call is counted when it has ended.`}
      </p>
      <div class="row">
        {filtered && (
          <button type="button" onClick={() => choice.update({ only: {} })}>
            Show all calls
          </button>
        )}
        {chosen.period !== "90d" && (
          <button type="button" onClick={() => choice.update({ period: "90d" })}>
            Look at the last 90 days
          </button>
        )}
        {!filtered && <a href="#/search">Make the first call by a search</a>}
      </div>
    </Empty>
  );
}

function Body({ daily, table, chosen }: { daily: Report; table: Report | null; chosen: Choice }) {
  const measure = MEASURES[chosen.measure];
  const lost = Object.entries(daily.lost);
  return (
    <>
      <Tiles total={daily.total} />
      {lost.length > 0 && (
        <p class="notice warn">
          Not every call could be recorded: {lost.map(([reason, number]) => `${count(number)} (${reason})`).join(", ")} are missing here.
        </p>
      )}
      <section class="card by-day" aria-labelledby="by-day">
        <div class="card-head">
          <h2 id="by-day">Each day</h2>
          <div class="switch" role="group" aria-label="Measure">
            {Object.entries(MEASURES).map(([name, each]) => (
              <button key={name} type="button" class="small" aria-pressed={name === chosen.measure} onClick={() => choice.update({ measure: name as MeasureName })}>
                {each.title}
              </button>
            ))}
          </div>
        </div>
        <DayChart report={daily} measure={measure} label={`${measure.title} of each day; the table by day has the same figures`} />
      </section>
      {table === null ? (
        <Busy>Asking the ledger …</Busy>
      ) : (
        <GroupTable
          report={table}
          by={table.by as Grouping}
          group={(by) => choice.update({ by })}
          only={(filter, name) => choice.update({ only: { ...choice.value.only, [filter]: name }, by: "day" })}
        />
      )}
    </>
  );
}

function Tiles({ total }: { total: Figures }) {
  const share = total.requests === 0 ? 0 : (100 * total.failed) / total.requests;
  return (
    <dl class="tiles">
      <Tile name="Calls" note={total.cached > 0 ? `${count(total.cached)} from the cache` : ""}>
        {short(total.requests)}
      </Tile>
      <Tile name="Failed" note={total.failed > 0 ? `${share < 0.1 ? "under 0.1" : share.toFixed(1)} % of calls` : ""} tone={total.failed > 0 ? "bad" : undefined}>
        {short(total.failed)}
      </Tile>
      <Tile name="Tokens" note={`${short(total.input_tokens)} in, ${short(total.output_tokens)} out`}>
        {short(total.input_tokens + total.output_tokens)}
      </Tile>
      <Tile name="Cost" note={total.cost_usd === null || total.cost_unknown === 0 ? "" : `and ${many(total.cost_unknown, "attempt")} of unknown cost`}>
        {total.cost_usd === null ? "unknown" : amount(total)}
      </Tile>
      <Tile name="Latency" note={`95 % within ${latency(total.p95_ms)}`}>
        {latency(total.p50_ms)}
      </Tile>
    </dl>
  );
}

function Tile({ name, note, tone, children }: { name: string; note: string; tone?: "bad" | undefined; children: string }) {
  return (
    <div class="card">
      <dt>{name}</dt>
      <dd class={`figure ${tone ?? ""}`}>{children}</dd>
      {note !== "" && <dd class="muted small-print">{note}</dd>}
    </div>
  );
}
