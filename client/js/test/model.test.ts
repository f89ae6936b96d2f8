/**
 * Everything that goes wrong, at random, against a server that keeps the rules of R1: runs that are
 * lost, doubled or overtaken, frames without an answer, cut connections, crashes before and after a
 * commit, sessions that another process replaces or that expire, resets and retention.
 *
 * What must hold: the application gets every entry once, in order (after a crash: again from the
 * stored cursor, in order); every send that was stored gets one outcome, and that is the truth; no send
 * is taken twice or out of order; the server never sees a number that breaks a rule. It is the model of
 * `client/tests/client/model.rs`, with seeds in place of shrinking: `MODEL_SEED=n` runs one of them.
 */

import assert from "node:assert/strict";
import { test } from "node:test";

import { checkConfig } from "../src/config.js";
import { Engine } from "../src/engine/engine.js";
import type { Action, Input, Link } from "../src/engine/io.js";
import { type Item, lastOf } from "../src/entry.js";
import { ErrorCode } from "../src/gen/tidemark/v1/error_pb.js";
import { IdKind } from "../src/gen/tidemark/v1/id_pb.js";
import type { ClientFrame } from "../src/gen/tidemark/v1/gateway_pb.js";
import { newMessageId } from "../src/ids.js";
import type { Outcome } from "../src/outcome.js";
import type { Rng } from "../src/rng.js";
import type { Change, OutboxId } from "../src/store.js";
import { MemoryStore } from "../src/stores/memory.js";
import { type Mood, Server } from "./server.js";
import { storedBefore } from "./stored.js";

const WORLDS = 300;
const OPS = 300;

/** A sequence of numbers that is the same for the same seed (Steele and Vigna's SplitMix, in 32 bits). */
class Seeded implements Rng {
  constructor(private state: number) {}

  unit(): number {
    this.state = (this.state + 0x9e37_79b9) | 0;
    let mixed = Math.imul(this.state ^ (this.state >>> 16), 0x21f0_aaad);
    mixed = Math.imul(mixed ^ (mixed >>> 15), 0x735a_2d97);
    return ((mixed ^ (mixed >>> 15)) >>> 0) / 2 ** 32;
  }

  fill(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; at += 1) bytes[at] = this.below(256);
  }

  below(end: number): number {
    return Math.floor(this.unit() * end);
  }

  chance(of: number): boolean {
    return this.unit() < of;
  }

  /** One of these, by their weights. */
  pick<T>(choices: readonly (readonly [number, T])[]): T {
    let left = this.below(choices.reduce((sum, [weight]) => sum + weight, 0));
    for (const [weight, choice] of choices) {
      if (left < weight) return choice;
      left -= weight;
    }
    throw new Error("weights are positive");
  }
}

const MOODS: readonly (readonly [number, Mood])[] = [
  [12, "answer"],
  [1, "lose"],
  [1, "forget"],
  [1, ErrorCode.OVERLOADED],
  [1, ErrorCode.UNAVAILABLE],
  [1, ErrorCode.GOING_AWAY],
  [1, ErrorCode.NO_DEVICE],
  [1, ErrorCode.TOKEN_EXPIRED],
];

/** The device, its network, and what its application saw. */
class World {
  readonly #config = checkConfig({ user: "alice", device: "phone", gateways: ["one:1"] });
  readonly #store = new MemoryStore();
  readonly #server = new Server(4, 5);
  readonly #random: Seeded;
  #engine: Engine;
  #now = 0;
  #crashed = false;
  #link: Link | undefined;
  #toServer: ClientFrame[] = [];
  #started = false;
  #handing = false;
  /** The seq that the application took last, in this life, and the one before. */
  #last: number | undefined;
  #before: number | undefined;
  /** The highest that it ever took. */
  #highest = 0;
  /** Where the last reset began. */
  #floor = 0;
  /** After a crash the memory of origins is gone, and a reset may bring everything again. */
  #forgetful = false;
  #sends = 0;
  /** Bodies of sends that are durable, and what was reported of them. */
  readonly #stored = new Map<OutboxId, string>();
  readonly #reported = new Map<OutboxId, Outcome>();
  #toTake: OutboxId[] = [];

  constructor(seed: number) {
    this.#random = new Seeded(seed);
    this.#engine = new Engine(this.#config, this.#store.saved(), this.#random);
    this.#input({ kind: "tick" });
  }

