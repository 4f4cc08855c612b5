import type { Conversation } from "./types";

/** Conversations in this browser's IndexedDB; where there is none, in this page alone. */

const NAME = "hf-gateway";
const STORE = "conversations";

let opening: Promise<IDBDatabase | null> | null = null;

function database(): Promise<IDBDatabase | null> {
  opening ??= new Promise((resolve) => {
    try {
      const request = indexedDB.open(NAME, 1);
      request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: "id" });
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => resolve(null);
      request.onblocked = () => resolve(null);
    } catch {
      resolve(null);
    }
  });
  return opening;
}

async function within<T>(mode: IDBTransactionMode, work: (store: IDBObjectStore) => IDBRequest<T>): Promise<T | null> {
  const found = await database();
  if (found === null) return null;
  return new Promise((resolve) => {
    try {
      const request = work(found.transaction(STORE, mode).objectStore(STORE));
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => resolve(null);
    } catch {
      resolve(null);
    }
  });
}

/** Return the conversations that are kept, the latest first. */
export async function keptConversations(): Promise<Conversation[]> {
  const all = (await within("readonly", (store) => store.getAll() as IDBRequest<Conversation[]>)) ?? [];
  return all.sort((one, other) => other.updated - one.updated);
}

/** Keep a conversation; returns whether this browser did. */
export async function keep(conversation: Conversation): Promise<boolean> {
  return (await within("readwrite", (store) => store.put(conversation))) !== null;
}

export async function drop(id: string): Promise<void> {
  await within("readwrite", (store) => store.delete(id));
}
