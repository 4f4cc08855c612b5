/** Numbers as people read them; the same on every machine. */

const COUNT = new Intl.NumberFormat("en-US");

export function count(value: number): string {
  return COUNT.format(value);
}

/** Return a number with its noun: `1 text`, `2 texts`. */
export function many(value: number, noun: string, several = `${noun}s`): string {
  return `${count(value)} ${value === 1 ? noun : several}`;
}

export function seconds(value: number): string {
  if (value < 0.001) return "under 1 ms";
  if (value < 1) return `${Math.round(value * 1000)} ms`;
  if (value < 90) return `${value < 10 ? value.toFixed(1) : Math.round(value)} s`;
  if (value < 5400) return `${Math.round(value / 60)} min`;
  if (value < 48 * 3600) return `${Math.round(value / 3600)} h`;
  return `${Math.round(value / 86400)} days`;
}

const MOMENT = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit", timeZone: "UTC" });

/** Return a time in UTC: 30 Nov 2026, 09:55 UTC. */
export function moment(iso: string): string {
  return `${MOMENT.format(Date.parse(iso))} UTC`;
}

const SHORT = new Intl.NumberFormat("en-US", { notation: "compact", maximumSignificantDigits: 3 });

/** Return a number in few characters: 12.3K. */
export function short(value: number): string {
  return SHORT.format(value);
}

/** Return an amount; an unknown one is not 0. */
export function usd(value: number | null): string {
  if (value === null) return "cost unknown";
  if (value === 0) return "no cost";
  if (value < 0.01) return `$${value.toPrecision(2).replace(/\.?0+$/, "")}`;
  return `$${value.toFixed(2)}`;
}

/** Return a text that ends in a full stop and begins with a capital, as the server's messages do not; the name of a target is no word. */
export function sentence(text: string): string {
  const said = text.trim();
  if (said === "") return "";
  const whole = /[.!?…:)]$/.test(said) ? said : `${said}.`;
  if (/^\w+:\S/.test(whole)) return whole;
  return whole.charAt(0).toUpperCase() + whole.slice(1);
}
