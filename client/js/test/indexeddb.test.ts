/** The store in IndexedDB, in an implementation of it that runs without a browser. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { IDBFactory } from "fake-indexeddb";

import type { Change, Meta } from "../src/store.js";
import { IndexedDbStore, type Platform } from "../src/stores/indexeddb.js";
import { MemoryStore } from "../src/stores/memory.js";

/** Locks as a browser has them, of one page. */
class Locks {
  readonly #held = new Set<string>();

  request = async (name: string, ...rest: unknown[]): Promise<unknown> => {
    const granted = rest.at(-1) as (lock: object | null) => unknown;
    if (this.#held.has(name)) return granted(null);
    this.#held.add(name);
    try {
      return await granted({ name });
    } finally {
      this.#held.delete(name);
    }
  };
}

function platform(): Platform {
  const locks = new Locks() as unknown as Platform["locks"];
  return { indexedDB: new IDBFactory(), locks };
}

const META: Meta = {
  user: "alice",
  device: "phone",
  cluster: "07070707-0707-0707-0707-070707070707",
  epoch: 1,
  cursor: 7,
  openId: new Uint8Array(16),
  session: { id: 2n ** 63n, first: 3 },
  numbered: 5,
};

function changes(): Change[] {
  const draft = (text: string) => ({
    to: [{ kind: 1, name: "bob" }],
    kind: 1,
    body: new TextEncoder().encode(text),
    clientMsgId: new Uint8Array(16).fill(0x70),
  });
  const clientMsgId = "70707070-7070-7070-7070-707070707070";
  const settled = { clientMsgId, outcome: { kind: "accepted", seq: 1, timeMs: 9 } } as const;
  return [
    { kind: "put", id: 10, draft: draft("ten") },
    { kind: "put", id: 9, draft: draft("nine") },
    { kind: "put", id: 2, draft: draft("two") },
    { kind: "meta", meta: META },
    { kind: "settle", id: 2, settled },
    { kind: "settle", id: 9, settled },
    { kind: "forget", id: 9 },
  ];
}

test("it holds what a store in memory holds, also when it is opened again", async () => {
  const here = platform();
  const [store, memory] = [await IndexedDbStore.open("alice", here), new MemoryStore()];
  assert.deepEqual(await store.load(), memory.saved());
  await store.commit(changes());
  memory.apply(changes());
  assert.deepEqual(await store.load(), memory.saved());
  await store.close();
  const again = await IndexedDbStore.open("alice", here);
  assert.deepEqual(await again.load(), memory.saved());
  const other = await IndexedDbStore.open("bob", here);
  assert.deepEqual(await other.load(), new MemoryStore().saved());
});

test("a commit is all or nothing", async () => {
  const store = await IndexedDbStore.open("alice", platform());
  const unstorable = { ...META, user: (() => {}) as unknown as string };
  await assert.rejects(store.commit([...changes(), { kind: "meta", meta: unstorable }]));
  assert.deepEqual(await store.load(), new MemoryStore().saved());
});

test("two pages cannot have it open", async () => {
  const here = platform();
  const store = await IndexedDbStore.open("alice", here);
  await assert.rejects(IndexedDbStore.open("alice", here), { name: "OpenError" });
  await store.close();
  await new Promise((turn) => setImmediate(turn));
  await (await IndexedDbStore.open("alice", here)).close();
});
