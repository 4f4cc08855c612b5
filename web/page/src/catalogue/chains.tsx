import { useAnswer } from "../answer";
import { count } from "../format";
import { type Model, useModels } from "../models";
import { Busy, Command, Empty, Failure } from "../parts/notices";
import type { Who } from "../session";
import { chainPrice } from "./prices";

interface Targets {
  chains: { name: string; targets: { target: string }[] }[];
}

/** The models that the server serves: its chains and their aliases, as `/v1/models` lists them. */
export function Chains({ who }: { who: Who }) {
  const [listed, again] = useModels();
  const [{ body }] = useAnswer<Targets>("ui/health");
  if (listed.kind === "loading") return <Busy>Asking for the models …</Busy>;
  if (listed.kind === "failed") {
    return (
      <Failure title="The models could not be listed" error={listed.error}>
        <button type="button" onClick={again}>
          Try again
        </button>
      </Failure>
    );
  }
  if (listed.models.length === 0) {
    return (
      <Empty title={who.chains === null ? "This server has no chain" : "Your key may use no chain of this server"}>
        <p>{who.chains === null ? "Search the Hub below; each model found says what to write into hf-gateway.toml." : "Its administrator can allow some:"}</p>
        {who.chains !== null && <Command>{`hf-gateway keys change ${who.key ?? "ID"} --chains NAME`}</Command>}
      </Empty>
    );
  }
  const targets = new Map(body?.chains.map((chain) => [chain.name, chain.targets.map((each) => each.target)]));
  return (
    <section class="card sheet" aria-labelledby="served">
      <h2 id="served">Served here</h2>
      <div class="scrolls" tabIndex={0} role="group" aria-labelledby="served">
        <table>
          <thead>
            <tr>
              <th scope="col">Name</th>
              <th scope="col" class="words">
                Task
              </th>
              <th scope="col" class="words">
                Model
              </th>
              <th scope="col">Context</th>
              <th scope="col" class="words">
                Price
              </th>
              <th scope="col" class="words">
                Served by
              </th>
              <th scope="col" class="words">
                Space
              </th>
            </tr>
          </thead>
          <tbody>
            {listed.models.map((model) => (
              <ChainRow key={model.id} model={model} targets={targets.get(model.id) ?? []} />
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
}

function ChainRow({ model, targets }: { model: Model; targets: string[] }) {
  return (
    <tr>
      <th scope="row">{model.id}</th>
      <td class="words">{model.task}</td>
      <td class="words name-of-model">{model.model}</td>
      <td>{model.context_length === undefined ? <span class="muted">unknown</span> : count(model.context_length)}</td>
      <td class="words price">{chainPrice(model.price)}</td>
      <td class="words">
        <ol class="served-by">
          {targets.map((target, index) => (
            <li key={index}>{target}</li>
          ))}
        </ol>
      </td>
      <td class="words space">
        {model.space === undefined ? <span class="muted">no vectors</span> : <span class="mono">{model.space}</span>}
      </td>
    </tr>
  );
}
