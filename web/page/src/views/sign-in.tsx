import { useEffect, useRef, useState } from "preact/hooks";
import { type ApiError, asError } from "../api";
import { Failure } from "../parts/notices";
import { signIn } from "../session";

const NEXT: Record<number, string> = {
  401: "Check that the whole key was pasted, beginning with hfg_. Keys are shown once, when they are made.",
  403: "Signing in needs the scope read beside those for what you want to do.",
  503: "Try again in a moment.",
};

export function SignIn({ ended }: { ended: string | null }) {
  const [error, setError] = useState<ApiError | null>(null);
  const [busy, setBusy] = useState(false);
  const field = useRef<HTMLInputElement>(null);
  useEffect(() => field.current?.focus(), []);
  const submit = async (event: Event) => {
    event.preventDefault();
    const credential = field.current?.value.trim() ?? "";
    if (credential === "") {
      field.current?.focus();
      return;
    }
    setBusy(true);
    setError(null);
    try {
      await signIn(credential);
    } catch (thrown) {
      setError(asError(thrown));
      setBusy(false);
      field.current?.select();
    }
  };
  return (
    <div class="sign-in card">
      <h1>Sign in</h1>
      {ended !== null && (
        <p class="notice warn" role="alert">
          {ended} Sign in again to go on; conversations in this browser are kept.
        </p>
      )}
      <p class="muted">This server needs a key. It is sent once, and exchanged for a cookie that no script can read.</p>
      <form onSubmit={(event) => void submit(event)}>
        <label for="credential">Key, or token of your identity provider</label>
        {/* A password manager may keep it; it never comes into an address. */}
        <input id="credential" name="credential" type="password" autocomplete="current-password" spellcheck={false} ref={field} placeholder="hfg_…" required />
        <button type="submit" class="main" disabled={busy}>
          {busy ? "Signing in …" : "Sign in"}
        </button>
      </form>
      {error !== null && (
        <Failure title="Not signed in" error={error}>
          {NEXT[error.status] !== undefined && <p>{NEXT[error.status]}</p>}
        </Failure>
      )}
      <details>
        <summary>I have no key</summary>
        <p>The administrator of this server makes one on its machine:</p>
        <pre class="command" tabIndex={0} role="group" aria-label="Command">
          <code>hf-gateway keys create --name page</code>
        </pre>
        <p>
          With <code>--scopes all</code> it may administer, too.
        </p>
      </details>
    </div>
  );
}
