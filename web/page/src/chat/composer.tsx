import { useEffect, useRef, useState } from "preact/hooks";
import { giveResults, say } from "./talk";
import type { ToolCall } from "./types";

const MAX_PICTURE_BYTES = 8_000_000;

/** Where the next message is written; after a tool call, the results of the calls. */
export function Composer({ calls, busy, blocked, onStop }: { calls: ToolCall[]; busy: boolean; blocked: boolean; onStop: () => void }) {
  if (calls.length > 0) return <Results calls={calls} />;
  return <Writing busy={busy} blocked={blocked} onStop={onStop} />;
}

function Writing({ busy, blocked, onStop }: { busy: boolean; blocked: boolean; onStop: () => void }) {
  const [text, setText] = useState("");
  const [images, setImages] = useState<string[]>([]);
  const [note, setNote] = useState("");
  const field = useRef<HTMLTextAreaElement>(null);
  const files = useRef<HTMLInputElement>(null);
  useEffect(() => {
    // As high as what is written, up to the style's maximum.
    if (field.current === null) return;
    field.current.style.height = "auto";
    field.current.style.height = `${field.current.scrollHeight + 2}px`;
  }, [text]);
  const send = () => {
    if (busy || blocked || (text.trim() === "" && images.length === 0)) return;
    say(text, images);
    setText("");
    setImages([]);
    field.current?.focus();
  };
  const attach = async (list: FileList | null) => {
    setNote("");
    for (const file of list ?? []) {
      if (!/^image\/(png|jpeg|gif|webp|avif)$/.test(file.type)) setNote(`${file.name} is not a picture of a kind that models read`);
      else if (file.size > MAX_PICTURE_BYTES) setNote(`${file.name} is larger than ${MAX_PICTURE_BYTES / 1e6} MB`);
      else {
        const url = await dataUrl(file);
        setImages((before) => [...before, url]);
      }
    }
  };
  return (
    <form
      class="composer"
      onSubmit={(event) => {
        event.preventDefault();
        send();
      }}
    >
      {images.length > 0 && (
        <div class="pictures">
          {images.map((url, index) => (
            <figure key={index}>
              <img src={url} alt={`Picture ${index + 1} to be sent`} />
              <button type="button" class="quiet small" onClick={() => setImages(images.filter((_, place) => place !== index))} aria-label={`Remove picture ${index + 1}`}>
                Remove
              </button>
            </figure>
          ))}
        </div>
      )}
      {note !== "" && <p class="fault" role="alert">{note}</p>}
      <label class="hidden" for="message">Message</label>
      <textarea
        id="message"
        ref={field}
        rows={1}
        value={text}
        placeholder="Write a message"
        onInput={(event) => setText(event.currentTarget.value)}
        onPaste={(event) => {
          if (event.clipboardData?.files.length) {
            event.preventDefault();
            void attach(event.clipboardData.files);
          }
        }}
        onKeyDown={(event) => {
          if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
            event.preventDefault();
            send();
          } else if (event.key === "Escape" && busy) onStop();
        }}
      />
      <div class="composer-row">
        <button type="button" class="quiet" onClick={() => files.current?.click()}>Add picture</button>
        <input ref={files} type="file" accept="image/png,image/jpeg,image/gif,image/webp,image/avif" multiple hidden aria-label="Pictures" onChange={(event) => { void attach(event.currentTarget.files); event.currentTarget.value = ""; }} />
        <span class="muted hint">Enter sends, Shift+Enter is a new line</span>
        {/* Keys, since a button that became the other within its click would send, too. */}
        {busy ? (
          <button key="stop" type="button" class="stop" onClick={onStop}>Stop</button>
        ) : (
          <button key="send" type="submit" class="main" disabled={blocked || (text.trim() === "" && images.length === 0)}>Send</button>
        )}
      </div>
    </form>
  );
}

function Results({ calls }: { calls: ToolCall[] }) {
  const [results, setResults] = useState<string[]>(calls.map(() => ""));
  return (
    <form
      class="composer results"
      onSubmit={(event) => {
        event.preventDefault();
        giveResults(calls.map((call, index) => ({ call, content: results[index] ?? "" })));
      }}
    >
      <p class="muted">The model waits for what its tools return. Nothing is run by this page: write the results yourself.</p>
      {calls.map((call, index) => (
        <label class="field" key={call.id}>
          <span>
            Result of <code>{call.name}</code>
          </span>
          <textarea class="mono" rows={2} spellcheck={false} value={results[index] ?? ""} onInput={(event) => setResults(results.map((old, place) => (place === index ? event.currentTarget.value : old)))} />
        </label>
      ))}
      <div class="composer-row">
        <span class="hint" />
        <button type="submit" class="main">Send results</button>
      </div>
    </form>
  );
}

function dataUrl(file: File): Promise<string> {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(String(reader.result));
    reader.onerror = () => reject(reader.error ?? new Error("the file could not be read"));
    reader.readAsDataURL(file);
  });
}
