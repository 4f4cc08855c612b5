import { count, seconds, short, usd } from "../format";

/** What `/admin/usage` says of a group of calls. */
export interface Figures {
  requests: number;
  failed: number;
  cancelled: number;
  fallbacks: number;
  cached: number;
  attempts: number;
  input_tokens: number;
  output_tokens: number;
  documents: number;
  images: number;
  seconds: number;
  tokens_unknown: number;
  /** A decimal number; null if it is unknown for every attempt. */
  cost_usd: string | null;
  cost_unknown: number;
  p50_ms: number | null;
  p95_ms: number | null;
  errors: Record<string, number>;
}

export interface Group extends Figures {
  name: string | null;
}

export interface Report {
  by: string;
  since: string;
  tenant: string | null;
  groups: Group[];
  left_out: number;
  total: Figures;
  of_attempts: boolean;
  total_of_attempts: boolean;
  lost: Record<string, number>;
}

/** What calls are grouped by, with the heading of its column. */
export const GROUPINGS = {
  day: "Day",
  model: "Model",
  provider: "Provider",
  tenant: "Tenant",
  chain: "Chain",
  task: "Task",
  key: "Key",
  user: "User",
} as const;
export type Grouping = keyof typeof GROUPINGS;

/** The groupings of which one group alone can be looked at. */
export const FILTERS = ["model", "provider", "tenant", "chain", "task"] as const;
export type Filter = (typeof FILTERS)[number];

export function isFilter(grouping: Grouping): grouping is Filter {
  return (FILTERS as readonly string[]).includes(grouping);
}

export const PERIODS = { "24h": "24 hours", "7d": "7 days", "30d": "30 days", "90d": "90 days" } as const;
export type Period = keyof typeof PERIODS;

/** Return the known cost. */
export function amount(figures: Figures): string {
  const known = Number(figures.cost_usd ?? 0);
  return known === 0 ? "$0" : usd(known);
}

/** Return the cost in words; what is unknown is said, and counts as nothing. */
export function cost(figures: Figures): string {
  if (figures.cost_usd === null) return "unknown";
  return figures.cost_unknown === 0 ? amount(figures) : `${amount(figures)} + unknown`;
}

/** Return for how many attempts the cost is unknown, in words; empty if it is known for all. */
export function unknownCost(figures: Figures): string {
  if (figures.cost_unknown === 0) return "";
  return `The cost of ${count(figures.cost_unknown)} of ${count(figures.attempts)} attempts is unknown, and in no sum`;
}

export function latency(ms: number | null): string {
  return ms === null ? "–" : seconds(ms / 1000);
}

/** Return the classes of failures with their numbers, the most frequent first. */
export function errors(figures: Figures): [string, number][] {
  return Object.entries(figures.errors).sort(([, one], [, other]) => other - one);
}

interface Line {
  title: string;
  tone: "main" | "second" | "bad";
  of: (figures: Figures) => number | null;
}

export interface Measure {
  title: string;
  bars: boolean;
  /** The first line has the whole, a second one as bars a part of it. */
  lines: Line[];
  write: (value: number) => string;
}

export const MEASURES = {
  calls: {
    title: "Calls",
    bars: true,
    write: short,
    lines: [
      { title: "Calls", tone: "main", of: (figures) => figures.requests },
      { title: "of them failed", tone: "bad", of: (figures) => figures.failed },
    ],
  },
  tokens: {
    title: "Tokens",
    bars: true,
    write: short,
    lines: [
      { title: "Tokens", tone: "main", of: (figures) => figures.input_tokens + figures.output_tokens },
      { title: "of them output", tone: "second", of: (figures) => figures.output_tokens },
    ],
  },
  cost: {
    title: "Cost",
    bars: true,
    write: (value) => (value === 0 ? "$0" : usd(value)),
    lines: [{ title: "Known cost", tone: "main", of: (figures) => (figures.cost_usd === null ? null : Number(figures.cost_usd)) }],
  },
  latency: {
    title: "Latency",
    bars: false,
    write: (value) => (value === 0 ? "0" : seconds(value / 1000)),
    lines: [
      { title: "p50", tone: "main", of: (figures) => figures.p50_ms },
      { title: "p95", tone: "second", of: (figures) => figures.p95_ms },
    ],
  },
} as const satisfies Record<string, Measure>;
export type MeasureName = keyof typeof MEASURES;

const DAY_MS = 86_400_000;

/** Return every day from the first to today, in UTC; days without a call have null. */
export function days(report: Report): [number, Figures | null][] {
  const known = new Map(report.groups.map((group) => [group.name, group]));
  const first = Math.floor(Date.parse(report.since) / DAY_MS);
  const last = Math.floor(Date.now() / DAY_MS);
  return Array.from({ length: Math.max(1, last - first + 1) }, (_, index) => {
    const time = (first + index) * DAY_MS;
    return [time / 1000, known.get(new Date(time).toISOString().slice(0, 10)) ?? null];
  });
}

const DATE = new Intl.DateTimeFormat("en-GB", { weekday: "short", day: "numeric", month: "short", timeZone: "UTC" });

/** Return a day as people write it: Tue 24 Nov. */
export function dayName(time: number): string {
  return DATE.format(time * 1000).replace(",", "");
}
