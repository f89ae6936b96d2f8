/** The whole device, with a gateway, a clock and a store of the test's own. */

import assert from "node:assert/strict";
import { randomFillSync } from "node:crypto";
import { test } from "node:test";

import { create } from "@bufbuild/protobuf";

import { Device, type Parts } from "../src/device.js";
import { SendError } from "../src/draft.js";
import type { Entry } from "../src/entry.js";
import type { Event } from "../src/event.js";
import { type Entry as WireEntry, EntrySchema } from "../src/gen/tidemark/v1/entry_pb.js";
import { newMessageId } from "../src/ids.js";
import type { Change } from "../src/store.js";
import { MemoryStore } from "../src/stores/memory.js";
import { Gateway, ManualClock } from "./gateway.js";

const CONFIG = { user: "alice", device: "phone", gateways: ["one", "two"] };
const rng = { fill: (bytes: Uint8Array) => void randomFillSync(bytes), unit: () => 0 };

interface Rig {
  readonly gateway: Gateway;
  readonly clock: ManualClock;
  readonly store: MemoryStore;
  readonly taken: Entry[];
  readonly events: Event[];
  readonly parts: Parts;
}

function rig(store = new MemoryStore(), more: Partial<Parts> = {}): Rig {
  const [gateway, clock] = [new Gateway(), new ManualClock()];
  const taken: Entry[] = [];
  const events: Event[] = [];
  const parts: Parts = {
    store,
    handler: { entry: (entry) => void taken.push(entry) },
    token: () => "jwt",
    onEvent: (event) => void events.push(event),
    connector: gateway,
    clock,
    rng,
    ...more,
  };
  return { gateway, clock, store, taken, events, parts };
}

