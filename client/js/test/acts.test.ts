/** Acts, questions and what passes by, with a gateway, a clock and a store of the test's own. */

import assert from "node:assert/strict";
import { randomFillSync } from "node:crypto";
import { test } from "node:test";

import { create } from "@bufbuild/protobuf";

import { Device, type Parts } from "../src/device.js";
import type { Entry } from "../src/entry.js";
import type { Event } from "../src/event.js";
import { ActKind } from "../src/gen/tidemark/v1/act_pb.js";
import { type Entry as WireEntry, EntrySchema } from "../src/gen/tidemark/v1/entry_pb.js";
import { ErrorCode } from "../src/gen/tidemark/v1/error_pb.js";
import { ClientFrameSchema, type Send, type Unread } from "../src/gen/tidemark/v1/gateway_pb.js";
import { IdKind } from "../src/gen/tidemark/v1/id_pb.js";
import type { Presence } from "../src/gen/tidemark/v1/presence_pb.js";
import { newMessageId } from "../src/ids.js";
import { MemoryStore } from "../src/stores/memory.js";
import { Gateway, ManualClock } from "./gateway.js";

const CONFIG = { user: "alice", device: "phone", gateways: ["one"] };
const rng = { fill: (bytes: Uint8Array) => void randomFillSync(bytes), unit: () => 0 };

interface Rig {
  readonly gateway: Gateway;
  readonly clock: ManualClock;
  readonly store: MemoryStore;
  readonly events: Event[];
  readonly parts: Parts;
}

function rig(): Rig {
  const [gateway, clock, store] = [new Gateway(), new ManualClock(), new MemoryStore()];
  const events: Event[] = [];
  const parts = {
    ...{ store, clock, rng, connector: gateway },
    handler: { entry: () => {} },
    token: () => "jwt",
    onEvent: (event: Event) => void events.push(event),
  };
  return { gateway, clock, store, events, parts };
}

/** Everything that can happen without time going on. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 5; turn += 1) await new Promise((turn) => setImmediate(turn));
}

/** A message of `sender`, in a group if it is named. */
function message(seq: number, sender: string, group?: string): WireEntry {
  return create(EntrySchema, {
    seq,
    timeMs: 9n,
    origin: { sender, key: { case: "sessionSend", value: { session: 9n, n: BigInt(seq) } } },
    content: {
      case: "message",
      value: {
        clientMsgId: newMessageId(seq, rng),
        sentMs: 9n,
        ...(group && { conversation: { kind: IdKind.GROUP, name: group }, groupSeq: seq }),
      },
    },
  });
}

const sends = (gateway: Gateway): Send[] => gateway.of("send") as Send[];

test("acts are sends: durable, numbered, and answered", async () => {
  const { gateway, store, parts } = rig();
  const device = await Device.open(CONFIG, parts);
  gateway.silent = true;
  const place = { epoch: 1, seq: 3 } as Entry;
  const read = await device.markRead(place);
  assert.deepEqual(store.saved().outbox.get(0)?.about, { kind: ActKind.READ, epoch: 1, seq: 3 });
  await device.markDelivered(place);
  await device.recall({ epoch: 1, seq: 4 });
  await device.edit({ epoch: 1, seq: 5 }, 7, "better");
  await settle();
  const said = sends(gateway).map(({ n, to, kind, body, about }) => [
    n, to.length, kind, new TextDecoder().decode(body), about?.kind, about?.epoch, about?.seq,
  ]);
  assert.deepEqual(said, [
    [1n, 0, 0, "", ActKind.READ, 1, 3],
    [2n, 0, 0, "", ActKind.DELIVERED, 1, 3],
    [3n, 0, 0, "", ActKind.RECALL, 1, 4],
    [4n, 0, 7, "better", ActKind.EDIT, 1, 5],
  ]);
  const refused = { case: "failure", value: { code: ErrorCode.NO_MESSAGE } } as const;
  gateway.send({ case: "sendAck", value: { session: 1n, n: 1n, result: refused } });
  assert.deepEqual(await read.outcome(), { kind: "refused", code: ErrorCode.NO_MESSAGE });
  await device.close();
});

