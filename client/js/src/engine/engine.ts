/**
 * The device as a state machine without I/O: inputs in, changes and actions out.
 *
 * ```text
 *   frames, ticks,      ┌────────────┐ welcome, lost, due   ┌────────────┐
 *   connections,   ───► │ Connection │ ───────────────────► │  Receiver  │ ─► hand, Sync, Ack
 *   tokens              └────────────┘          │           └─────┬──────┘
 *                                               ▼                 │ own copies
 *   sends of the        ┌─────────────────────────────────────────▼──────┐
 *   application    ───► │                    Sender                      │ ─► Open, Send, report
 *                       └────────────────────────────────────────────────┘
 * ```
 *
 * No timer, no socket, no storage, no clock: time comes with each input, randomness from a seam, so
 * one script of inputs gives one output. A runtime makes the changes of an output durable and only
 * then carries out its actions; inputs that came together may share one output. That order is the
 * whole of "durable before use": numbers before `Send`, `open_id` before `Open`, the cursor before
 * whatever confirms it, outcomes before the `base` above them.
 *
 * A crash may lose an output whole, or its actions after its changes; nothing else.
 */

import type { MessageInitShape } from "@bufbuild/protobuf";

import type { CheckedConfig } from "../config.js";
import { isName } from "../entry.js";
import { type Failure, failureText, readFailure } from "../failure.js";
import type { FatalReason } from "../event.js";
import { ErrorCode } from "../gen/tidemark/v1/error_pb.js";
import {
  ClientFrameSchema,
  type Error as ErrorFrame,
  type ServerFrame,
  StartAt,
  type Welcome,
} from "../gen/tidemark/v1/gateway_pb.js";
import { uuidBytes, uuidText } from "../ids.js";
import type { Rng } from "../rng.js";
import type { Draft, Meta, OutboxId, Saved } from "../store.js";
import { Connection, type From } from "./connection.js";
import type { Input, Link, Output, Status } from "./io.js";
import { Out } from "./out.js";
import { Outbox } from "./outbox.js";
import { BrokenServer } from "./page.js";
import { Receiver } from "./receiver.js";
import { type Need, Sender } from "./sender.js";
import { earliest } from "./time.js";

/** How long a device that closes waits for the item that its application has in its hands. */
const CLOSE_TIMEOUT_MS = 5_000;

/** How long outcomes that were taken stay in the store when nothing else is written. */
const FORGET_INTERVAL_MS = 1_000;

/** The numbers by which an `Error` names the frame that it refuses. */
const { hello: HELLO, open: OPEN, send: SEND, sync: SYNC, unread: UNREAD, presence: PRESENCE } = ClientFrameSchema.field;

/** What a device says of its application's, and stores nothing of. */
export type Said = Extract<MessageInitShape<typeof ClientFrameSchema>["frame"], { case: "unread" | "presence" | "typing" }>;

/** A device. */
export class Engine {
  #meta: Meta;
  readonly #connection: Connection;
  readonly #sender: Sender;
  readonly #receiver: Receiver;
  readonly #out = new Out();
  /** The server's clock, and when it was read. */
  #serverTime: { readonly timeMs: number; readonly at: number } | undefined;
  #closeBy: number | undefined;
  #forgetAt: number | undefined;

