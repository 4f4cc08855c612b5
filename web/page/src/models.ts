import { useEffect, useState } from "preact/hooks";
import { type ApiError, asError, ask, connection } from "./api";

/** A chain of the server, as `/v1/models` lists it. */
export interface Model {
  id: string;
  task: string;
  model: string;
  space?: string;
  dimension?: number;
  context_length?: number;
  price?: Record<string, number>;
}

export type Listed = { kind: "loading" } | { kind: "listed"; models: Model[] } | { kind: "failed"; error: ApiError };

/** Return the chains, asked for when a view opens and again when the server is back. */
export function useModels(): [Listed, () => void] {
  const [listed, setListed] = useState<Listed>({ kind: "loading" });
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    const stop = new AbortController();
    ask<{ data: Model[] }>("v1/models", { signal: stop.signal }).then(
      (answer) => setListed({ kind: "listed", models: answer.data }),
      (thrown) => {
        if (!stop.signal.aborted) setListed({ kind: "failed", error: asError(thrown) });
      },
    );
    const unwatch = connection.watch(() => {
      if (connection.value.there) setTurn((before) => before + 1);
    });
    return () => {
      stop.abort();
      unwatch();
    };
  }, [turn]);
  return [listed, () => setTurn((before) => before + 1)];
}

/** Return the chains of a task. */
export function ofTask(models: Model[], task: string): Model[] {
  return models.filter((model) => model.task === task);
}
