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

/** The text of a view that the caller's rights do not allow. */
export function Forbidden({ view, scope, id }: { view: string; scope: string; id: string | null }) {
  if (id === null) {
    return (
      <Empty title={`Without a key, this server does not allow ${view}`}>
        <p>
          It has no keys yet, and serves callers on this machine without one; <code>{scope}</code> needs a key. On its machine:
        </p>
        <Command>{"hf-gateway keys create --name administrator --scopes all"}</Command>
        <p>From its first key on, every caller needs one. This page then asks for it.</p>
      </Empty>
    );
  }
  // A token is named by its issuer and subject, a key by its public part.
  if (id.includes("#")) {
    return (
      <Empty title={`Your token does not allow ${view}`}>
        <p>
          It lacks the scope <code>{scope}</code>. The identity provider can put it into the token, where <code>scopes</code> in the
          server's configuration of this issuer allows it.
        </p>
        <p>Or sign out, and sign in with a key.</p>
      </Empty>
    );
  }
  return (
    <Empty title={`Your key does not allow ${view}`}>
      <p>
        It lacks the scope <code>{scope}</code>. The administrator of this server can add it:
      </p>
      <Command>{`hf-gateway keys change ${id} --scopes ${scope},read,…`}</Command>
      <p>Or sign out, and sign in with another key.</p>
    </Empty>
  );
}

/** A line for a terminal. */
export function Command({ children }: { children: string }) {
  return (
    <pre class="command" tabIndex={0} role="group" aria-label="Command">
      <code>{children}</code>
    </pre>
  );
}