  /** A device that goes on where its store left off. The first `tick` makes it connect. */
  constructor(
    private readonly config: CheckedConfig,
    saved: Saved,
    rng: Rng,
  ) {
    const { user, device } = config;
    this.#meta = saved.meta ?? { user, device, epoch: 0, cursor: 0, numbered: 0 };
    this.#out.saveMeta();
    const outcomes = [...saved.outcomes].sort(([one], [other]) => one - other);
    for (const [id, settled] of outcomes) this.#out.action({ kind: "report", id, settled });
    const used = (outcomes.at(-1)?.[0] ?? -1) + 1;
    const outbox = new Outbox(saved.outbox, Math.max(used, this.#meta.numbered));
    this.#connection = new Connection(config.gateways.length, rng);
    this.#sender = new Sender(outbox, this.#meta, rng);
    this.#receiver = new Receiver(this.#meta, rng);
  }

  /** Takes a send, whose content was checked. It is stored with the next output. */
  send(now: number, draft: Draft): OutboxId {
    const id = this.#sender.push(draft, this.#out);
    this.#pump(now);
    return id;
  }

  /**
   * Says something on the connection in use, once: an answer is an action, if one comes. False when there is
   * no connection.
   */
  say(now: number, frame: Said): boolean {
    if (!this.#connection.isOnline) return false;
    this.#out.frame(frame);
    this.#pump(now);
    return true;
  }

  /** Takes an input. `now` never goes back. */
  input(now: number, input: Input): void {
    if (this.isStopped) return;
    this.#take(now, input);
    const closed = this.#closeBy !== undefined && (this.#closeBy <= now || !this.#receiver.isHanding);
    if (closed && !this.isStopped) this.#stop();
    this.#pump(now);
  }

  #take(now: number, input: Input): void {
    switch (input.kind) {
      case "tick":
        return this.#tick(now);
      case "connected":
        return this.#connection.connected(now, input.link, this.#out);
      case "lost":
        return this.#lose(now, input.link, input.reason, undefined);
      case "frame":
        return this.#frame(now, input.link, input.frame);
      case "token":
        this.#connection.token(input.token);
        return this.#hello(now);
      case "noToken":
        if (this.#connection.noToken(now)) {
          this.#dropLink(now, `no token: ${input.reason}`, undefined);
        }
        return;
      case "handled":
        return this.#receiver.handled(now, undefined, this.#out);
      case "notHandled":
        return this.#receiver.handled(now, input.reason, this.#out);
      case "taken":
        this.#out.forget(input.id);
        this.#forgetAt ??= now + FORGET_INTERVAL_MS;
        return;
      case "close":
        this.#receiver.close();
        this.#closeBy ??= now + CLOSE_TIMEOUT_MS;
        return;
    }
  }

  /** What has come together since this was last asked. */
  output(): Output {
    return this.#out.take(() => {
      const { user, device, cluster } = this.#meta;
      this.#meta = {
        user,
        device,
        ...(cluster !== undefined && { cluster }),
        ...this.#sender.save(),
        ...this.#receiver.save(),
      };
      return this.#meta;
    });
  }

  /** When a tick is due. */
  get deadline(): number | undefined {
    if (this.isStopped) return undefined;
    return earliest(
      this.#connection.deadline,
      this.#sender.deadline,
      this.#receiver.deadline,
      this.#closeBy,
      this.#forgetAt,
    );
  }

  /** Has it stopped? */
  get isStopped(): boolean {
    return this.#connection.isStopped;
  }

  /** Where it stands. */
  get status(): Status {
    return {
      connection: this.#connection.state,
      gateway: this.#connection.gateway,
      ...this.#receiver.status(),
      ...this.#sender.status(),
    };
  }

  /** The server's clock as it was last told, and the monotonic time of that. */
  get serverTime(): { readonly timeMs: number; readonly at: number } | undefined {
    return this.#serverTime;
  }

  /** Goes on wherever something can go on. */
  #pump(now: number): void {
    if (!this.isStopped) {
      this.#receiver.pump(now, this.#out);
      this.#sender.pump(now, this.#out);
    }
    if (this.#out.takeSent()) this.#connection.sent(now);
  }

  #tick(now: number): void {
    this.#receiver.tick(now, this.#out);
    this.#sender.tick(now);
    if (this.#forgetAt !== undefined && this.#forgetAt <= now) {
      this.#forgetAt = undefined;
      this.#out.flush();
    }
    const due = this.#connection.tick(now, this.#out);
    switch (due.kind) {
      case "nothing":
        return;
      case "dead":
        return this.#dropLink(now, due.reason, undefined);
      case "hello":
        return this.#hello(now);
      case "ping": {
        const { epoch, seq } = this.#receiver.confirm(this.#out);
        this.#out.frame({ case: "ping", value: { nonce: 1n, epoch, seqCli: seq } });
      }
    }
  }

  #hello(now: number): void {
    if (!this.#connection.mayGreet) return;
    this.#out.setLink(this.#connection.link);
    const token = this.#connection.greet(now);
    const { epoch, seq } = this.#receiver.confirm(this.#out);
    const { user, device, agent, label, start } = this.config;
    const cluster = this.#meta.cluster ?? this.config.cluster;
    const clusterId = cluster === undefined ? new Uint8Array() : uuidBytes(cluster);
    this.#out.frame({
      case: "hello",
      value: {
        ...{ clusterId, token, user, device, epoch, seqCli: seq, agent },
        ...(epoch === 0 && { start: startOf(start) }),
        ...(label && { label: { ...label } }),
      },
    });
  }

  #frame(now: number, link: Link, { frame }: ServerFrame): void {
    const from = this.#connection.heard(now, link);
    // A frame of a kind that this version does not know is passed over.
    if (from === "nobody" || frame.case === undefined) return;
    switch (frame.case) {
      case "sendAck":
        return this.#need(now, this.#sender.ack(now, from === "old", frame.value, this.#out));
      case "deliver":
        return this.#check(now, link, () =>
          this.#receiver.deliver(frame.value, this.#sender, this.#out),
        );
      case "syncPage":
        return this.#check(now, link, () =>
          this.#receiver.page(frame.value, this.#sender, this.#out),
        );
      default:
        return this.#ofCurrent(now, link, from, frame);
    }
  }

  /**
   * What an old connection says of itself, or of a session that the new one may have replaced, is
   * over.
   */
  #ofCurrent(now: number, link: Link, from: From, frame: ServerFrame["frame"]): void {
    if (from !== "current") return;
    switch (frame.case) {
      case "opened":
        return this.#need(now, this.#sender.opened(now, frame.value, this.#out));
      case "welcome":
        return this.#welcome(now, frame.value);
      case "notice":
        return this.#receiver.notice(frame.value.epoch, frame.value.head);
      case "pong":
        this.#serverTime = { timeMs: Number(frame.value.serverTimeMs), at: now };
        return this.#receiver.notice(frame.value.epoch, frame.value.seqSvr);
      case "reset":
        if (this.#receiver.reset(frame.value, this.#out)) this.#hello(now);
        return;
      case "goAway":
        return this.#leave(now, frame.value.reconnectAfterMs, frame.value.closeAfterMs);
      case "error":
        return this.#error(now, link, frame.value);
      case "typing":
        if (isName(frame.value.user)) {
          this.#out.event({ kind: "typing", by: frame.value.user, typing: frame.value.typing });
        }
        return;
      case "unreadReply":
      case "presenceReply":
        return this.#out.action({ kind: "answer", answer: frame });
      // This device never asks for a Status.
      default:
        return;
    }
  }

  #welcome(now: number, welcome: Welcome): void {
    const first = this.#connection.welcome(now, welcome, this.#out);
    if (first === undefined) return;
    if (welcome.clusterId.length !== 16) {
      return this.#dropLink(now, "welcome.cluster_id: is no UUID", undefined);
    }
    const cluster = uuidText(welcome.clusterId);
    const known = this.#meta.cluster ?? this.config.cluster;
    if (known !== undefined && known.toLowerCase() !== cluster) {
      return this.#fatal("wrongCluster", cluster);
    }
    if (this.#meta.cluster === undefined) {
      this.#meta = { ...this.#meta, cluster };
      this.#out.saveMeta();
    }
    if (!this.#receiver.welcome(now, welcome, this.#out)) {
      return this.#dropLink(now, "the welcome is not for this device's cursor", undefined);
    }
    this.#serverTime = { timeMs: Number(welcome.serverTimeMs), at: now };
    this.#sender.welcome(welcome, this.#out);
    if (first) {
      const gateway = this.config.gateways[this.#connection.gateway] ?? "";
      this.#out.event({ kind: "connected", gateway });
    }
  }

  /** A run that has a hole, or a page whose parts disagree, is a broken server. */
  #check(now: number, link: Link, take: () => void): void {
    try {
      take();
    } catch (error) {
      if (!(error instanceof BrokenServer)) throw error;
      this.#lose(now, link, error.message, undefined);
    }
  }

  #need(now: number, need: Need): void {
    switch (need) {
      case "nothing":
        return;
      case "hello":
        return this.#hello(now);
      case "token":
        this.#connection.refuseToken();
        return this.#connection.fetchToken(this.#out);
      case "elsewhere":
        return this.#leave(now, undefined, CLOSE_TIMEOUT_MS);
      case "head":
        return this.#receiver.seek();
    }
  }

  #leave(now: number, after: number | undefined, closeAfter: number): void {
    this.#connection.goAway(now, after, closeAfter);
    this.#offline();
  }

  #error(now: number, link: Link, error: ErrorFrame): void {
    const failure = readFailure(error.failure);
    const { code, retryAfterMs: hint } = failure;
    const fatal = this.#fatalOf(failure, error.frame === HELLO.number);
    if (fatal) return this.#fatal(fatal, failure.message);
    if (code === ErrorCode.GOING_AWAY) this.#leave(now, hint, CLOSE_TIMEOUT_MS);
    const { frame, closing } = error;
    if (frame === HELLO.number && !closing) {
      this.#connection.greetLater(now, hint);
    } else if (frame === OPEN.number || frame === SEND.number) {
      const need = this.#sender.notTaken(now, failure, this.#out);
      if (!closing) this.#need(now, need);
    } else if (frame === SYNC.number) {
      this.#receiver.refused(now, error.requestId, hint);
    } else if (frame === UNREAD.number || frame === PRESENCE.number) {
      this.#out.action({ kind: "unanswered", requestId: error.requestId, failure });
    } else if (code === ErrorCode.NO_DEVICE && !closing) {
      // The device was forgotten, and hears nothing more until it registers again.
      this.#hello(now);
    }
    if (closing) this.#lose(now, link, failureText(failure), hint);
  }

  #fatalOf({ code }: Failure, hello: boolean): FatalReason | undefined {
    const token = code === ErrorCode.UNAUTHENTICATED || code === ErrorCode.TOKEN_EXPIRED;
    const again = token && this.#connection.refuseToken();
    switch (code) {
      case ErrorCode.WRONG_CLUSTER:
        return "wrongCluster";
      case ErrorCode.PERMISSION_DENIED:
        return hello ? "permissionDenied" : undefined;
      case ErrorCode.INVALID:
      case ErrorCode.TOO_MANY_DEVICES:
        return hello ? "refused" : undefined;
      case ErrorCode.UNAUTHENTICATED:
        return again ? "unauthenticated" : undefined;
      case ErrorCode.LOGGED_OUT:
        return "loggedOut";
      default:
        return undefined;
    }
  }

  #dropLink(now: number, reason: string, hint: number | undefined): void {
    const { link } = this.#connection;
    if (link !== undefined) this.#lose(now, link, reason, hint);
  }

  #lose(now: number, link: Link, reason: string, hint: number | undefined): void {
    const retryInMs = this.#connection.lose(now, link, hint, this.#out);
    if (retryInMs === undefined) return;
    this.#offline();
    this.#out.event({ kind: "disconnected", reason, retryInMs });
  }

  /** No frame goes out until the next `Hello`. */
  #offline(): void {
    this.#out.setLink(undefined);
    this.#sender.offline();
    this.#receiver.offline();
  }

  #fatal(reason: FatalReason, message: string): void {
    this.#out.event({ kind: "stopped", reason, message });
    this.#stop();
  }

  #stop(): void {
    this.#receiver.flush(this.#out);
    this.#out.flush();
    this.#connection.stop(this.#out);
    this.#offline();
  }
}

function startOf(start: CheckedConfig["start"]): { at: StartAt; last: number } {
  if (start === "head") return { at: StartAt.HEAD, last: 0 };
  if (start === "floor") return { at: StartAt.FLOOR, last: 0 };
  return { at: StartAt.LAST, last: start.last };
}