test("an act that no server would take never gets a number", async () => {
  const { store, parts } = rig();
  const device = await Device.open(CONFIG, parts);
  await assert.rejects(device.markRead({ epoch: 1, seq: -1 }), { why: "invalid" });
  await assert.rejects(device.recall({ epoch: 1.5, seq: 1 }), { why: "invalid" });
  await assert.rejects(device.edit({ epoch: 1, seq: 1 }, 2 ** 32, "x"), { why: "invalid" });
  const large = new Uint8Array(192 * 1024 + 1);
  await assert.rejects(device.edit({ epoch: 1, seq: 1 }, 1, large), { code: ErrorCode.BODY_TOO_LARGE });
  assert.equal(store.saved().outbox.size, 0);
  await device.close();
  await assert.rejects(device.markRead({ epoch: 1, seq: 1 }), { why: "closed" });
});

test("questions have answers, or say why not", async () => {
  const { gateway, clock, parts } = rig();
  const device = await Device.open(CONFIG, parts);
  await assert.rejects(device.unread(), { why: "offline" });
  await settle();
  const unread = device.unread();
  const presence = device.presence("bob");
  const refused = device.presence("carol");
  await settle();
  const [asked] = gateway.of("unread") as Unread[];
  const [bob, carol] = gateway.of("presence") as Presence[];
  assert.equal(bob?.user, "bob");
  // In another order than they were asked in.
  gateway.send({
    case: "presenceReply",
    value: { requestId: bob?.requestId ?? 0n, status: { online: true, lastSeenMs: 7_200_000n } },
  });
  const failure = { code: ErrorCode.OVERLOADED, message: "later" };
  const { number } = ClientFrameSchema.field.presence;
  gateway.send({ case: "error", value: { frame: number, requestId: carol?.requestId ?? 0n, failure } });
  const conversation = { kind: IdKind.GROUP, name: "friends" };
  const counts = { epoch: 1, head: 9, unread: 2, conversations: [{ conversation, unread: 2, readSeq: 4 }] };
  gateway.send({ case: "unreadReply", value: { requestId: asked?.requestId ?? 0n, counts } });
  assert.deepEqual(await presence, { online: true, lastSeenMs: 7_200_000 });
  await assert.rejects(refused, { why: "refused", code: ErrorCode.OVERLOADED });
  const group = { with: { kind: "group", name: "friends" }, unread: 2, deliveredSeq: 0, readSeq: 4 };
  assert.deepEqual(await unread, { epoch: 1, from: 0, head: 9, unread: 2, conversations: [group] });
  const silent = assert.rejects(device.unread(), { why: "noAnswer" });
  await settle();
  clock.pass(10_000);
  await silent;
  const stopped = assert.rejects(device.presence("bob"), { why: "closed" });
  await settle();
  await device.close();
  await stopped;
  await assert.rejects(device.unread(), { why: "closed" });
});

test("questions under way are bounded", async () => {
  const { parts } = rig();
  const device = await Device.open(CONFIG, parts);
  await settle();
  const asked = Array.from({ length: 64 }, () => assert.rejects(device.unread(), { why: "closed" }));
  await settle();
  await assert.rejects(device.presence("bob"), { why: "busy" });
  await device.close();
  await Promise.all(asked);
});

test("typing is said once, and told as it comes", async () => {
  const { gateway, events, store, parts } = rig();
  const device = await Device.open(CONFIG, parts);
  // Nobody is there to hear it.
  device.typing("bob", true);
  await settle();
  device.typing("bob", false);
  await settle();
  const said = gateway.of("typing").map((it) => (it as { user: string; typing: boolean }).typing);
  assert.deepEqual(said, [false]);
  gateway.send({ case: "typing", value: { user: "bob", typing: true } });
  await settle();
  const told = events.filter(({ kind }) => kind === "typing");
  assert.deepEqual(told, [{ kind: "typing", by: "bob", typing: true }]);
  assert.equal(store.saved().outbox.size, 0);
  await device.close();
});

test("delivered marks are for the newest message of each other user, at most one a second", async () => {
  const { gateway, clock, parts } = rig();
  const device = await Device.open({ ...CONFIG, deliveredMarks: true }, parts);
  await settle();
  const entries = [message(1, "bob"), message(2, "carol"), message(3, "bob"), message(4, "alice"), message(5, "bob", "friends")];
  gateway.send({ case: "deliver", value: { epoch: 1, prevSeq: 0, entries } });
  await settle();
  assert.deepEqual(sends(gateway), []);
  clock.pass(1_000);
  await settle();
  const marked = () => sends(gateway).map(({ about }) => [about?.kind, about?.seq]);
  assert.deepEqual(marked(), [[ActKind.DELIVERED, 3], [ActKind.DELIVERED, 2]]);
  clock.pass(5_000);
  await settle();
  assert.equal(marked().length, 2, "each once");
  await device.close();
});
