import { count, many } from "../format";
import { cost, dayName, errors, type Filter, type Group, GROUPINGS, type Grouping, isFilter, latency, type Report, unknownCost } from "./figures";

/** The figures of each group; the name of one that can be looked at alone is a button. */
export function GroupTable({ report, by, group, only }: { report: Report; by: Grouping; group: (by: Grouping) => void; only: (filter: Filter, name: string) => void }) {
  const groups = sorted(report.groups, by);
  const documents = groups.some((each) => each.documents > 0);
  const images = groups.some((each) => each.images > 0);
  return (
    <section class="card sheet groups" aria-labelledby="groups">
      <div class="card-head">
        <h2 id="groups">By {GROUPINGS[by].toLowerCase()}</h2>
        <label class="grouping">
          <span>Table by</span>
          <select value={by} onChange={(event) => group(event.currentTarget.value as Grouping)}>
            {Object.entries(GROUPINGS).map(([each, title]) => (
              <option key={each} value={each}>
                {title}
              </option>
            ))}
          </select>
        </label>
      </div>
      <div class="scrolls" tabIndex={0} role="group" aria-labelledby="groups">
        <table>
          <thead>
            <tr>
              <th scope="col">{GROUPINGS[by]}</th>
              <th scope="col">Calls</th>
              <th scope="col">Failed</th>
              <th scope="col">Tokens in</th>
              <th scope="col">Tokens out</th>
              {documents && <th scope="col">Documents</th>}
              {images && <th scope="col">Images</th>}
              <th scope="col">Cost</th>
              <th scope="col">p50</th>
              <th scope="col">p95</th>
            </tr>
          </thead>
          <tbody>
            {groups.map((each) => (
              <tr key={each.name ?? ""}>
                <th scope="row">
                  <Name group={each} by={by} only={only} />
                </th>
                <td>{count(each.requests)}</td>
                <td class={each.failed > 0 ? "bad" : undefined}>
                  {count(each.failed)}
                  {errors(each).map(([name, number]) => (
                    <span key={name} class="error">
                      {count(number)} {name}
                    </span>
                  ))}
                </td>
                <td>{count(each.input_tokens)}</td>
                <td>{count(each.output_tokens)}</td>
                {documents && <td>{count(each.documents)}</td>}
                {images && <td>{count(each.images)}</td>}
                <td class={each.cost_unknown > 0 ? "unknown" : undefined} title={unknownCost(each)}>
                  {cost(each)}
                </td>
                <td>{latency(each.p50_ms)}</td>
                <td>{latency(each.p95_ms)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      <p class="muted small-print">
        {report.of_attempts ? "Failures and latencies are of single attempts at a target, of which a call may need several. " : ""}
        {report.left_out > 0 ? `${many(report.left_out, "group")} with fewer attempts ${report.left_out === 1 ? "is" : "are"} not shown here; the sums above have them. ` : ""}
      </p>
    </section>
  );
}

/** Days are shown with the last one first, the others by their calls. */
function sorted(groups: Group[], by: Grouping): Group[] {
  const found = [...groups];
  return by === "day" ? found.reverse() : found.sort((one, other) => other.requests - one.requests);
}

function Name({ group: { name }, by, only }: { group: Group; by: Grouping; only: (filter: Filter, name: string) => void }) {
  if (name === null) return <span class="muted">none</span>;
  if (by === "day") return <>{dayName(Date.parse(name) / 1000)}</>;
  if (!isFilter(by)) return <>{name}</>;
  return (
    <button type="button" class="link" onClick={() => only(by, name)} title={`Look at this ${GROUPINGS[by].toLowerCase()} alone`}>
      {name}
    </button>
  );
}
