/** The conformance kit in `client/conformance/`, against this engine. Its README says what scripts mean. */

import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { test } from "node:test";

import { create, fromJson, type JsonObject, type JsonValue, toJson } from "@bufbuild/protobuf";

import { type CheckedConfig, checkConfig, type Start } from "../src/config.js";
import { Engine, type Said } from "../src/engine/engine.js";
import type { Action, Input, Link } from "../src/engine/io.js";
import type { Event } from "../src/event.js";
import { errorName } from "../src/failure.js";
import { AboutSchema } from "../src/gen/tidemark/v1/act_pb.js";
import { IdKind } from "../src/gen/tidemark/v1/id_pb.js";
import { type ClientFrame, ClientFrameSchema, type ServerFrame, ServerFrameSchema } from "../src/gen/tidemark/v1/gateway_pb.js";
import { newMessageId } from "../src/ids.js";
import type { Outcome } from "../src/outcome.js";
import type { Rng } from "../src/rng.js";
import type { Draft, OutboxId } from "../src/store.js";
import { MemoryStore } from "../src/stores/memory.js";
import { storedBefore } from "./stored.js";

const KIT = new URL("../../../conformance/", import.meta.url);

/** A device that does nothing for so many of its own deadlines waits for ever. */
const DEADLINES_MAX = 100;

interface Step {
  readonly in: JsonObject;
  readonly out: readonly JsonValue[];
}

const scripts = readdirSync(KIT).filter((name) => name.endsWith(".json"));
assert.ok(scripts.length > 10, "one script per rule");

for (const name of scripts) {
  const script = JSON.parse(readFileSync(new URL(name, KIT), "utf8")) as {
    about: string;
    steps: Step[];
  };
  test(`${name}: ${script.about}`, () => {
    let world = new World("floor");
    for (const [at, step] of script.steps.entries()) {
      if ("open" in step.in) world = new World(step.in.open as Start);
      const done = world.step(step.in);
      const place = `step ${at + 1} ${JSON.stringify(step.in)}: ${JSON.stringify(done)}`;
      assert.ok(fits(step.out as JsonValue[], done), `${place}, wanted ${JSON.stringify(step.out)}`);
    }
  });
}

test("a script can fail", () => {
  const done = { send: { ack: { epoch: 1, seq: 7 } } };
  assert.ok(fits({ send: { ack: { seq: 7 } } }, done));
  assert.ok(!fits({ send: { ack: { seq: 8 } } }, done));
  assert.ok(!fits({ send: { ping: {} } }, done));
  assert.ok(!fits({ send: { ack: { cursor: 7 } } }, done));
  assert.ok(!fits([1], [1, 2]));
});

/** Does what was done have everything that is wanted of it? */
function fits(wanted: JsonValue, done: JsonValue | undefined): boolean {
  if (Array.isArray(wanted)) {
    return (
      Array.isArray(done) &&
      wanted.length === done.length &&
      wanted.every((value, at) => fits(value, done[at]))
    );
  }
  if (wanted === null || typeof wanted !== "object") return wanted === done;
  if (done === undefined || done === null || typeof done !== "object" || Array.isArray(done)) return false;
  return Object.entries(wanted).every(([name, value]) => name in done && fits(value, done[name]));
}

/** The kit's randomness: there is none. Bytes count up, so that ids differ. */
class Counting implements Rng {
  #next = 0;

  fill(bytes: Uint8Array): void {
    bytes.fill(this.#next);
    this.#next += 1;
  }

  unit(): number {
    return 0;
  }
}

/** What a script works on. */
class World {
  readonly #config: CheckedConfig;
  readonly #rng = new Counting();
  readonly #store = new MemoryStore();
  #engine: Engine;
  #now = 0;
  /** The connections that the device asked for, in order. */
  readonly #links: Link[] = [];
  #gateway: number | undefined;
  /** Which of the application's sends each one in the outbox is, counted from 1. */
  readonly #sends = new Map<OutboxId, number>();
  #openId: Uint8Array = new Uint8Array();
  #sync = 0n;

  constructor(start: Start) {
    const gateways = ["one:1", "two:1"];
    this.#config = checkConfig({ user: "alice", device: "phone", gateways, start });
    this.#engine = new Engine(this.#config, this.#store.saved(), this.#rng);
  }

