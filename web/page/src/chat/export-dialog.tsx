import { useRef, useState } from "preact/hooks";
import { CopyButton } from "../parts/copy";
import { download } from "../parts/download";
import { type Form, FORMS } from "./export";
import type { Conversation } from "./types";

export function ExportDialog({ conversation }: { conversation: Conversation }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const [form, setForm] = useState<Form>("markdown");
  const [shown, setShown] = useState(false);
  const { title, file, make } = FORMS[form];
  const text = shown ? make(conversation) : "";
  return (
    <>
      <button type="button" class="small" onClick={() => { setShown(true); dialog.current?.showModal(); }}>Export</button>
      <dialog ref={dialog} aria-labelledby="export-title" onClose={() => setShown(false)}>
        <div class="card-head">
          <h2 id="export-title">Export this conversation</h2>
          <button type="button" class="quiet small" onClick={() => dialog.current?.close()}>Close</button>
        </div>
        <label class="field">
          <span>As</span>
          <select value={form} onChange={(event) => setForm(event.currentTarget.value as Form)}>
            {Object.entries(FORMS).map(([name, each]) => <option key={name} value={name}>{each.title}</option>)}
          </select>
        </label>
        <p class="muted">{form === "markdown" ? "The whole conversation, to read." : "Code that asks for the last answer again. Your key is not in it."}</p>
        <pre class="exported" tabIndex={0} role="group" aria-label={`The conversation as ${title}`}>
          <code>{text}</code>
        </pre>
        <div class="row">
          <CopyButton text={text} what="the export" />
          <button type="button" class="small" onClick={() => download(`conversation.${file}`, text)}>Download</button>
        </div>
      </dialog>
    </>
  );
}
