/**
 * The device: carries out what its engine wants, and tells the engine what happened.
 *
 * ```text
 *   frames ─┐                    ┌─► commit (one for all) ─► frames, items, outcomes, events
 *   sends  ─┼─► take what is ─► engine
 *   handler ┤   ready                            ▲
 *   timer  ─┘                                    └── only once the commit is durable
 * ```
 *
 * While a commit is under way inputs pile up; they share the next one. Invariant: one loop per device,
 * and one place that writes its store.
 */

import {
  AskError,
  checkAct,
  kindOf,
  MARK_INTERVAL_MS,
  type Place,
  type Presence,
  Received,
  type UnreadCounts,
} from "./act.js";
import type { Connector, Wire } from "./carrier.js";
import { type Clock, systemClock } from "./clock.js";
import { type CheckedConfig, type Config, OpenError, checkConfig } from "./config.js";
import { SendError, type To, checkDraft } from "./draft.js";
import type { Action, Input, Link, Status } from "./engine/io.js";
import { Engine, type Said } from "./engine/engine.js";
import type { Entry, Item } from "./entry.js";
import type { Event } from "./event.js";
import { ActKind } from "./gen/tidemark/v1/act_pb.js";
import type { ServerFrame } from "./gen/tidemark/v1/gateway_pb.js";
import { isMessageId, newMessageId, uuidText } from "./ids.js";
import type { Outcome, Settled } from "./outcome.js";
import { type Rng, systemRng } from "./rng.js";
import { type Answer, Questions } from "./questions.js";
import { Room } from "./room.js";
import type { Draft, OutboxId, Saved, Store } from "./store.js";
import { WebSocketConnector } from "./websocket.js";

/**
 * Frames that wait for the store: two windows of acknowledgements. A WebSocket cannot be told to
 * pause, so a connection that brings more is given up; the mailbox keeps what is lost.
 */
const INCOMING_FRAMES_MAX = 1_024;

/** What an application does with its mailbox. */
export interface Handler {
  /**
   * Takes an entry. It is given one at a time, in the order of seqs, each until this resolves: only
   * then the cursor moves. After an error the same entry comes again, later; after a crash the entries
   * of the last second may.
   */
  entry(entry: Entry): Promise<void> | void;
  /** Notes that these entries can no longer be had. */
  gap?(first: number, last: number): Promise<void> | void;
}

/** What a device is made of. */
export interface Parts {
  /** Where it keeps what must survive. */
  readonly store: Store;
  /** What it does with entries. */
  readonly handler: Handler;
  /** A token for this device. With `refused` the server did not accept the last one. */
  readonly token: (refused: boolean) => Promise<string> | string;
  /** Takes events. Outcomes of an earlier run stay in the store as long as there is nobody for them. */
  readonly onEvent?: (event: Event) => void;
  /** Takes the status, whenever it has changed. */
  readonly onStatus?: (status: Status) => void;
  /** How it reaches gateways; WebSockets by default. */
  readonly connector?: Connector;
  readonly clock?: Clock;
  readonly rng?: Rng;
}

/** A message in the outbox. */
export interface Sending {
  /** The application's name for the message, a UUID, which all its copies carry. */
  readonly clientMsgId: string;
  /**
   * What became of it; as long as it takes. Rejects with a `SendError` when the device stops before:
   * then the outcome will be an event of its next run.
   */
  outcome(): Promise<Outcome>;
}

/** Who waits for an outcome, and the room that it holds. */
interface Waiter {
  readonly bytes: number;
  /** Absent for sends of an earlier run: their outcomes are events. */
  readonly sending?: PendingSending;
}

/**
 * A device. It works until it is closed, or something happens that only a person can heal (the event
 * `stopped`).
 */
