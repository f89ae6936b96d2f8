/**
 * Receiving: the gap arithmetic, what waits for the application, and the cursor.
 *
 * ```text
 *    saved, acked       cursor         received             head
 *         │ taken,        │ waits for     │ not here yet      │
 *   ──────┴───────────────┴───────────────┴───────────────────┘
 *           stored before    pending        Sync asks for it
 *           the next Ack
 * ```
 *
 * The application gets one item at a time, in the order of seqs; the cursor moves when it has taken
 * it. Above a bound of what waits nothing is asked for, and what comes is dropped: the mailbox keeps
 * it. Invariants: `cursor <= received`; the cursor is stored before a frame tells it; nothing is
 * passed over but what a gap names.
 */

import { type Entry, type Item, lastOf, readEntry, sizeOf } from "../entry.js";
import type { Deliver, Reset, SyncPage, Welcome } from "../gen/tidemark/v1/gateway_pb.js";
import type { Rng } from "../rng.js";
import type { Meta } from "../store.js";
import { Backoff } from "./backoff.js";
import { Origins } from "./origins.js";
import type { Out } from "./out.js";
import { BrokenServer, type Run, runOfDeliver, runOfPage } from "./page.js";
import type { Sender } from "./sender.js";
import { earliest } from "./time.js";

/** Items that wait for the application. A frame more may come on top of it: 4 MiB. */
const PENDING_MAX = 4_096;
/** Bytes of them, for the same reason. */
const PENDING_BYTES_MAX = 4 * 1024 * 1024;

/** How often the cursor is stored and confirmed: what a crash may hand over twice. */
const ACK_INTERVAL_MS = 1_000;

/** A `Sync` without an answer is asked again after this time. */
const SYNC_FIRST_MS = 2_000;
const SYNC_LONGEST_MS = 30_000;

/** An item that the handler did not take is handed over again after this time. */
const HANDLER_FIRST_MS = 100;
const HANDLER_LONGEST_MS = 30_000;

/** A `Sync` that has no answer yet. */
interface Asked {
  /** 0 for the page that follows a `Welcome`. */
  readonly requestId: bigint;
  /** Asked again then. */
  readonly by: number;
  /** Its answer ends the search for the head. */
  readonly forHead: boolean;
}

/** The receiving half of a device. */
export class Receiver {
  #epoch: number;
  /** The last seq that the application has taken; what the store holds of it, what the server was told. */
  #cursor: number;
  #saved: number;
  #acked = 0;
  #received: number;
  /** The highest seq that this device has heard of. */
  #head: number;
  #pending: Item[] = [];
  #pendingBytes = 0;
  /** The application has this one in its hands; none of it counts once the mailbox was reset. */
  #handing: Item | undefined;
  #stale = false;
  #handAt: number | undefined;
  #closing = false;
  readonly #origins = new Origins();
  #online = false;
  /** There is more than was received. */
  #behind = false;
  /** The sender wants to be told when everything up to the head has been seen. */
  #seeking = false;
  #asked: Asked | undefined;
  #askAt: number | undefined;
  #lastRequest = 0n;
  #flushAt: number | undefined;
  readonly #sync = new Backoff(SYNC_FIRST_MS, SYNC_LONGEST_MS);
  readonly #handler = new Backoff(HANDLER_FIRST_MS, HANDLER_LONGEST_MS);
  readonly #user: string;

  constructor(
    meta: Meta,
    private readonly rng: Rng,
  ) {
    this.#user = meta.user;
    this.#epoch = meta.epoch;
    this.#cursor = meta.cursor;
    this.#saved = meta.cursor;
    this.#received = meta.cursor;
    this.#head = meta.cursor;
  }

