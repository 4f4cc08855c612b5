import { useEffect } from "preact/hooks";
import { type ApiError, asError, ask, connection } from "../api";
import { many, seconds, sentence } from "../format";
import { Fact } from "../parts/fact";
import { Away, Words } from "../parts/markdown";
import { Busy, Empty, Failure } from "../parts/notices";
import { session, type Who } from "../session";
import { Store, useStore } from "../store";

interface Target {
  index: number;
  target: string;
  kind: string;
  in_process: boolean;
  needs_key: "never" | "optional" | "required";
  key_reason: string;
  key_source: string | null;
  breaker: string;
  retry_in: number | null;
  space_check: "unchecked" | "same" | "quarantined" | null;
  worst_cosine: number | null;
  ready: boolean;
  reason: string | null;
  /** null until it was asked. */
  answers: boolean | null;
  seconds: number | null;
  checked_seconds_ago: number | null;
  serves: string[];
  detail: string;
  fix: string | null;
  token_url: string | null;
}

interface Chain {
  name: string;
  task: string;
  model: string;
  works: boolean | null;
  targets: Target[];
}

interface Service {
  name: string;
  title: string;
  state: "ok" | "failed" | "off" | "unknown";
  detail: string;
  fix: string | null;
  seconds: number | null;
  token: { state: "valid" | "invalid" | "missing" | "unchecked"; source: string | null; account: string | null; url: string } | null;
}

interface Found {
  version: string;
  uptime_seconds: number;
  chains: Chain[];
  services: Service[];
}

interface State {
  found: Found | null;
  error: ApiError | null;
  /** What is being asked now: `chain/0`, `service:hub`. */
  asking: ReadonlySet<string>;
  said: string;
}

const state = new Store<State>({ found: null, error: null, asking: new Set(), said: "" });

session.watch(() => {
  if (session.value.kind === "out") state.set({ found: null, error: null, asking: new Set(), said: "" });
});

/** Show what is known at once, then ask every target that was not asked lately. */
async function open(again: boolean): Promise<void> {
  try {
    state.update({ found: await ask<Found>("ui/health"), error: null });
  } catch (thrown) {
    state.update({ error: asError(thrown) });
    return;
  }
  const { found } = state.value;
  if (found === null) return;
  const targets = found.chains.flatMap((chain) =>
    chain.targets.filter((target) => again || target.answers === null).map((target) => refresh({ chain: chain.name, target: target.index })),
  );
  const services = found.services
    .filter((each) => again || each.state === "unknown")
    .map((each) => refresh({ service: each.name }));
  await Promise.all([...targets, ...services]);
  if (targets.length + services.length > 0 && state.value.error === null) state.update({ said: summary(state.value.found) });
}

type What = { chain: string; target: number } | { service: string };

function nameOf(what: What): string {
  return "service" in what ? `service:${what.service}` : `${what.chain}/${what.target}`;
}

/** Ask one target or service, and put what it answered in its place. */
async function refresh(what: What): Promise<void> {
  const name = nameOf(what);
  state.update({ asking: new Set([...state.value.asking, name]) });
  try {
    const query = new URLSearchParams({ refresh: "true" });
    for (const [key, value] of Object.entries(what)) query.set(key, String(value));
    const answer = await ask<Found>(`ui/health?${query}`);
    const { found } = state.value;
    if (found !== null) state.update({ found: merged(found, answer) });
  } catch (thrown) {
    state.update({ error: asError(thrown) });
  } finally {
    state.update({ asking: new Set([...state.value.asking].filter((each) => each !== name)) });
  }
}

/** Return what is shown with what one answer has of it. */
function merged(found: Found, answer: Found): Found {
  return {
    ...found,
    services: found.services.map((old) => answer.services.find((each) => each.name === old.name) ?? old),
    chains: found.chains.map((old) => {
      const fresh = answer.chains.find((each) => each.name === old.name);
      if (fresh === undefined) return old;
      const targets = old.targets.map((target) => fresh.targets.find((each) => each.index === target.index) ?? target);
      return { ...old, targets };
    }),
  };
}

function summary(found: Found | null): string {
  const targets = found?.chains.flatMap((chain) => chain.targets) ?? [];
  const answering = targets.filter((target) => target.answers).length;
  if (targets.length === 0) return "";
  if (answering === targets.length) return targets.length === 1 ? "The only target answers" : `All ${targets.length} targets answer`;
  return `${answering} of ${many(targets.length, "target")} answer${answering === 1 ? "s" : ""}`;
}