export class Device {
  readonly #config: CheckedConfig;
  readonly #parts: Parts;
  readonly #engine: Engine;
  readonly #clock: Clock;
  readonly #rng: Rng;
  readonly #connector: Connector;
  readonly #room: Room;
  readonly #waiters: Map<OutboxId, Waiter>;
  readonly #wires = new Map<Link, Wire>();
  readonly #questions: Questions;
  /** Absent, if the application wants no delivered marks. */
  readonly #received: Received | undefined;
  #marksWait = false;
  /** What is to be done with the engine, in turn. */
  #ready: (() => void)[] = [];
  /** How many of these are frames. */
  #frames = 0;
  /** Sends to confirm once they are stored. */
  #storing: { readonly stored: () => void; readonly failed: (error: Error) => void }[] = [];
  #running = false;
  #cancelTimer: (() => void) | undefined;
  #status: Status;
  #finished = false;
  #finish!: () => void;
  readonly #closed: Promise<void>;

  /**
   * Opens a device, which connects and goes on where its store left off. The store is the device's from
   * now on: it is closed when the device stops, and when it cannot be opened.
   */
  static async open(config: Config, parts: Parts): Promise<Device> {
    try {
      const checked = checkConfig(config);
      const saved = await parts.store.load();
      checkSaved(checked, saved);
      return new Device(checked, parts, saved);
    } catch (error) {
      await parts.store.close();
      throw error;
    }
  }

  private constructor(config: CheckedConfig, parts: Parts, saved: Saved) {
    this.#config = config;
    this.#parts = parts;
    this.#clock = parts.clock ?? systemClock;
    this.#rng = parts.rng ?? systemRng;
    this.#connector = parts.connector ?? new WebSocketConnector();
    this.#questions = new Questions(this.#clock);
    this.#received = config.deliveredMarks ? new Received(config.user) : undefined;
    const sends = [...saved.outbox].map(([id, { body }]) => [id, { bytes: body.length }] as const);
    const outcomes = [...saved.outcomes.keys()].map((id) => [id, { bytes: 0 }] as const);
    this.#waiters = new Map<OutboxId, Waiter>([...sends, ...outcomes]);
    const used = sends.reduce((sum, [, { bytes }]) => sum + bytes, 0);
    this.#room = new Room(config.outboxEntriesMax - this.#waiters.size, config.outboxBytesMax - used);
    this.#closed = new Promise((finish) => (this.#finish = finish));
    this.#engine = new Engine(config, saved, this.#rng);
    this.#status = this.#engine.status;
    this.#input({ kind: "tick" });
  }

  /** Where the device stands. */
  get status(): Status {
    return this.#status;
  }

  /** Puts a message into the outbox, and waits while that is full; it is durable when this resolves. */
  async send(to: To, kind: number, body: Uint8Array | string): Promise<Sending> {
    const draft = this.#draft(to, kind, body);
    await this.#room.enter(draft.body.length);
    return this.#enqueue(draft);
  }

  /** Puts a message into the outbox if there is room now; it is durable when this resolves. */
  async trySend(to: To, kind: number, body: Uint8Array | string): Promise<Sending> {
    const draft = this.#draft(to, kind, body);
    if (!this.#room.tryEnter(draft.body.length)) {
      throw new SendError("full", "the outbox is full; wait for outcomes");
    }
    return this.#enqueue(draft);
  }

  /**
   * Says that the user has read everything of a conversation up to this message, which was received. It is a
   * send, as the other acts are: durable when this resolves, and taken exactly once.
   */
  markRead(message: Place): Promise<Sending> {
    return this.#actOn(ActKind.READ, message);
  }

  /** Says that this device has everything of a conversation up to this message; `deliveredMarks` does it by itself. */
  markDelivered(message: Place): Promise<Sending> {
    return this.#actOn(ActKind.DELIVERED, message);
  }

  /** Takes back a message that this user sent, for as long as the cluster allows: refused with `TOO_LATE` after that. */
  recall(message: Place): Promise<Sending> {
    return this.#actOn(ActKind.RECALL, message);
  }