  /** Does what a step says, and tells what the device does then. */
  step(step: JsonObject): JsonValue[] {
    const found = Object.entries(step).find(([name]) => name !== "link");
    assert.ok(found, "an input");
    const [name, value] = found;
    switch (name) {
      case "open":
        this.#input({ kind: "tick" });
        break;
      case "crash":
        this.#engine = new Engine(this.#config, this.#store.saved(), this.#rng);
        this.#input({ kind: "tick" });
        break;
      case "pass":
        this.#now += value as number;
        this.#input({ kind: "tick" });
        break;
      case "wait":
        return this.#wait(value as { atLeastMs?: number; atMostMs?: number });
      case "send":
        this.#send(value as string, { to: [{ kind: IdKind.USER, name: "bob" }] });
        break;
      case "act": {
        const { about, body = "" } = value as { about: JsonValue; body?: string };
        const { kind, epoch, seq } = fromJson(AboutSchema, about);
        this.#send(body, { to: [], about: { kind, epoch, seq } });
        break;
      }
      case "say": {
        const { frame } = fromJson(ClientFrameSchema, value);
        if (!this.#engine.say(this.#now, frame as Said)) return [{ unsaid: {} }];
        break;
      }
      default:
        this.#input(this.#plain(name, value, step.link as number | undefined));
    }
    return this.#done();
  }

  #plain(name: string, value: JsonValue, number: number | undefined): Input {
    const link = this.#links.at(number === undefined ? -1 : number - 1);
    assert.ok(link !== undefined, "the device has asked for a connection");
    switch (name) {
      case "connected":
        return { kind: "connected", link };
      case "lost":
        return { kind: "lost", link, reason: "the cable is cut" };
      case "token":
        return { kind: "token", token: value as string };
      case "noToken":
        return { kind: "noToken", reason: "nobody is logged in" };
      case "handled":
        return { kind: "handled" };
      case "failed":
        return { kind: "notHandled", reason: "the disk is full" };
      case "taken": {
        const found = [...this.#sends].find(([, send]) => send === value);
        assert.ok(found, "a send");
        return { kind: "taken", id: found[0] };
      }
      case "close":
        return { kind: "close" };
      case "frame":
        return { kind: "frame", link, frame: this.#frame(value) };
      default:
        throw new Error(`no input is called ${name}`);
    }
  }

  #input(input: Input): void {
    this.#engine.input(this.#now, input);
  }

  /** Time passes until the device does something of its own accord. */
  #wait({ atLeastMs = 0, atMostMs = Infinity }): JsonValue[] {
    const from = this.#now;
    for (let at = 0; at < DEADLINES_MAX; at += 1) {
      const { deadline } = this.#engine;
      assert.ok(deadline !== undefined, "something is due");
      this.#now = Math.max(this.#now, deadline);
      this.#input({ kind: "tick" });
      const done = this.#done();
      if (done.length > 0) {
        const passed = this.#now - from;
        assert.ok(passed >= atLeastMs && passed <= atMostMs, `after ${passed} ms`);
        return done;
      }
    }
    throw new Error("it does nothing any more");
  }

  #send(body: string, content: Pick<Draft, "to" | "about">): void {
    const number = this.#sends.size + 1;
    const draft = {
      ...content,
      kind: 0,
      body: new TextEncoder().encode(body),
      clientMsgId: messageId(number),
    };
    this.#sends.set(this.#engine.send(this.#now, draft), number);
  }

  /** A frame of the server, as JSON with placeholders. */
  #frame(json: JsonValue): ServerFrame {
    const text = JSON.stringify(json).replace(/"\$(\w+)(?::(\d+))?"/g, (_, name: string, number: string) => {
      switch (name) {
        case "openId":
          return JSON.stringify(base64(this.#openId));
        case "sync":
          return JSON.stringify(String(this.#sync));
        case "message":
          return JSON.stringify(base64(messageId(Number(number))));
        default:
          throw new Error(`no placeholder is called ${name}`);
      }
    });
    return fromJson(ServerFrameSchema, JSON.parse(text) as JsonValue);
  }

  /** What the device does; its changes are stored before. */
  #done(): JsonValue[] {
    const { changes, actions } = this.#engine.output();
    this.#store.apply(changes);
    return actions.map((action) => this.#effect(action));
  }

  #effect(action: Action): JsonValue {
    switch (action.kind) {
      case "connect": {
        const elsewhere = this.#gateway !== action.gateway;
        this.#gateway = action.gateway;
        this.#links.push(action.link);
        return { connect: { elsewhere } };
      }
      case "close":
        return { close: this.#links.indexOf(action.link) + 1 };
      case "send":
        return this.#sent(action.frame);
      case "fetchToken":
        return { fetchToken: { refused: action.refused } };
      case "hand":
        return action.item.kind === "entry"
          ? { hand: { seq: action.item.entry.seq } }
          : { hand: { gap: [action.item.first, action.item.last] } };
      case "report": {
        const send = this.#sends.get(action.id) ?? 0;
        return { report: { send, outcome: outcomeJson(action.settled.outcome) } };
      }
      case "event":
        return { tell: told(action.event) };
      case "answer":
        return {
          answer: toJson(ServerFrameSchema, create(ServerFrameSchema, { frame: action.answer }), { alwaysEmitImplicit: true }),
        };
      case "unanswered":
        return { unanswered: { requestId: String(action.requestId), code: errorName(action.failure.code) } };
      case "stop":
        return { stop: {} };
    }
  }

  #sent(frame: ClientFrame): JsonValue {
    storedBefore(frame, this.#store.saved());
    if (frame.frame.case === "open") this.#openId = frame.frame.value.openId;
    if (frame.frame.case === "sync") this.#sync = frame.frame.value.requestId;
    return { send: toJson(ClientFrameSchema, frame, { alwaysEmitImplicit: true }) };
  }
}

function outcomeJson(outcome: Outcome): JsonValue {
  switch (outcome.kind) {
    case "accepted":
      return { accepted: { seq: outcome.seq ?? null } };
    case "refused":
      return { refused: errorName(outcome.code) };
    case "unknown":
      return { unknown: outcome.why };
  }
}

function told(event: Event): JsonValue {
  switch (event.kind) {
    case "gap":
      return { gap: [event.first, event.last] };
    case "reset":
      return { reset: { epoch: event.epoch, floor: event.floor } };
    case "handlerFailed":
      return { handlerFailed: event.seq };
    case "sendingStopped":
      return { sendingStopped: errorName(event.code) };
    case "stopped":
      return { stopped: event.reason };
    case "typing":
      return { typing: { by: event.by, typing: event.typing } };
    case "outcome":
      throw new Error("an engine does not say this");
    default:
      return event.kind;
  }
}

function messageId(number: number): Uint8Array {
  return newMessageId(0, { fill: (bytes) => void bytes.fill(number), unit: () => 0 });
}

function base64(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("base64");
}
