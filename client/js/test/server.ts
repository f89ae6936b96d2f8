/**
 * A server of one user and one device that keeps the rules of sessions and mailboxes in memory. It
 * throws at a frame that breaks a rule. It is the one of `client/tests/client/server.rs`.
 */

import assert from "node:assert/strict";

import { create, type MessageInitShape } from "@bufbuild/protobuf";

import { type Entry, EntrySchema } from "../src/gen/tidemark/v1/entry_pb.js";
import { ErrorCode, type FailureSchema } from "../src/gen/tidemark/v1/error_pb.js";
import { type ClientFrame, type Open, type Send, type SendAck, SendAckSchema, type ServerFrame, ServerFrameSchema } from "../src/gen/tidemark/v1/gateway_pb.js";
import { sameBytes } from "../src/ids.js";
import type { Frame } from "./gateway.js";

/** What a server does with a frame: answers, loses it, loses its answer, or refuses it with a code. */
export type Mood = "answer" | "lose" | "forget" | ErrorCode;

type FailureInit = MessageInitShape<typeof FailureSchema>;

interface Session {
  base: bigint;
  readonly acks: { readonly body: Uint8Array; readonly ack: SendAck }[];
  ended: boolean;
  readonly openId: Uint8Array;
}

/** What a mailbox is appended: who sent it, and what. */
export interface Mail {
  readonly sender: string;
  readonly session: bigint;
  readonly n: bigint;
  readonly clientMsgId: Uint8Array;
  readonly body: Uint8Array;
}

export class Server {
  epoch = 1;
  floor = 0;
  live = 0n;
  readonly mailbox: Entry[] = [];
  readonly sessions = new Map<bigint, Session>();
  /** Delivery goes on after this seq. */
  delivered: number | undefined;
  /** Frames on their way to the device. */
  out: ServerFrame[] = [];
  #lastSession = 0n;
  #welcomed = false;

  /** An empty mailbox, a window of this many sends, and pages of so many entries. */
  constructor(
    private readonly window: number,
    private readonly pageEntries: number,
  ) {}

  /** The connection is gone, and what was on its way. */
  cut(): void {
    this.out = [];
    this.#welcomed = false;
    this.delivered = undefined;
  }

  get head(): number {
    return this.mailbox.length;
  }

  /** Bodies of the messages that this user sent, in order. */
  own(): string[] {
    const own = this.mailbox.filter(({ origin }) => origin?.sender === "alice");
    return own.map(({ content }) => new TextDecoder().decode(content.case === "message" ? content.value.body : undefined));
  }

  append({ sender, session, n, clientMsgId, body }: Mail): number {
    const seq = this.head + 1;
    const key = { case: "sessionSend", value: { session, n } } as const;
    const content = { case: "message", value: { clientMsgId, sentMs: 1n, body } } as const;
    this.mailbox.push(create(EntrySchema, { seq, timeMs: 1n, origin: { sender, key }, content }));
    if (this.delivered !== undefined) {
      const entries = this.mailbox.slice(this.delivered);
      this.say({ case: "deliver", value: { epoch: this.epoch, prevSeq: this.delivered, entries } });
      this.delivered = seq;
    }
    return seq;
  }

  say(frame: Frame): void {
    this.out.push(create(ServerFrameSchema, { frame }));
  }

  serve({ frame }: ClientFrame, mood: Mood): void {
    const before = this.out.length;
    const refused = typeof mood === "number";
    if (mood === "lose") return;
    if (frame.case === "send" && refused) {
      const { session, n } = frame.value;
      const result = { case: "failure", value: { code: mood } } as const;
      this.say({ case: "sendAck", value: { session, n, result } });
    } else if (frame.case === "open" && refused) {
      const result = { case: "failure", value: { code: mood } } as const;
      this.say({ case: "opened", value: { openId: frame.value.openId, result } });
    } else {
      this.#answer(frame);
    }
    if (mood === "forget") this.out.length = before;
  }

  replace(openId: Uint8Array): void {
    const live = this.sessions.get(this.live);
    if (live) live.ended = true;
    this.#lastSession += 1n;
    this.live = this.#lastSession;
    this.sessions.set(this.live, { base: 1n, acks: [], ended: false, openId });
  }