  /** Its part of what is stored, which it is from now on. */
  save(): Pick<Meta, "epoch" | "cursor"> {
    this.#saved = this.#cursor;
    return { epoch: this.#epoch, cursor: this.#cursor };
  }

  /** Its part of a device's status. */
  status(): { epoch: number; cursor: number; received: number; head: number } {
    return {
      epoch: this.#epoch,
      cursor: this.#cursor,
      received: this.#received,
      head: this.#head,
    };
  }

  /** Is an item in the application's hands? */
  get isHanding(): boolean {
    return this.#handing !== undefined;
  }

  /** The cursor for a frame, which confirms it: it is stored with this step. */
  confirm(out: Out): { epoch: number; seq: number } {
    if (this.#cursor !== this.#saved) out.saveMeta();
    this.#acked = this.#cursor;
    this.#flushAt = undefined;
    return { epoch: this.#epoch, seq: this.#cursor };
  }

  /** The server said where the mailbox stands. False when it contradicts what the device said. */
  welcome(now: number, { epoch, start, seqSvr }: Welcome, out: Out): boolean {
    if (this.#epoch === 0 && epoch !== 0) {
      this.#epoch = epoch;
      this.#cursor = start;
      this.#received = start;
      this.#acked = start;
      out.saveMeta();
    }
    if (this.#epoch !== epoch || start > this.#received) return false;
    this.#heardOf(seqSvr);
    this.#online = true;
    this.#sync.reset();
    this.#askAt = undefined;
    this.#asked = undefined;
    if (start < seqSvr) this.#waitForPage(now, 0n);
    return true;
  }

  offline(): void {
    this.#online = false;
    this.#asked = undefined;
    this.#askAt = undefined;
    this.#seeking = false;
  }

  /** New entries. Throws `BrokenServer` for a run that has a hole. */
  deliver(deliver: Deliver, sender: Sender, out: Out): void {
    this.#run(runOfDeliver(deliver), sender, out);
  }

  /** The answer to a `Sync`, or what follows a `Welcome`. Throws `BrokenServer` when its parts disagree. */
  page({ requestId, page }: SyncPage, sender: Sender, out: Out): void {
    if (!page) throw new BrokenServer("sync_page.page: is missing");
    const run = runOfPage(page);
    const asked = this.#asked?.requestId === requestId ? this.#asked : undefined;
    if (asked) {
      this.#asked = undefined;
      this.#sync.reset();
    }
    if (page.epoch !== this.#epoch) return;
    this.#run(run, sender, out);
    this.#behind ||= page.more;
    this.#heardOf(page.head);
    if (asked?.forHead && !page.more && this.#received >= page.head) {
      this.#seeking = false;
      sender.searched(out);
    }
  }

  /** The mailbox has grown, or a `Pong` told its head. */
  notice(epoch: number, head: number): void {
    if (epoch !== this.#epoch) return;
    this.#heardOf(head);
    this.#behind ||= head > this.#received;
  }

  /**
   * The device's cursor is not this mailbox's. False when the reset is an answer to something that
   * was said before the last one.
   */
  reset({ epoch, floor, head }: Reset, out: Out): boolean {
    if (epoch === 0 || (epoch === this.#epoch && this.#received <= head)) return false;
    this.#origins.reset(head);
    this.#epoch = epoch;
    this.#cursor = floor;
    this.#received = floor;
    this.#acked = floor;
    this.#head = head;
    this.#pending = [];
    this.#pendingBytes = 0;
    this.#stale = this.#handing !== undefined;
    this.#asked = undefined;
    this.#behind = false;
    this.#flushAt = undefined;
    out.saveMeta();
    out.event({ kind: "reset", epoch, floor });
    return true;
  }

  /** A `Sync` was refused: it is asked again. */
  refused(now: number, requestId: bigint, hint: number | undefined): void {
    if (this.#asked?.requestId !== requestId) return;
    this.#asked = undefined;
    this.#behind = true;
    this.#askAt = now + (hint ?? this.#sync.pause(this.rng));
  }

  /** Everything up to the head is wanted: the sender looks for its sends. */
  seek(): void {
    this.#seeking = true;
  }

  /** The application has taken what it was given; with an `error` it has not. */
  handled(now: number, error: string | undefined, out: Out): void {
    const item = this.#handing;
    if (item === undefined) return;
    this.#handing = undefined;
    const stale = this.#stale;
    this.#stale = false;
    if (error === undefined) {
      this.#handler.reset();
      this.#origins.took(item, stale);
      if (!stale) this.#advance(now);
    } else {
      const retryInMs = this.#handler.grow();
      this.#handAt = now + retryInMs;
      out.event({ kind: "handlerFailed", seq: lastOf(item), error, retryInMs });
    }
  }

  /** Hands nothing over any more. */
  close(): void {
    this.#closing = true;
  }

  /** Goes on: the next item for the application, and the next `Sync`. */
  pump(now: number, out: Out): void {
    this.#hand(now, out);
    const wanted = this.#behind || this.#seeking;
    if (!this.#online || !wanted || this.#asked || this.#askAt !== undefined) return;
    // Half empty before more is asked for, so that the pages are worth a question.
    const limit = Math.max(PENDING_MAX - this.#pending.length, 0);
    if (limit < PENDING_MAX / 2 || this.#pendingBytes > PENDING_BYTES_MAX / 2) return;
    this.#lastRequest += 1n;
    const requestId = this.#lastRequest;
    this.#waitForPage(now, requestId);
    this.#behind = false;
    const place = { epoch: this.#epoch, seqCli: this.#received };
    out.frame({ case: "sync", value: { requestId, ...place, limit } });
  }

  /** Stores and confirms the cursor, when it has moved. */
  flush(out: Out): void {
    this.#flushAt = undefined;
    if (this.#cursor !== this.#saved) out.saveMeta();
    if (this.#online && this.#cursor > this.#acked) {
      out.frame({ case: "ack", value: this.confirm(out) });
    }
  }

  /** When something is due. */
  get deadline(): number | undefined {
    return earliest(this.#asked?.by, this.#askAt, this.#flushAt, this.#handAt);
  }

  tick(now: number, out: Out): void {
    const due = (at: number | undefined): boolean => at !== undefined && at <= now;
    if (due(this.#askAt)) this.#askAt = undefined;
    if (due(this.#handAt)) this.#handAt = undefined;
    if (due(this.#asked?.by)) {
      this.#asked = undefined;
      this.#behind = true;
    }
    if (due(this.#flushAt)) this.flush(out);
  }

  /** The gap arithmetic of docs/protocol.md. */
  #run(run: Run, sender: Sender, out: Out): void {
    if (run.epoch !== this.#epoch || run.epoch === 0) return;
    this.#heardOf(run.last);
    if (this.#pending.length >= PENDING_MAX || this.#pendingBytes >= PENDING_BYTES_MAX) {
      this.#behind ||= run.last > this.#received;
      return;
    }
    if (run.gapTo !== undefined && run.gapTo > this.#received) {
      const gap = { kind: "gap", first: this.#received + 1, last: run.gapTo } as const;
      out.event(gap);
      this.#keep(gap);
    }
    if (run.last <= this.#received) return;
    if (run.prev > this.#received) {
      this.#behind = true;
      return;
    }
    for (const raw of run.entries.slice(this.#received - run.prev)) {
      const entry = readEntry(this.#epoch, raw);
      this.#settle(entry, sender, out);
      this.#keep({ kind: "entry", entry });
    }
  }

  #keep(item: Item): void {
    this.#received = lastOf(item);
    this.#pendingBytes += sizeOf(item);
    this.#pending.push(item);
  }

  /** This device's own copy settles its send. */
  #settle({ origin, content, seq }: Entry, sender: Sender, out: Out): void {
    if (origin?.kind !== "session" || origin.sender !== this.#user) return;
    if (content.kind !== "message") return;
    // What the acknowledgement says: a send to a group has no seq there.
    const own = content.group === undefined ? seq : 0;
    sender.ownCopy(origin.session, origin.n, content.clientMsgId, own, content.sentMs, out);
  }

  #hand(now: number, out: Out): void {
    if (this.#closing || this.#handing || this.#handAt !== undefined) return;
    for (let item = this.#pending[0]; item; item = this.#pending[0]) {
      if (!this.#origins.knows(item)) {
        this.#handing = item;
        out.action({ kind: "hand", item });
        return;
      }
      this.#advance(now);
    }
  }

  /** The first pending item is done with. */
  #advance(now: number): void {
    const item = this.#pending.shift();
    if (!item) return;
    this.#pendingBytes -= sizeOf(item);
    this.#cursor = lastOf(item);
    this.#flushAt ??= now + ACK_INTERVAL_MS;
  }

  #heardOf(head: number): void {
    this.#head = Math.max(this.#head, head);
  }

  #waitForPage(now: number, requestId: bigint): void {
    this.#asked = { requestId, by: now + this.#sync.grow(), forHead: this.#seeking };
  }
}
