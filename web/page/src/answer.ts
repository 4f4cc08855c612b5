import { useEffect, useState } from "preact/hooks";
import { type ApiError, asError, ask, connection } from "./api";

/** What a route answered: the last body stays while it is asked again, and beside an error. */
export interface Answer<T> {
  body: T | null;
  error: ApiError | null;
  asking: boolean;
}

/** Return the answer of a route to GET, asked for when a view opens, when its path changes, and when the server is back; null asks nothing. */
export function useAnswer<T>(path: string | null): [Answer<T>, () => void] {
  const [answer, setAnswer] = useState<Answer<T>>({ body: null, error: null, asking: path !== null });
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    if (path === null) return undefined;
    const stop = new AbortController();
    setAnswer((before) => ({ ...before, asking: true }));
    ask<T>(path, { signal: stop.signal }).then(
      (body) => setAnswer({ body, error: null, asking: false }),
      (thrown) => {
        if (!stop.signal.aborted) setAnswer((before) => ({ ...before, error: asError(thrown), asking: false }));
      },
    );
    const unwatch = connection.watch(() => {
      if (connection.value.there) again();
    });
    return () => {
      stop.abort();
      unwatch();
    };
  }, [path, turn]);
  const again = () => setTurn((before) => before + 1);
  return [answer, again];
}
