import { useAnswer } from "./answer";
import type { ApiError } from "./api";

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
  const [{ body, error }, again] = useAnswer<{ data: Model[] }>("v1/models");
  if (error !== null) return [{ kind: "failed", error }, again];
  return [body === null ? { kind: "loading" } : { kind: "listed", models: body.data }, again];
}

/** Return the chains of a task. */
export function ofTask(models: Model[], task: string): Model[] {
  return models.filter((model) => model.task === task);
}
