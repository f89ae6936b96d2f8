/**
 * A store in the browser's IndexedDB: it survives the page, the browser, and, as far as the browser
 * keeps its word about `durability: "strict"`, the machine.
 *
 * Two pages with one device would give out its numbers twice, so a store is opened under a lock of
 * the Web Locks API, which the browser frees when the page is gone however it went.
 */

import { OpenError } from "../config.js";
import type { Settled } from "../outcome.js";
import type { Change, Draft, Meta, OutboxId, Saved, Store } from "../store.js";

/** The layout; a browser with a higher one refuses to open the database. */
const VERSION = 1;
const META = "meta";
const OUTBOX = "outbox";
const OUTCOMES = "outcomes";
const ALL = [META, OUTBOX, OUTCOMES];

/** What the platform brings; tests bring their own. */
export interface Platform {
  readonly indexedDB: IDBFactory;
  readonly locks: Pick<LockManager, "request">;
}

/** A device's store in IndexedDB. */
export class IndexedDbStore implements Store {
  private constructor(
    private readonly database: IDBDatabase,
    private readonly unlock: () => void,
  ) {}

  /**
   * Opens the store of this name, and makes it if there is none. Rejects with an `OpenError` while
   * another page has it open.
   */
  static async open(name: string, platform: Platform = systemPlatform()): Promise<IndexedDbStore> {
    const unlock = await lock(`tidemark:${name}`, platform.locks);
    try {
      const request = platform.indexedDB.open(`tidemark:${name}`, VERSION);
      request.onupgradeneeded = () => {
        for (const store of ALL) request.result.createObjectStore(store);
      };
      return new IndexedDbStore(await result(request), unlock);
    } catch (error) {
      unlock();
      throw new OpenError(`the device's store cannot be opened: ${String(error)}`);
    }
  }

  async load(): Promise<Saved> {
    const transaction = this.database.transaction(ALL, "readonly");
    const meta = result<Meta | undefined>(transaction.objectStore(META).get(META));
    const outbox = all<Draft>(transaction.objectStore(OUTBOX));
    const outcomes = all<Settled>(transaction.objectStore(OUTCOMES));
    const saved = { outbox: await outbox, outcomes: await outcomes };
    const known = await meta;
    return known ? { meta: known, ...saved } : saved;
  }

  commit(changes: readonly Change[]): Promise<void> {
    return new Promise((done, failed) => {
      const transaction = this.database.transaction(ALL, "readwrite", { durability: "strict" });
      transaction.oncomplete = () => done();
      transaction.onabort = () => failed(transaction.error ?? new Error("the commit was aborted"));
      try {
        for (const change of changes) put(transaction, change);
        transaction.commit();
      } catch (error) {
        // What was put before would be committed without the rest.
        transaction.abort();
        failed(error);
      }
    });
  }

  async close(): Promise<void> {
    this.database.close();
    this.unlock();
  }
}

function put(transaction: IDBTransaction, change: Change): void {
  const [outbox, outcomes] = [transaction.objectStore(OUTBOX), transaction.objectStore(OUTCOMES)];
  switch (change.kind) {
    case "meta":
      transaction.objectStore(META).put(change.meta, META);
      return;
    case "put":
      outbox.put(change.draft, change.id);
      return;
    case "settle":
      outbox.delete(change.id);
      outcomes.put(change.settled, change.id);
      return;
    case "forget":
      outcomes.delete(change.id);
      return;
  }
}

function systemPlatform(): Platform {
  const { indexedDB, navigator } = globalThis;
  if (!indexedDB || !navigator?.locks) {
    throw new OpenError("this browser has no IndexedDB or no Web Locks: a secure origin has both");
  }
  return { indexedDB, locks: navigator.locks };
}

/** Holds a lock until what it resolves to is called. */
function lock(name: string, locks: Platform["locks"]): Promise<() => void> {
  return new Promise((locked, refused) => {
    const held = locks.request(name, { ifAvailable: true }, (lock) => {
      if (lock === null) throw new OpenError(`another page has the device's store open: ${name}`);
      return new Promise<void>((unlock) => locked(unlock));
    });
    held.catch(refused);
  });
}

function result<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((done, failed) => {
    request.onsuccess = () => done(request.result);
    request.onerror = () => failed(request.error ?? new Error("the request failed"));
  });
}

/** Everything in a store, by its key. Both lists are read at one moment, in the order of keys. */
async function all<T>(store: IDBObjectStore): Promise<Map<OutboxId, T>> {
  const [keys, values] = await Promise.all([result(store.getAllKeys()), result<T[]>(store.getAll())]);
  return new Map(values.map((value, at) => [keys[at] as OutboxId, value]));
}