export function HealthView({ who }: { who: Who }) {
  const { found, error, asking, said } = useStore(state);
  useEffect(() => {
    void open(false);
    return connection.watch(() => {
      if (connection.value.there) void open(true);
    });
  }, [who]);
  const head = (
    <div class="head">
      <div>
        <h1>Health</h1>
        <p class="lead" role="status">
          {asking.size > 0 ? `Asking ${many(asking.size, "service or target", "services and targets")} …` : said || summary(found)}
        </p>
      </div>
      {found !== null && (
        <button type="button" onClick={() => void open(true)} disabled={asking.size > 0}>
          Refresh all
        </button>
      )}
    </div>
  );
  return (
    <>
      {head}
      {error !== null && (
        <Failure title="The health of the targets could not be asked for" error={error}>
          <button type="button" onClick={() => void open(true)}>
            Try again
          </button>
        </Failure>
      )}
      {found === null && error === null && <Busy>Asking the server …</Busy>}
      {found !== null && <Body found={found} asking={asking} who={who} />}
    </>
  );
}

function Body({ found, asking, who }: { found: Found; asking: ReadonlySet<string>; who: Who }) {
  return (
    <>
      {found.chains.length === 0 ? (
        <Empty title="There is no chain to look at">
          <p>
            {who.chains === null
              ? "This server's configuration has no chain. Add one to hf-gateway.toml, then reload:"
              : "Your key may use no chain that this server has. Its administrator can allow some:"}
          </p>
          <pre class="command" tabIndex={0} role="group" aria-label="Configuration">
            <code>
              {who.chains === null
                ? '[chains.docs]\nmodel = "sentence-transformers/all-MiniLM-L6-v2"\ntargets = ["local"]'
                : `hf-gateway keys change ${who.key ?? "ID"} --chains NAME`}
            </code>
          </pre>
        </Empty>
      ) : (
        found.chains.map((chain) => <ChainCard key={chain.name} chain={chain} asking={asking} />)
      )}
      <h2 class="section">What the server leans on</h2>
      <ul class="services">
        {found.services.map((service) => (
          <ServiceCard key={service.name} service={service} busy={asking.has(`service:${service.name}`)} />
        ))}
      </ul>
      <p class="muted foot">
        hf-gateway {found.version}, serving for {seconds(found.uptime_seconds)}
      </p>
    </>
  );
}

const TASKS: Record<string, string> = {
  embedding: "Embeddings",
  chat: "Chat",
  rerank: "Reranking",
  image: "Images",
  classification: "Labels",
  sparse: "Sparse vectors",
};

function ChainCard({ chain, asking }: { chain: Chain; asking: ReadonlySet<string> }) {
  const id = `chain-${chain.name}`;
  return (
    <section class="card chain" aria-labelledby={id}>
      <div class="chain-head">
        <h2 id={id}>{chain.name}</h2>
        <span class="badge">{TASKS[chain.task] ?? chain.task}</span>
        <span class="muted model">{chain.model === chain.name ? "" : chain.model}</span>
        <ChainState chain={chain} />
      </div>
      <ol class="targets">
        {chain.targets.map((target) => (
          <TargetRow key={target.index} chain={chain} target={target} busy={asking.has(`${chain.name}/${target.index}`)} />
        ))}
      </ol>
    </section>
  );
}

/** Whether a request to the chain is answered, and by which target. */
function ChainState({ chain }: { chain: Chain }) {
  const asked = chain.targets.filter((target) => target.answers !== null);
  if (asked.length < chain.targets.length || chain.targets.length < 2) return null;
  const first = chain.targets.find((target) => target.answers && target.space_check !== "quarantined");
  if (first === undefined) return <span class="state bad">No target answers</span>;
  if (first.index === 0) return <span class="state good">Works</span>;
  return <span class="state warn">Works by target {first.index + 1}</span>;
}

/** The one word for a target, with the tone that it is shown in. */
function verdict(target: Target): [string, "good" | "bad" | "warn" | "none"] {
  if (target.answers === null) return ["Not asked yet", "none"];
  if (!target.answers) return ["Does not answer", "bad"];
  if (target.space_check === "quarantined") return ["Quarantined", "bad"];
  if (target.breaker === "open" || target.breaker === "resting") return ["Answers, but rests", "warn"];
  return ["Answers", "good"];
}

