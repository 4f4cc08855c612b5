import { useEffect, useRef, useState } from "preact/hooks";
import { connection } from "./api";
import { lazy } from "./parts/lazy";
import { Busy, Failure } from "./parts/notices";
import { session, signOut, whoAmI, type Who } from "./session";
import { useStore } from "./store";
import { ChatView } from "./views/chat";
import { HealthView } from "./views/health";
import { SearchView } from "./views/search";
import { SignIn } from "./views/sign-in";

const VIEWS = [
  { path: "health", title: "Health", View: HealthView },
  { path: "search", title: "Search", View: SearchView },
  { path: "chat", title: "Chat", View: ChatView },
  { path: "compare", title: "Compare", View: lazy("Compare", async () => (await import("./views/compare")).CompareView) },
  { path: "images", title: "Images", View: lazy("Images", async () => (await import("./views/images")).ImagesView) },
  { path: "models", title: "Models", View: lazy("Models", async () => (await import("./views/models")).ModelsView) },
  { path: "usage", title: "Usage", View: lazy("Usage", async () => (await import("./views/usage")).UsageView) },
  { path: "keys", title: "Keys", View: lazy("Keys", async () => (await import("./views/keys")).KeysView) },
] as const;

/** The name of a view in the address, which is never sent to the server. */
function shown(): string {
  const path = location.hash.replace(/^#\/?/, "");
  return VIEWS.some((view) => view.path === path) ? path : "health";
}

export function App() {
  const now = useStore(session);
  const { there } = useStore(connection);
  const [path, setPath] = useState(shown);
  useEffect(() => {
    const follow = () => setPath(shown());
    addEventListener("hashchange", follow);
    // The address may have changed between the first rendering and this.
    follow();
    return () => removeEventListener("hashchange", follow);
  }, []);
  const view = VIEWS.find((each) => each.path === path) ?? VIEWS[0];
  const title = now.kind === "out" ? "Sign in" : view.title;
  const main = useRef<HTMLElement>(null);
  const first = useRef(true);
  useEffect(() => {
    document.title = `${title} · hf-gateway`;
    // Whoever chose a view by the keyboard or with a screen reader goes on in it, and not behind the navigation.
    if (!first.current) main.current?.focus();
    first.current = false;
  }, [title]);
  return (
    <>
      <header>
        <a class="skip" href={`#/${view.path}`} onClick={() => main.current?.focus()}>
          Skip to the content
        </a>
        <a class="brand" href="#/health">
          <Mark />
          hf-gateway
        </a>
        {now.kind === "in" && (
          <nav aria-label="Views">
            {VIEWS.map((each) => (
              <a key={each.path} href={`#/${each.path}`} aria-current={each.path === path ? "page" : undefined}>
                {each.title}
              </a>
            ))}
          </nav>
        )}
        {now.kind === "in" && <Account who={now.who} />}
      </header>
      {!there && (
        <div class="offline" role="alert">
          <strong>The server does not answer.</strong> It may have been stopped or restarted; this page asks again every second and
          goes on by itself. What you have written stays here.
        </div>
      )}
      <main ref={main} tabIndex={-1} class={["chat", "compare"].includes(view.path) && now.kind === "in" ? "wide" : undefined}>
        {now.kind === "loading" && <Busy>Asking the server who is signed in …</Busy>}
        {now.kind === "failed" && (
          <Failure title={now.error.status === 403 ? "This server does not let you in" : "The server could not be asked"} error={now.error}>
            <button type="button" onClick={() => void whoAmI()}>
              Try again
            </button>
          </Failure>
        )}
        {now.kind === "out" && <SignIn ended={now.ended} />}
        {now.kind === "in" && <view.View who={now.who} />}
      </main>
    </>
  );
}

function Account({ who }: { who: Who }) {
  if (who.key === null) {
    return (
      <p class="account" title="The server has no keys yet, and serves callers on this machine">
        <span class="muted">No key needed</span>
      </p>
    );
  }
  const name = who.tenant ?? who.key;
  return (
    <p class="account">
      <span class="muted name" title={`Signed in with the key ${who.key}`}>
        {name}
      </span>
      <button type="button" class="quiet small" onClick={() => void signOut()}>
        Sign out
      </button>
    </p>
  );
}

function Mark() {
  return (
    <svg viewBox="0 0 32 32" width="24" height="24" aria-hidden="true">
      <rect width="32" height="32" rx="7" fill="#4f46e5" />
      <path
        d="M7 9h5l4 7-4 7H7M16 16h9m-4-4 4 4-4 4"
        fill="none"
        stroke="#fff"
        stroke-width="2.6"
        stroke-linecap="round"
        stroke-linejoin="round"
      />
    </svg>
  );
}