/** Everything that can happen without time going on. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 5; turn += 1) await new Promise((turn) => setImmediate(turn));
}

function entry(seq: number, body: string): WireEntry {
  return create(EntrySchema, {
    seq,
    timeMs: 9n,
    origin: { sender: "bob", key: { case: "sessionSend", value: { session: 9n, n: BigInt(seq) } } },
    content: {
      case: "message",
      value: { clientMsgId: newMessageId(seq, rng), sentMs: 9n, body: new TextEncoder().encode(body) },
    },
  });
}

function deliver(gateway: Gateway, first: number, ...bodies: string[]): void {
  const entries = bodies.map((body, at) => entry(first + at, body));
  gateway.send({ case: "deliver", value: { epoch: 1, prevSeq: first - 1, entries } });
}

test("a send is durable, goes out, and has an outcome that the store need not keep", async () => {
  const { gateway, clock, store, parts } = rig();
  const device = await Device.open(CONFIG, parts);
  const sending = await device.send("bob", 1, "hello");
  assert.deepEqual(await sending.outcome(), { kind: "accepted", seq: 1, timeMs: 9 });
  assert.equal(store.saved().outbox.size, 0);
  await settle();
  clock.pass(1_000);
  await settle();
  assert.equal(store.saved().outcomes.size, 0);
  assert.equal(device.status.connection, "online");
  assert.equal(gateway.of("send").length, 1);
  await device.close();
  assert.equal(device.status.connection, "stopped");
});

test("entries are taken one at a time, and only then confirmed", async () => {
  const taken: number[] = [];
  let release = (): void => {};
  const handler = {
    entry: ({ seq }: Entry) => {
      taken.push(seq);
      return new Promise<void>((done) => (release = done));
    },
  };
  const { gateway, clock, parts, store } = rig(new MemoryStore(), { handler });
  const device = await Device.open(CONFIG, parts);
  await settle();
  deliver(gateway, 1, "a", "b");
  await settle();
  clock.pass(1_000);
  await settle();
  assert.deepEqual(taken, [1]);
  assert.deepEqual([store.saved().meta?.cursor, gateway.of("ack").length], [0, 0]);
  release();
  await settle();
  clock.pass(1_000);
  await settle();
  assert.deepEqual(taken, [1, 2]);
  assert.equal(store.saved().meta?.cursor, 1);
  assert.equal(gateway.of("ack").length, 1);
  release();
  await device.close();
  assert.equal(store.saved().meta?.cursor, 2);
});

test("a handler that throws gets the same entry again", async () => {
  const taken: number[] = [];
  const handler = {
    entry: ({ seq }: Entry) => {
      taken.push(seq);
      if (taken.length === 1) throw new Error("the disk is full");
    },
  };
  const { gateway, clock, parts, events } = rig(new MemoryStore(), { handler });
  const device = await Device.open(CONFIG, parts);
  await settle();
  deliver(gateway, 1, "a");
  await settle();
  assert.ok(events.some(({ kind }) => kind === "handlerFailed"));
  clock.pass(100);
  await settle();
  assert.deepEqual(taken, [1, 1]);
  await device.close();
});

test("the next run has the outbox, the cursor, and outcomes that nobody took", async () => {
  const first = rig();
  const device = await Device.open(CONFIG, first.parts);
  await settle();
  deliver(first.gateway, 1, "a");
  first.gateway.silent = true;
  const sending = await device.send("bob", 1, "hello");
  await device.close();
  await assert.rejects(sending.outcome(), SendError);
  const second = rig(first.store);
  const again = await Device.open(CONFIG, second.parts);
  await settle();
  assert.equal(again.status.cursor, 1);
  const outcomes = second.events.filter((event) => event.kind === "outcome");
  assert.deepEqual(
    outcomes.map(({ settled }) => settled.clientMsgId),
    [sending.clientMsgId],
  );
  await again.close();
});

test("a cut connection is followed by another one", async () => {
  const { gateway, clock, parts } = rig();
  const device = await Device.open(CONFIG, parts);
  gateway.silent = true;
  const sending = await device.send("bob", 1, "hello");
  await settle();
  gateway.cut();
  await settle();
  assert.equal(device.status.connection, "waiting");
  gateway.silent = false;
  clock.pass(1_000);
  assert.equal((await sending.outcome()).kind, "accepted");
  assert.equal(gateway.connections, 2);
  assert.equal(gateway.of("send").length, 2);
  await device.close();
});

test("what every server would refuse never gets a number", async () => {
  const { parts, store } = rig();
  const device = await Device.open(CONFIG, parts);
  for (const to of ["", [], "x".repeat(65), Array.from({ length: 257 }, (_, at) => `u${at}`)]) {
    await assert.rejects(device.send(to, 1, "hello"), { why: "invalid" });
  }
  await assert.rejects(device.send("bob", 1, new Uint8Array(192 * 1024 + 1)), { why: "invalid" });
  await assert.rejects(device.send("bob", -1, ""), { why: "invalid" });
  assert.equal(store.saved().outbox.size, 0);
  await device.close();
  await assert.rejects(device.send("bob", 1, "late"), { why: "closed" });
});

test("a full outbox makes who sends wait, in turn", async () => {
  const { gateway, parts } = rig();
  gateway.silent = true;
  const device = await Device.open({ ...CONFIG, outboxEntriesMax: 1 }, parts);
  const first = await device.send("bob", 1, "one");
  await assert.rejects(device.trySend("bob", 1, "two"), { why: "full" });
  let let_in = false;
  const second = device.send("bob", 1, "two").then((sending) => {
    let_in = true;
    return sending;
  });
  await settle();
  assert.equal(let_in, false);
  const accept = (n: bigint): void =>
    gateway.send({
      case: "sendAck",
      value: { session: 1n, n, result: { case: "accepted", value: { seq: Number(n) } } },
    });
  accept(1n);
  await first.outcome();
  const sending = await second;
  await settle();
  accept(2n);
  assert.equal((await sending.outcome()).kind, "accepted");
  await device.close();
});

test("a store that fails stops the device, and nothing relies on it", async () => {
  class Failing extends MemoryStore {
    fails = false;
    override async commit(changes: readonly Change[]): Promise<void> {
      if (this.fails) throw new Error("the disk is full");
      await super.commit(changes);
    }
  }
  const store = new Failing();
  const { gateway, events, parts } = rig(store);
  const device = await Device.open(CONFIG, parts);
  await settle();
  store.fails = true;
  await assert.rejects(device.send("bob", 1, "hello"), { why: "unknown" });
  assert.equal(device.status.connection, "stopped");
  assert.equal(gateway.of("open").length, 0, "an id that is not stored is not used");
  assert.ok(events.some((event) => event.kind === "stopped" && event.reason === "store"));
  await device.close();
});

test("another device's store is refused, and let go of", async () => {
  class Closing extends MemoryStore {
    closed = 0;
    override async close(): Promise<void> {
      this.closed += 1;
    }
  }
  const store = new Closing();
  const { parts } = rig(store);
  await (await Device.open(CONFIG, parts)).close();
  await assert.rejects(Device.open({ ...CONFIG, device: "tablet" }, parts), { name: "OpenError" });
  await assert.rejects(Device.open({ ...CONFIG, gateways: [] }, parts), { name: "OpenError" });
  assert.equal(store.closed, 3);
});

test("a gateway that floods the device is left", async () => {
  class Slow extends MemoryStore {
    hold: Promise<void> | undefined;
    override async commit(changes: readonly Change[]): Promise<void> {
      await this.hold;
      await super.commit(changes);
    }
  }
  const store = new Slow();
  const { gateway, events, parts } = rig(store);
  const device = await Device.open(CONFIG, parts);
  await settle();
  let release = (): void => {};
  store.hold = new Promise((done) => (release = done));
  const sending = device.send("bob", 1, "hello");
  await settle();
  for (let at = 0; at < 1_100; at += 1) gateway.send({ case: "notice", value: { epoch: 1, head: 0 } });
  release();
  await sending;
  await settle();
  assert.ok(events.some((event) => event.kind === "disconnected"));
  await device.close();
});