  #answer(frame: ClientFrame["frame"]): void {
    assert.ok(frame.case === "hello" || this.#welcomed, "a frame before the welcome");
    switch (frame.case) {
      case "hello":
        return this.#hello(frame.value.epoch, frame.value.seqCli);
      case "open":
        return this.#open(frame.value);
      case "send":
        return this.say({ case: "sendAck", value: this.#send(frame.value) });
      case "sync": {
        const { requestId, epoch, seqCli } = frame.value;
        return this.#impossible(epoch, seqCli) ? this.#reset() : this.#page(requestId, seqCli);
      }
      case "ack":
        return this.#impossible(frame.value.epoch, frame.value.seq) ? this.#reset() : undefined;
      case "ping": {
        const { nonce, epoch, seqCli } = frame.value;
        if (this.#impossible(epoch, seqCli)) return this.#reset();
        const place = { epoch: this.epoch, seqSvr: this.head };
        return this.say({ case: "pong", value: { nonce, ...place, serverTimeMs: 1n } });
      }
      default:
        return;
    }
  }

  #impossible(epoch: number, seq: number): boolean {
    return epoch !== this.epoch || seq > this.head;
  }

  #reset(): void {
    this.say({ case: "reset", value: { epoch: this.epoch, floor: this.floor, head: this.head } });
  }

  #page(requestId: bigint, from: number): void {
    const prev = Math.max(from, this.floor);
    const last = Math.min(this.head, prev + this.pageEntries);
    const more = last < this.head;
    this.delivered = more ? undefined : last;
    const page = {
      epoch: this.epoch,
      floor: this.floor,
      head: this.head,
      ...(from < prev && { gap: { from: from + 1, to: prev } }),
      prevSeq: prev,
      entries: this.mailbox.slice(prev, last),
      more,
    };
    this.say({ case: "syncPage", value: { requestId, page } });
  }

  #hello(epoch: number, seqCli: number): void {
    const start = epoch === 0 ? this.floor : seqCli;
    if (epoch !== 0 && this.#impossible(epoch, start)) return this.#reset();
    this.#welcomed = true;
    this.delivered = start === this.head ? start : undefined;
    const place = { epoch: this.epoch, seqSvr: this.head, floor: this.floor, start };
    const window = { sendWindow: this.window, sendWindowBytes: 1 << 20 };
    const clusterId = new Uint8Array(16).fill(7);
    const value = { clusterId, ...place, ...window, heartbeatMaxMs: 3_000, liveSession: this.live };
    this.say({ case: "welcome", value });
    if (start < this.head) this.#page(0n, start);
  }

  #open({ openId, ends }: Open): void {
    const live = this.sessions.get(this.live);
    const again = live !== undefined && sameBytes(live.openId, openId);
    if (!again && ends !== this.live) {
      const detail = { case: "live", value: this.live } as const;
      const result = { case: "failure", value: { code: ErrorCode.STALE, detail } } as const;
      return this.say({ case: "opened", value: { openId, result } });
    }
    if (!again) this.replace(openId);
    return this.say({ case: "opened", value: { openId, result: { case: "session", value: this.live } } });
  }

  #send(send: Send): SendAck {
    const { session: id, n, body } = send;
    const failed = (value: FailureInit): SendAck =>
      create(SendAckSchema, { session: id, n, result: { case: "failure", value } });
    assert.ok(id <= this.#lastSession, "INVALID: never opened");
    const session = this.sessions.get(id);
    if (!session) return failed({ code: ErrorCode.SESSION_EXPIRED });
    const lastN = BigInt(session.acks.length);
    const base = session.base > send.base ? session.base : send.base;
    assert.ok(send.base >= 1n && send.base <= n && base <= lastN + 1n, "INVALID");
    if (n < base) return failed({ code: ErrorCode.SETTLED });
    const known = session.acks[Number(n) - 1];
    if (known) {
      assert.deepEqual(known.body, body, "CONFLICT");
      return known.ack;
    }
    if (session.ended) {
      return failed({ code: ErrorCode.SESSION_ENDED, detail: { case: "lastN", value: lastN } });
    }
    if (n > lastN + 1n) {
      return failed({ code: ErrorCode.OUT_OF_ORDER, detail: { case: "expected", value: lastN + 1n } });
    }
    assert.ok(n - base < BigInt(this.window), "WINDOW_FULL");
    session.base = base;
    // The fifth of each ten is refused for good.
    const refused = body.at(-1) === "5".charCodeAt(0);
    const ack = refused ? failed({ code: ErrorCode.BLOCKED }) : this.#accept(send);
    session.acks.push({ body, ack });
    return ack;
  }

  #accept({ session, n, clientMsgId, body }: Send): SendAck {
    const seq = this.append({ sender: "alice", session, n, clientMsgId, body });
    const value = { seq, timeMs: 1n };
    return create(SendAckSchema, { session, n, result: { case: "accepted", value } });
  }
}