  /** Gives a message that this user sent another body, for as long as the cluster allows. The kind is the message's. */
  edit(message: Place, kind: number, body: Uint8Array | string): Promise<Sending> {
    return this.#actOn(ActKind.EDIT, message, kind, body);
  }

  /** Asks what the user has not read, and how far the user has come in each conversation. Rejects with an `AskError`. */
  async unread(): Promise<UnreadCounts> {
    const answer = await this.#ask((requestId) => ({ case: "unread", value: { requestId } }));
    if (answer.case !== "unreadReply") throw noAnswer();
    const { epoch = 0, from = 0, head = 0, unread = 0, conversations = [] } = answer.value.counts ?? {};
    return {
      ...{ epoch, from, head, unread },
      conversations: conversations.map(({ conversation, unread, deliveredSeq, readSeq }) => ({
        with: { kind: kindOf(conversation?.kind ?? 0), name: conversation?.name ?? "" },
        ...{ unread, deliveredSeq, readSeq },
      })),
    };
  }

  /** Asks whether another user is there. Rejects with an `AskError`. */
  async presence(user: string): Promise<Presence> {
    const answer = await this.#ask((requestId) => ({ case: "presence", value: { requestId, user } }));
    if (answer.case !== "presenceReply") throw noAnswer();
    const { online = false, lastSeenMs = 0n } = answer.value.status ?? {};
    return { online, lastSeenMs: Number(lastSeenMs) };
  }

  /**
   * Says that this user types to another one, or has stopped. It passes by: it is said once, if the device is
   * connected, and reaches who is connected then. While somebody types an application says it again every few
   * seconds.
   */
  typing(to: string, typing: boolean): void {
    this.#later(() => void this.#engine.say(this.#clock.now(), { case: "typing", value: { user: to, typing } }));
  }

  /**
   * Stops the device: waits for the entry that the handler has in its hands, confirms the cursor,
   * stores everything, and disconnects. What is in the outbox stays there.
   */
  async close(): Promise<void> {
    this.#input({ kind: "close" });
    await this.#closed;
  }

  #draft(to: To, kind: number, body: Uint8Array | string): Draft {
    return checkDraft(to, kind, body, this.#newId());
  }

  /** By the server's clock where that is known: a device whose own clock is wrong makes good ids as well. */
  #newId(): Uint8Array {
    const server = this.#engine.serverTime;
    const now = server ? server.timeMs + this.#clock.now() - server.at : this.#clock.wall();
    return newMessageId(now, this.#rng);
  }

  async #actOn(what: ActKind, message: Place, kind = 0, body: Uint8Array | string = ""): Promise<Sending> {
    const draft = checkAct(what, message, kind, body, this.#newId());
    await this.#room.enter(draft.body.length);
    return this.#enqueue(draft);
  }

