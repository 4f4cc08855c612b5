import { useLayoutEffect, useState } from "preact/hooks";

/** A value that views watch; it outlives them, so that work goes on while another view is shown. */
export class Store<T> {
  #value: T;
  readonly #watchers = new Set<() => void>();

  constructor(value: T) {
    this.#value = value;
  }

  get value(): T {
    return this.#value;
  }

  set(value: T): void {
    this.#value = value;
    for (const notify of [...this.#watchers]) notify();
  }

  update(changes: Partial<T>): void {
    this.set({ ...this.#value, ...changes });
  }

  watch(notify: () => void): () => void {
    this.#watchers.add(notify);
    return () => this.#watchers.delete(notify);
  }
}

/** Return a store's value, and render again whenever it changes. */
export function useStore<T>(store: Store<T>): T {
  const [seen, see] = useState({ value: store.value });
  useLayoutEffect(() => {
    const notify = () => see({ value: store.value });
    if (seen.value !== store.value) notify();
    return store.watch(notify);
  }, [store]);
  return store.value;
}
