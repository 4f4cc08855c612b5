import { useEffect, useState } from "preact/hooks";

const SHOWN_MS = 2000;

/** Copies a text, and says that it did. */
export function CopyButton({ text, what }: { text: string; what: string }) {
  const [done, setDone] = useState<"" | "Copied" | "Not copied">("");
  useEffect(() => {
    if (done === "") return undefined;
    const timer = setTimeout(() => setDone(""), SHOWN_MS);
    return () => clearTimeout(timer);
  }, [done]);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      setDone("Copied");
    } catch {
      // A page of plain http beyond this machine has no clipboard.
      setDone("Not copied");
    }
  };
  return (
    <button type="button" class="quiet small" onClick={() => void copy()} aria-label={done === "" ? `Copy ${what}` : done}>
      {done || "Copy"}
    </button>
  );
}
