import type { ComponentChildren } from "preact";

/** A fact with its name, in a list of the class `facts`. */
export function Fact({ name, tone, children }: { name: string; tone?: "bad" | "warn" | undefined; children: ComponentChildren }) {
  return (
    <div class={tone}>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}