  #ask(question: (requestId: bigint) => Said): Promise<Answer> {
    return new Promise((answer, refuse) => {
      if (this.#finished) return refuse(new AskError("closed", "the device has stopped"));
      this.#later(() => {
        const asked = this.#questions.ask((requestId) => this.#engine.say(this.#clock.now(), question(requestId)));
        asked.then(answer, refuse);
      });
    });
  }

  /** A delivered mark for what came meanwhile, a while after the first of it. */
  #markLater(entry: Entry): void {
    if (!this.#received) return;
    this.#received.note(entry);
    if (this.#marksWait) return;
    this.#marksWait = true;
    this.#clock.after(MARK_INTERVAL_MS, () => {
      this.#marksWait = false;
      // A device that has stopped marks nothing any more; its next run marks what comes then.
      for (const place of this.#received?.take() ?? []) this.markDelivered(place).catch(() => {});
    });
  }

  #enqueue(draft: Draft): Promise<Sending> {
    return new Promise((stored, failed) => {
      if (this.#finished) return failed(closedError());
      const sending = new PendingSending(uuidText(draft.clientMsgId));
      this.#later(() => {
        if (this.#finished || this.#engine.isStopped) return failed(closedError());
        const id = this.#engine.send(this.#clock.now(), draft);
        this.#waiters.set(id, { bytes: draft.body.length, sending });
        this.#storing.push({ stored: () => stored(sending), failed });
      });
    });
  }

  #input(input: Input): void {
    this.#later(() => this.#engine.input(this.#clock.now(), input));
  }

  /** Does something with the engine, in its turn. */
  #later(what: () => void): void {
    if (this.#finished) return;
    this.#ready.push(what);
    if (!this.#running) void this.#run();
  }

  async #run(): Promise<void> {
    this.#running = true;
    // What happens in the same turn of the event loop shares a commit.
    await Promise.resolve();
    try {
      while (this.#ready.length > 0 && !this.#finished) {
        for (const what of this.#ready.splice(0)) what();
        await this.#carryOut();
      }
    } catch (error) {
      this.#storeFailed(error);
    }
    this.#running = false;
  }

  /** Makes the changes durable, then acts on them. */
  async #carryOut(): Promise<void> {
    const { changes, actions } = this.#engine.output();
    if (changes.length > 0) await this.#parts.store.commit(changes);
    for (const { stored } of this.#storing.splice(0)) stored();
    for (const action of actions) this.#act(action);
    this.#tellStatus();
    this.#setTimer();
  }

  #act(action: Action): void {
    switch (action.kind) {
      case "connect":
        return this.#connect(action.link, this.#config.gateways[action.gateway] ?? "");
      case "close":
        this.#wires.get(action.link)?.close();
        this.#wires.delete(action.link);
        return;
      case "send":
        return this.#wires.get(action.link)?.send(action.frame);
      case "fetchToken":
        return this.#fetchToken(action.refused);
      case "hand":
        return this.#hand(action.item);
      case "report":
        return this.#report(action.id, action.settled);
      case "answer":
        return this.#questions.answered(action.answer);
      case "unanswered":
        return this.#questions.refused(action.requestId, action.failure);
      case "event":
        this.#event(action.event);
        return;
      case "stop":
        return this.#stop();
    }
  }

  #connect(link: Link, gateway: string): void {
    const lost = (reason: string): void => {
      this.#wires.delete(link);
      this.#input({ kind: "lost", link, reason });
    };
    try {
      const wire = this.#connector.connect(gateway, {
        open: () => this.#input({ kind: "connected", link }),
        frame: (frame) => this.#frame(link, frame, lost),
        lost,
      });
      this.#wires.set(link, wire);
    } catch (error) {
      // An address that is none.
      lost(String(error));
    }
  }

  #frame(link: Link, frame: ServerFrame, lost: (reason: string) => void): void {
    if (this.#frames >= INCOMING_FRAMES_MAX) {
      this.#wires.get(link)?.close();
      lost("more frames came than the device's store can follow");
      return;
    }
    this.#frames += 1;
    this.#later(() => {
      this.#frames -= 1;
      this.#engine.input(this.#clock.now(), { kind: "frame", link, frame });
    });
  }

  #fetchToken(refused: boolean): void {
    const { token } = this.#parts;
    Promise.resolve(refused)
      .then(token)
      .then(
        (token) => this.#input({ kind: "token", token }),
        (error: unknown) => this.#input({ kind: "noToken", reason: String(error) }),
      );
  }

  #hand(item: Item): void {
    const { handler } = this.#parts;
    const take = async (): Promise<void> => {
      if (item.kind === "gap") return handler.gap?.(item.first, item.last);
      await handler.entry(item.entry);
      this.#markLater(item.entry);
    };
    take().then(
      () => this.#input({ kind: "handled" }),
      (error: unknown) => this.#input({ kind: "notHandled", reason: String(error) }),
    );
  }

  #report(id: OutboxId, settled: Settled): void {
    const waiter = this.#waiters.get(id);
    if (!waiter) return;
    if (waiter.sending) waiter.sending.settle(settled.outcome);
    // What nobody has read stays in the store.
    else if (!this.#event({ kind: "outcome", settled })) return;
    this.#waiters.delete(id);
    this.#room.leave(waiter.bytes);
    this.#input({ kind: "taken", id });
  }

  /** Was it taken? */
  #event(event: Event): boolean {
    return this.#parts.onEvent !== undefined && guarded(() => this.#parts.onEvent?.(event));
  }

  #tellStatus(): void {
    const before = this.#status as unknown as Record<string, unknown>;
    this.#status = this.#engine.status;
    const changed = Object.entries(this.#status).some(([name, value]) => before[name] !== value);
    if (changed) guarded(() => this.#parts.onStatus?.(this.#status));
  }

  #setTimer(): void {
    this.#cancelTimer?.();
    const due = this.#engine.deadline;
    this.#cancelTimer =
      due === undefined
        ? undefined
        : this.#clock.after(due - this.#clock.now(), () => this.#input({ kind: "tick" }));
  }

  /** What the store holds is not known any more, so nothing may rely on it. */
  #storeFailed(error: unknown): void {
    this.#event({ kind: "stopped", reason: "store", message: String(error) });
    this.#stop();
    this.#status = { ...this.#status, connection: "stopped" };
    guarded(() => this.#parts.onStatus?.(this.#status));
  }

  #stop(): void {
    this.#finished = true;
    this.#cancelTimer?.();
    for (const wire of this.#wires.values()) wire.close();
    this.#wires.clear();
    this.#room.close(closedError());
    this.#questions.close();
    const unknown = "the device stopped while it stored the send: it may be in the outbox";
    for (const { failed } of this.#storing.splice(0)) failed(new SendError("unknown", unknown));
    for (const { sending } of this.#waiters.values()) sending?.stop();
    // What came too late is refused by whom it belongs to.
    for (const what of this.#ready.splice(0)) what();
    this.#parts.store.close().then(this.#finish, this.#finish);
  }
}

class PendingSending implements Sending {
  #outcome: Outcome | undefined;
  #stopped = false;
  #waiting: { settle: (outcome: Outcome) => void; stop: (error: Error) => void }[] = [];

  constructor(readonly clientMsgId: string) {}

  outcome(): Promise<Outcome> {
    return new Promise((settle, stop) => {
      if (this.#outcome) settle(this.#outcome);
      else if (this.#stopped) stop(stoppedError());
      else this.#waiting.push({ settle, stop });
    });
  }

  settle(outcome: Outcome): void {
    this.#outcome = outcome;
    for (const { settle } of this.#waiting.splice(0)) settle(outcome);
  }

  stop(): void {
    this.#stopped = true;
    for (const { stop } of this.#waiting.splice(0)) stop(stoppedError());
  }
}

function closedError(): SendError {
  return new SendError("closed", "the device has stopped");
}

function noAnswer(): AskError {
  return new AskError("noAnswer", "the server answered something else");
}

function stoppedError(): SendError {
  const message = "the device stopped before the outcome came; it will be an event of its next run";
  return new SendError("closed", message);
}

/** Is it this device's store, and is it whole? */
function checkSaved(config: CheckedConfig, { meta, outbox }: Saved): void {
  if (meta && (meta.user !== config.user || meta.device !== config.device)) {
    throw new OpenError(`the store belongs to device ${meta.device} of user ${meta.user}`);
  }
  const elsewhere = config.cluster && meta?.cluster && config.cluster.toLowerCase() !== meta.cluster;
  if (elsewhere) throw new OpenError(`the store belongs to cluster ${meta.cluster}`);
  for (const { clientMsgId } of outbox.values()) {
    if (!isMessageId(clientMsgId)) throw new OpenError("the store is damaged: a send without its id");
  }
}

/** An application's mistake is the application's: it is told as any uncaught error, and the device goes on. */
function guarded(call: () => void): boolean {
  try {
    call();
    return true;
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
    return false;
  }
}