  #input(input: Input): void {
    this.#engine.input(this.#now, input);
    this.#carryOut();
  }

  #commit(changes: readonly Change[]): void {
    for (const change of changes) {
      if (change.kind === "put") this.#stored.set(change.id, new TextDecoder().decode(change.draft.body));
      // A device without a cursor starts at the floor.
      if (change.kind === "meta" && change.meta.epoch > 0 && !this.#started) {
        this.#started = true;
        this.#highest = change.meta.cursor;
      }
    }
    this.#store.apply(changes);
  }

  #carryOut(): void {
    const { changes, actions } = this.#engine.output();
    this.#commit(changes);
    for (const action of actions) this.#act(action);
  }

  #act(action: Action): void {
    switch (action.kind) {
      case "connect":
        this.#cut();
        this.#link = action.link;
        return this.#input({ kind: "connected", link: action.link });
      case "close":
        return this.#link === action.link ? this.#cut() : undefined;
      case "send":
        if (this.#link !== action.link) return;
        storedBefore(action.frame, this.#store.saved());
        this.#toServer.push(action.frame);
        return;
      case "fetchToken":
        return this.#input({ kind: "token", token: "jwt" });
      case "hand":
        return this.#handed(action.item);
      case "report": {
        const before = this.#reported.get(action.id);
        if (before) assert.deepEqual(action.settled.outcome, before, "two outcomes");
        this.#reported.set(action.id, action.settled.outcome);
        this.#toTake.push(action.id);
        return;
      }
      case "event":
        if (action.event.kind !== "reset") return;
        // What lies below it cannot be had in the new epoch.
        this.#floor = action.event.floor;
        this.#highest = Math.max(this.#highest, this.#floor);
        if (this.#last !== undefined) this.#last = Math.max(this.#last, this.#floor);
        return;
      case "stop":
        throw new Error("nothing fatal happens here");
    }
  }

  #cut(): void {
    this.#link = undefined;
    this.#toServer = [];
    this.#server.cut();
  }

  #handed(item: Item): void {
    assert.ok(!this.#handing, "one at a time");
    this.#handing = true;
    const seq = lastOf(item);
    const first = item.kind === "gap" ? item.first : seq;
    if (item.kind === "entry") {
      const truth = this.#server.mailbox[seq - 1]?.content;
      assert.ok(item.entry.content.kind === "message" && truth?.case === "message");
      assert.deepEqual(item.entry.content.body, truth.value.body);
    } else {
      assert.ok(seq <= this.#server.floor, "a gap of entries that are there");
    }
    assert.ok(first <= this.#highest + 1, `${first} is handed over, ${this.#highest} was the last`);
    if (this.#last !== undefined && !this.#forgetful && item.kind === "entry") {
      assert.equal(first, this.#last + 1, "twice, or out of order");
    }
    this.#before = this.#last;
    // After a reset a gap may be of entries that were taken before it.
    this.#last = Math.max(this.#forgetful ? seq : (this.#last ?? seq), seq);
  }

  #handled(taken: boolean): void {
    if (!this.#handing) return;
    this.#handing = false;
    if (taken) this.#highest = Math.max(this.#highest, this.#last ?? 0);
    else this.#last = this.#before === undefined ? undefined : Math.max(this.#before, this.#floor);
    this.#input(taken ? { kind: "handled" } : { kind: "notHandled", reason: "no" });
  }

  #arrive(wanted: number, lost: boolean, again: boolean): void {
    if (this.#link === undefined) return;
    const { out } = this.#server;
    const loose = (at: number): boolean => {
      const kind = out[at]?.frame.case;
      return kind === "deliver" || kind === "syncPage" || kind === "notice";
    };
    const upto = out.slice(0, wanted + 1).every((_, at) => loose(at));
    const at = upto ? wanted : 0;
    const mayBeLost = loose(at);
    const [frame] = out.splice(at, 1);
    if (!frame) return;
    if (again && mayBeLost) out.push(frame);
    if (!(lost && mayBeLost)) this.#input({ kind: "frame", link: this.#link, frame });
  }

  #send(): void {
    this.#sends += 1;
    this.#engine.send(this.#now, {
      to: [{ kind: IdKind.USER, name: "bob" }],
      kind: 0,
      body: new TextEncoder().encode(String(this.#sends).padStart(6, "0")),
      clientMsgId: newMessageId(this.#sends, { fill: (bytes) => void bytes.fill(1), unit: () => 0 }),
    });
  }

  #mail(): void {
    const n = this.#server.head + 1;
    const clientMsgId = newMessageId(n, { fill: (bytes) => void bytes.fill(2), unit: () => 0 });
    const body = new TextEncoder().encode(`mail ${n}`);
    this.#server.append({ sender: "bob", session: 1n, n: BigInt(n), clientMsgId, body });
  }

  #crash(committed: boolean): void {
    // The last step was under way.
    this.#send();
    this.#engine.input(this.#now, { kind: "tick" });
    const { changes } = this.#engine.output();
    if (committed) this.#commit(changes);
    this.#cut();
    this.#crashed = true;
    this.#handing = false;
    this.#last = undefined;
    this.#forgetful = false;
    this.#toTake = [];
    this.#engine = new Engine(this.#config, this.#store.saved(), this.#random);
    this.#input({ kind: "tick" });
  }

  #take(): void {
    const id = this.#toTake.shift();
    if (id !== undefined) this.#input({ kind: "taken", id });
  }

  /** One thing that may happen. */
  step(): void {
    const random = this.#random;
    const server = this.#server;
    random.pick<() => void>([
      [20, () => (this.#send(), this.#carryOut())],
      [10, () => this.#mail()],
      [40, () => this.#serve(random.pick(MOODS))],
      [40, () => this.#arrive(random.below(4), random.chance(0.1), random.chance(0.1))],
      [20, () => this.#handled(random.chance(0.9))],
      [10, () => this.#take()],
      [10, () => this.#pass(1 + random.below(3_000))],
      [3, () => this.#lose()],
      [1, () => this.#goAway()],
      [3, () => this.#crash(random.chance(0.5))],
      [1, () => server.replace(new TextEncoder().encode("somebody else"))],
      [1, () => this.#expire(random.chance(0.5))],
      [1, () => this.#reset()],
      [1, () => this.#trim()],
    ])();
  }

  #serve(mood: Mood): void {
    const frame = this.#toServer.shift();
    if (frame) this.#server.serve(frame, mood);
  }

  #pass(ms: number): void {
    this.#now += ms;
    this.#input({ kind: "tick" });
  }

  #lose(): void {
    const link = this.#link;
    if (link === undefined) return;
    this.#cut();
    this.#input({ kind: "lost", link, reason: "cut" });
  }

  #goAway(): void {
    if (this.#link === undefined) return;
    this.#server.say({ case: "goAway", value: { reconnectAfterMs: 50, closeAfterMs: 500 } });
  }

  #expire(live: boolean): void {
    const server = this.#server;
    if (live) server.live = 0n;
    for (const id of server.sessions.keys()) if (id !== server.live) server.sessions.delete(id);
  }

  #reset(): void {
    this.#server.epoch += 1;
    this.#server.delivered = undefined;
    this.#forgetful ||= this.#crashed;
  }

  #trim(): void {
    const server = this.#server;
    server.floor = Math.max(Math.min(server.floor + 3, server.delivered ?? 0), server.floor);
  }

  /** Nothing goes wrong any more, until nothing happens any more. */
  heal(): void {
    for (let step = 0; step < 20_000; step += 1) {
      if (this.#toServer.length > 0) this.#serve("answer");
      else if (this.#server.out.length > 0) this.#arrive(0, false, false);
      else if (this.#handing) this.#handled(true);
      else if (this.#toTake.length > 0) this.#take();
      else {
        const { outboxLength, cursor, epoch } = this.#engine.status;
        const rest = outboxLength === 0 && cursor === this.#server.head && epoch === this.#server.epoch;
        if (rest) return;
        const due = this.#engine.deadline;
        assert.ok(due !== undefined, "something is due");
        this.#now = Math.max(this.#now, due);
        this.#input({ kind: "tick" });
      }
    }
    throw new Error(`it does not come to rest: ${JSON.stringify(this.#engine.status)}`);
  }

  check(): void {
    assert.equal(Math.max(this.#highest, this.#server.floor), this.#server.head, "not all was taken");
    const own = this.#server.own();
    assert.deepEqual(own, [...own].sort(), "out of order");
    for (const [id, body] of this.#stored) {
      const copies = own.filter((one) => one === body).length;
      const outcome = this.#reported.get(id);
      assert.ok(outcome, `send ${id} has no outcome`);
      if (outcome.kind === "accepted") assert.equal(copies, 1);
      if (outcome.kind === "refused") assert.equal(copies, 0);
      if (outcome.kind === "unknown") {
        assert.equal(outcome.why, "expired");
        assert.ok(copies <= 1);
      }
    }
  }
}

test("nothing is lost, doubled or reordered", () => {
  const one = process.env.MODEL_SEED;
  const seeds = one === undefined ? Array.from({ length: WORLDS }, (_, seed) => seed) : [Number(one)];
  for (const seed of seeds) {
    try {
      const world = new World(seed);
      for (let left = OPS; left > 0; left -= 1) world.step();
      world.heal();
      world.check();
    } catch (error) {
      throw new Error(`MODEL_SEED=${seed}`, { cause: error });
    }
  }
});
