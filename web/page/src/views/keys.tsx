import { useEffect, useRef, useState } from "preact/hooks";
import { useAnswer } from "../answer";
import { many } from "../format";
import { KeyForm } from "../keys/form";
import { type Key, type NewKey, stateOf } from "../keys/key";
import { type Change, KeyRow } from "../keys/row";
import "../keys/keys.css";
import { CopyButton } from "../parts/copy";
import { Busy, Empty, Failure, Forbidden } from "../parts/notices";
import { session, signIn, type Who, whoAmI } from "../session";
import { Store, useStore } from "../store";

/** The secret that the last answer had; it outlives the view, since no answer has it again. */
const secret = new Store<{ name: string; key: string } | null>(null);

session.watch(() => {
  if (session.value.kind === "out") secret.set(null);
});

export function KeysView({ who }: { who: Who }) {
  const allowed = who.scopes.includes("admin");
  const [{ body, error, asking }, again] = useAnswer<{ keys: Key[] }>(allowed ? "admin/keys" : null);
  const [making, setMaking] = useState(false);
  const [said, setSaid] = useState("");
  const shown = useStore(secret);
  if (!allowed) {
    return (
      <>
        <h1>Keys</h1>
        <Forbidden view="administering keys" scope="admin" id={who.key} />
      </>
    );
  }
  const made = (key: NewKey) => {
    secret.set({ name: key.name, key: key.key });
    setSaid(`The key “${key.name}” was made`);
    setMaking(false);
    again();
  };
  const changed = async (change: Change) => {
    setSaid(`The key “${change.key.name}” was ${change.kind}`);
    const own = change.key.id === who.key;
    if (change.kind === "rotated") {
      secret.set({ name: change.key.name, key: change.key.key });
      // Without it the session would end with the old secret, and this page with the new one unread.
      if (own) await signIn(change.key.key);
    } else if (own) {
      await whoAmI();
    }
    again();
  };
  const valid = body?.keys.filter((key) => !stateOf(key).ends) ?? [];
  const ended = body?.keys.filter((key) => stateOf(key).ends) ?? [];
  return (
    <>
      <div class="head">
        <div>
          <h1>Keys</h1>
          <p class="lead" role="status">
            {asking && body === null ? "Asking for the keys …" : said || (body === null ? "" : `${many(valid.length, "valid key")}, ${ended.length} ended`)}
          </p>
        </div>
        <button type="button" class="main" aria-expanded={making} onClick={() => setMaking(!making)}>
          New key
        </button>
      </div>
      {shown !== null && <Secret name={shown.name} text={shown.key} />}
      {making && <KeyForm who={who} before={null} done={(key) => made(key as NewKey)} close={() => setMaking(false)} />}
      {error !== null && (
        <Failure title="The keys could not be listed" error={error}>
          <button type="button" onClick={again}>
            Try again
          </button>
        </Failure>
      )}
      {body === null && error === null && <Busy>Asking for the keys …</Busy>}
      {body !== null && body.keys.length === 0 && (
        <Empty title="There are no keys that you may see">
          <p>Make one by New key: it can do no more than you can.</p>
        </Empty>
      )}
      {valid.length > 0 && <Rows title="Valid keys" who={who} keys={valid} changed={changed} />}
      {ended.length > 0 && (
        <details>
          <summary>{many(ended.length, "key that has", "keys that have")} ended</summary>
          <Rows title="Ended keys" who={who} keys={ended} changed={changed} />
        </details>
      )}
    </>
  );
}

function Rows({ title, who, keys, changed }: { title: string; who: Who; keys: Key[]; changed: (change: Change) => Promise<void> }) {
  return (
    <section class="keys" aria-labelledby={title.replace(" ", "-")}>
      <h2 class="hidden" id={title.replace(" ", "-")}>
        {title}
      </h2>
      <ul class="keys">
        {keys.map((key) => (
          <KeyRow key={key.id} who={who} one={key} changed={(change) => void changed(change)} />
        ))}
      </ul>
    </section>
  );
}

/** Shows a secret until it is put away; then it cannot be seen again. */
function Secret({ name, text }: { name: string; text: string }) {
  const place = useRef<HTMLElement>(null);
  useEffect(() => place.current?.focus(), [text]);
  return (
    <section class="card secret" ref={place} tabIndex={-1} aria-labelledby="secret">
      <h2 id="secret">Copy the key “{name}” now</h2>
      <p>It is shown this once: the server keeps no copy from which it could be read again.</p>
      <div class="secret-line">
        <pre class="command" tabIndex={0} role="group" aria-label="Key">
          <code>{text}</code>
        </pre>
        <CopyButton text={text} what={`the key ${name}`} />
      </div>
      <button type="button" onClick={() => secret.set(null)}>
        I have it
      </button>
    </section>
  );
}
