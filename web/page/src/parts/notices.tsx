import type { ComponentChildren } from "preact";
import type { ApiError } from "../api";
import { sentence } from "../format";
import { Words } from "./markdown";

/** What stands in a view that has nothing to show, with the next step. */
export function Empty({ title, children }: { title: string; children: ComponentChildren }) {
  return (
    <section class="empty">
      <h2>{title}</h2>
      {children}
    </section>
  );
}

/** A failure in the server's words, with what to do. */
export function Failure({ title, error, children }: { title: string; error: ApiError; children?: ComponentChildren }) {
  return (
    <div class="notice bad" role="alert">
      <p>
        <strong>{title}</strong>
      </p>
      <p class="said">
        <Words text={sentence(error.message)} />
      </p>
      {error.retryAfter !== null && <p>It asks to be called again in {Math.ceil(error.retryAfter)} s.</p>}
      {children}
    </div>
  );
}

/** Says that something is under way, to eyes and ears. */
export function Busy({ children }: { children: ComponentChildren }) {
  return (
    <p class="busy" role="status">
      <span class="spinner" aria-hidden="true" />
      {children}
    </p>
  );
}

/** The text of a view that the key does not allow. */
export function Forbidden({ view, scope, id }: { view: string; scope: string; id: string | null }) {
  return (
    <Empty title={`Your key does not allow ${view}`}>
      <p>
        It lacks the scope <code>{scope}</code>. The administrator of this server can add it:
      </p>
      <pre class="command" tabIndex={0} role="group" aria-label="Command">
        <code>{`hf-gateway keys change ${id ?? "ID"} --scopes ${scope},read,…`}</code>
      </pre>
      <p>Or sign out, and sign in with another key.</p>
    </Empty>
  );
}