function TargetRow({ chain, target, busy }: { chain: Chain; target: Target; busy: boolean }) {
  const [word, tone] = verdict(target);
  const fix = target.fix ?? (target.answers && !target.ready ? target.reason : null);
  return (
    <li class="target">
      <div class="target-line">
        <span class={`state ${busy ? "none" : tone}`}>{busy ? "Asking …" : word}</span>
        <span class="name">
          {chain.targets.length > 1 && <span class="muted">{target.index + 1}. </span>}
          {target.target}
        </span>
        <button type="button" class="quiet small" disabled={busy} onClick={() => void refresh({ chain: chain.name, target: target.index })} aria-label={`Refresh ${target.target} of ${chain.name}, target ${target.index + 1}`}>
          Refresh
        </button>
      </div>
      <dl class="facts">
        <Fact name="Latency">
          {latency(target)}
        </Fact>
        <Fact name="Key" tone={target.needs_key === "required" && target.key_source === null ? "bad" : undefined}>
          <Key target={target} />
        </Fact>
        <Fact name="Breaker" tone={target.breaker === "closed" ? undefined : "warn"}>
          {target.breaker}
          {target.retry_in !== null && target.retry_in > 0 && `, asked again in ${seconds(target.retry_in)}`}
        </Fact>
        {target.space_check !== null && (
          <Fact name="Vector space" tone={target.space_check === "quarantined" ? "bad" : undefined}>
            {SPACES[target.space_check]}
            {target.worst_cosine !== null && `, worst cosine ${target.worst_cosine.toFixed(6)}`}
          </Fact>
        )}
        {target.serves.length > 0 && (
          <Fact name="Serves">{target.serves.slice(0, 4).join(", ") + (target.serves.length > 4 ? ` and ${target.serves.length - 4} more` : "")}</Fact>
        )}
        {target.detail !== "" && <Fact name="Reports">{target.detail}</Fact>}
      </dl>
      {fix !== null && (
        <p class={`fix ${tone === "bad" ? "bad" : "warn"}`}>
          <Words text={sentence(fix)} />
          {target.token_url !== null && !fix.includes(target.token_url) && (
            <>
              {" "}
              <Away href={target.token_url}>Token settings</Away>
            </>
          )}
        </p>
      )}
    </li>
  );
}

function latency({ seconds: took, answers, in_process: inProcess }: Target): string {
  if (took === null) return "not measured";
  if (!answers) return `failed after ${seconds(took)}`;
  return inProcess ? `${seconds(took)}, in this process` : seconds(took);
}

const SPACES = { unchecked: "not measured yet", same: "the same", quarantined: "another one" };

function Key({ target }: { target: Target }) {
  const reason = target.key_reason ? ` (${target.key_reason})` : "";
  const from = target.key_source === null ? null : `from ${target.key_source}`;
  if (target.needs_key === "never") return <span title={target.key_reason}>not needed</span>;
  if (target.needs_key === "optional") return <span title={target.key_reason}>{from === null ? "optional, none found" : `optional, ${from}`}</span>;
  return (
    <span title={target.key_reason}>
      {from === null ? `needed, none found${reason}` : `needed, ${from}`}
      {target.answers && from !== null && ": "}
      {target.answers && from !== null && <strong class="valid">Valid</strong>}
    </span>
  );
}

const STATES = { ok: ["Answers", "good"], failed: ["Does not answer", "bad"], off: ["Not used", "none"], unknown: ["Not asked yet", "none"] } as const;
const TOKENS = { valid: "Valid", invalid: "Not valid", missing: "None found", unchecked: "Not checked" } as const;

function ServiceCard({ service, busy }: { service: Service; busy: boolean }) {
  const [word, tone] = STATES[service.state];
  return (
    <li class="card service">
      <div class="target-line">
        <h3>{service.title}</h3>
        <button type="button" class="quiet small" disabled={busy} onClick={() => void refresh({ service: service.name })} aria-label={`Refresh ${service.title}`}>
          Refresh
        </button>
      </div>
      <p>
        <span class={`state ${busy ? "none" : tone}`}>{busy ? "Asking …" : word}</span>
        {service.seconds !== null && <span class="muted"> in {seconds(service.seconds)}</span>}
      </p>
      {service.detail !== "" && (
        <p class="muted">
          <Words text={sentence(service.detail)} />
        </p>
      )}
      {service.token !== null && (
        <p>
          Token: <strong class={service.token.state === "valid" ? "valid" : service.token.state === "invalid" ? "invalid" : undefined}>{TOKENS[service.token.state]}</strong>
          {service.token.source !== null && <span class="muted">, from {service.token.source}</span>}
          {service.token.account !== null && <span class="muted">, of {service.token.account}</span>}
          {". "}
          <Away href={service.token.url}>Token settings</Away>
        </p>
      )}
      {service.fix !== null && (
        <p class={`fix ${tone === "bad" ? "bad" : "warn"}`}>
          <Words text={sentence(service.fix)} />
        </p>
      )}
    </li>
  );
}
