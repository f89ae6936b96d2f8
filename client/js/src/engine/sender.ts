/**
 * Sending: the session, the window, and what each answer means (R1, R2, R3).
 *
 * ```text
 *   id:      front                 next             numbered            end
 *              │ in flight           │ to send again     │ waits            │
 *   ───────────┴─────────────────────┴───────────────────┴──────────────────┘
 *   n:       base                                     next new n
 * ```
 *
 * Sends go out in the order of their ids, never beyond the window, and again from the front when
 * nobody answers. A session that was replaced is asked for its answers until the last send that it
 * numbered is settled; only then is a new one opened, so there is never more than one, and the order
 * holds.
 *
 * Refuses to guess: a send leaves the outbox with a definite answer, or when nobody can know it any
 * more, and is then called unknown. Invariants: an outcome is stored before a `base` above it goes
 * out; a number is stored before it goes out; an `open_id` likewise.
 */

import { type Failure, errorName, readFailure, unknownFailure } from "../failure.js";
import { ErrorCode } from "../gen/tidemark/v1/error_pb.js";
import type { Opened, SendAck, Welcome } from "../gen/tidemark/v1/gateway_pb.js";
import { sameBytes, uuidText } from "../ids.js";
import { SEND_WINDOW, SEND_WINDOW_BYTES } from "../limits.js";
import type { Outcome, Unknown } from "../outcome.js";
import type { Rng } from "../rng.js";
import { type Draft, type Meta, type OutboxId, type Session, idOf, numberOf } from "../store.js";
import { answerOf, isDefinite } from "./answer.js";
import { Backoff } from "./backoff.js";
import type { Out } from "./out.js";
import { Outbox } from "./outbox.js";
import { earliest } from "./time.js";

/** The pause after a refusal without a hint. */
const PAUSE_FIRST_MS = 50;
const PAUSE_LONGEST_MS = 10_000;

/**
 * When nobody has answered the oldest send in flight, all of it goes out again. A failover takes a
 * second or two, and asking in it would only add load.
 */
const ANSWER_FIRST_MS = 5_000;
const ANSWER_LONGEST_MS = 60_000;

/** Bytes of an `Open`'s id. */
const OPEN_ID_BYTES = 16;

/**
 * What an answer asks of the rest of the device: another `Hello`, another token and a `Hello`,
 * another gateway, or the mailbox up to its head, to settle what can be found there.
 */
export type Need = "nothing" | "hello" | "token" | "elsewhere" | "head";

/** The sending half of a device. */
export class Sender {
  readonly #outbox: Outbox;
  #session: Session | undefined;
  #openId: Uint8Array | undefined;
  /** The first send without a number. */
  #numbered: OutboxId;
  /** The live session, as the server last said; 0 for none. */
  #live = 0n;
  /** Ours was replaced: it answers, and takes nothing new. */
  #ended = false;
  /** The server has forgotten it; the mailbox is searched. */
  #expired = false;
  #window = SEND_WINDOW;
  #windowBytes = SEND_WINDOW_BYTES;
  /** Welcomed on this connection. */
  #online = false;
  #openSent = false;
  /** The last `Open` named the wrong session to end. */
  #stale = false;
  /** The `expected` that was obeyed last. */
  #goneBack: bigint | undefined;
  #pausedUntil: number | undefined;
  readonly #pause = new Backoff(PAUSE_FIRST_MS, PAUSE_LONGEST_MS);
  #answerBy: number | undefined;
  readonly #answer = new Backoff(ANSWER_FIRST_MS, ANSWER_LONGEST_MS);
  #halted = false;

  constructor(
    outbox: Outbox,
    meta: Meta,
    private readonly rng: Rng,
  ) {
    this.#outbox = outbox;
    this.#session = meta.session;
    this.#openId = meta.openId;
    this.#numbered = meta.numbered;
  }

  /** Its part of what is stored. */
  save(): Pick<Meta, "session" | "openId" | "numbered"> {
    return {
      ...(this.#session && { session: this.#session }),
      ...(this.#openId && { openId: this.#openId }),
      numbered: this.#numbered,
    };
  }

  /** Its part of a device's status. */
  status(): { outboxLength: number; unsettled: number; sendingStopped: boolean } {
    const outboxLength = this.#outbox.length;
    const waiting = Math.max(this.#outbox.end - this.#numbered, 0);
    const unsettled = Math.max(outboxLength - waiting, 0);
    return { outboxLength, unsettled, sendingStopped: this.#halted };
  }

  /** Takes a send of the application, which has checked it. */
  push(draft: Draft, out: Out): OutboxId {
    const id = this.#outbox.push(draft);
    out.put(id, draft);
    return id;
  }

  /**
   * The server said where things stand. On a new connection, and after an answer that asked for this
   * `Hello`, everything without an answer goes out again.
   */
  welcome(welcome: Welcome, out: Out): void {
    this.#window = Math.min(Math.max(welcome.sendWindow, 1), SEND_WINDOW);
    this.#windowBytes = welcome.sendWindowBytes;
    this.#live = welcome.liveSession;
    if (this.#session && this.#live !== this.#session.id) this.#replaced(out);
    if (!this.#online) {
      this.offline();
      this.#online = true;
    }
  }

  /** Nothing is in flight any more, and nothing goes out until the next `Welcome`. */
  offline(): void {
    this.#online = false;
    this.#openSent = false;
    this.#expired = false;
    this.#pausedUntil = undefined;
    this.#startOver();
  }

  /** Goes on until a window or a pause says stop. */
  pump(now: number, out: Out): void {
    const ready = this.#online && !this.#halted && !this.#expired;
    if (!ready || this.#pausedUntil !== undefined || this.#outbox.length === 0) return;
    if (this.#session) this.#send(this.#session, out);
    else this.#open(out);
    if (this.#answerBy === undefined && (this.#outbox.inFlight > 0 || this.#openSent)) {
      this.#answerBy = now + this.#answer.grow();
    }
  }

  #send(session: Session, out: Out): void {
    const end = this.#ended ? this.#numbered : this.#outbox.end;
    for (;;) {
      const next = this.#outbox.next;
      const base = this.#outbox.front;
      if (next >= end || next - base >= this.#window) return;
      const draft = this.#outbox.get(next);
      if (draft) {
        // One send goes out even if a server's window is smaller than its body.
        const bytes = this.#outbox.inFlightBytes + draft.body.length;
        if (this.#outbox.inFlight > 0 && bytes > this.#windowBytes) return;
        const place = { session: session.id, n: numberOf(session, next), base: numberOf(session, base) };
        const { kind, body, clientMsgId, about } = draft;
        const to = draft.to.map((id) => ({ ...id }));
        out.frame({
          case: "send",
          value: { ...place, to, kind, body, clientMsgId, ...(about && { about: { ...about } }) },
        });
        if (next >= this.#numbered) {
          this.#numbered = next + 1;
          out.saveMeta();
        }
      }
      this.#outbox.pass();
    }
  }

  #open(out: Out): void {
    if (this.#openSent) return;
    if (this.#openId === undefined) {
      this.#openId = new Uint8Array(OPEN_ID_BYTES);
      this.rng.fill(this.#openId);
      out.saveMeta();
    }
    out.frame({ case: "open", value: { openId: this.#openId, ends: this.#live } });
    this.#openSent = true;
  }

  /** The answer to an `Open`. */
  opened(now: number, frame: Opened, out: Out): Need {
    const ours = this.#openId !== undefined && sameBytes(frame.openId, this.#openId);
    if (!ours || !this.#openSent) return "nothing";
    this.#openSent = false;
    const { result } = frame;
    if (result.case === "failure") return this.#notOpened(now, readFailure(result.value), out);
    // A result that this version does not know, or a number that is none.
    if (result.case === undefined || result.value === 0n) return this.#wait(now, undefined);
    this.#answered();
    this.#session = { id: result.value, first: this.#numbered };
    this.#live = result.value;
    this.#openId = undefined;
    this.#ended = false;
    this.#stale = false;
    this.#startOver();
    out.saveMeta();
    return "nothing";
  }

  #notOpened(now: number, failure: Failure, out: Out): Need {
    if (failure.code !== ErrorCode.STALE || failure.live === undefined) {
      return this.notTaken(now, failure, out);
    }
    this.#live = failure.live;
    // Once at once, and then with pauses: whoever opened that one may do so again.
    const again = this.#stale;
    this.#stale = true;
    return again ? this.#wait(now, undefined) : "nothing";
  }

  /**
   * The answer to a `Send`. On a connection that is being left only an outcome counts: what else it
   * says of itself is no news.
   */
  ack(now: number, leaving: boolean, ack: SendAck, out: Out): Need {
    const session = this.#session;
    if (session === undefined || session.id !== ack.session) return "nothing";
    const id = idOf(session, ack.n);
    if (ack.n === 0n || id >= this.#numbered || !this.#outbox.get(id)) return "nothing";
    const { result } = ack;
    if (result.case === "accepted") {
      const { seq, timeMs } = result.value;
      this.#settle(id, accepted(seq, Number(timeMs)), out);
      return "nothing";
    }
    // A result that this version does not know is as good as none.
    const failure = result.case === "failure" ? readFailure(result.value) : unknownFailure;
    if (leaving && !isDefinite(answerOf(failure))) return "nothing";
    return this.#failed(now, session, id, failure, out);
  }

  #failed(now: number, session: Session, id: OutboxId, failure: Failure, out: Out): Need {
    const answer = answerOf(failure);
    switch (answer.kind) {
      case "refused":
        this.#settle(id, { kind: "refused", code: failure.code }, out);
        return "nothing";
      case "ended":
        this.#sessionEnded(session, answer.lastN, out);
        return "nothing";
      case "outOfOrder":
        if (this.#goneBack !== answer.expected) this.#outbox.goBack(idOf(session, answer.expected));
        this.#goneBack = answer.expected;
        return "nothing";
      case "settled":
        this.#settle(id, { kind: "unknown", why: "settled" }, out);
        return "nothing";
      case "conflict":
        this.#giveUp("conflict", out);
        return "nothing";
      case "expired":
        this.#ended = true;
        this.#expired = true;
        return "head";
      case "wait":
      case "hello":
      case "token":
      case "elsewhere":
      case "stop":
        this.#outbox.goBack(id);
        return this.notTaken(now, failure, out);
    }
  }

  /** Nothing is decided: the same again, later or elsewhere, or not at all. */
  notTaken(now: number, failure: Failure, out: Out): Need {
    const { kind } = answerOf(failure);
    switch (kind) {
      case "wait":
        return this.#wait(now, failure.retryAfterMs);
      case "hello":
      case "token":
      case "elsewhere":
        this.#online = false;
        return kind;
      // Those that speak of a send in its session are out of place where it has none.
      case "stop":
      case "refused":
      case "ended":
      case "outOfOrder":
      case "settled":
      case "expired":
      case "conflict":
        this.#halt(failure, out);
        return "nothing";
    }
  }

  /** Sends nothing any more, and says so. */
  #halt({ code, message }: Failure, out: Out): void {
    if (this.#halted) return;
    this.#halted = true;
    // A SendAck brings no text.
    out.event({ kind: "sendingStopped", code, message: message || errorName(code) });
  }

  /**
   * This user's own copy of a message: as good as an acknowledgement, and the only answer when the
   * session is no longer kept. The message's id tells it from what another state of this store sent
   * under the same number.
   */
  ownCopy(number: bigint, n: bigint, clientMsgId: string, seq: number, timeMs: number, out: Out): void {
    const session = this.#session;
    if (session === undefined || session.id !== number) return;
    const place = idOf(session, n);
    const draft = place < this.#numbered ? this.#outbox.get(place) : undefined;
    if (draft && uuidText(draft.clientMsgId) === clientMsgId) {
      this.#settle(place, accepted(seq, timeMs), out);
    }
  }

  /** The mailbox was searched up to its head: what was not found there is unknown for ever. */
  searched(out: Out): void {
    if (!this.#expired) return;
    this.#expired = false;
    this.#giveUp("expired", out);
  }

  /** When something is due. */
  get deadline(): number | undefined {
    const answerBy = this.#online && !this.#halted ? this.#answerBy : undefined;
    return earliest(this.#pausedUntil, answerBy);
  }

  tick(now: number): void {
    if (this.#pausedUntil !== undefined && this.#pausedUntil <= now) this.#pausedUntil = undefined;
    if (this.#answerBy !== undefined && this.#answerBy <= now) {
      this.#openSent = false;
      this.#startOver();
    }
  }

  /**
   * Nobody could have taken what lies above `lastN`, and it is sent anew in the next session; what
   * lies below has its answer here.
   */
  #sessionEnded(session: Session, lastN: bigint, out: Out): void {
    const end = session.first + Number(lastN);
    this.#outbox.goBack(end);
    this.#numbered = Math.max(Math.min(this.#numbered, end), this.#outbox.front);
    out.saveMeta();
    this.#replaced(out);
  }

  /** The session takes nothing new. */
  #replaced(out: Out): void {
    if (!this.#ended) out.event({ kind: "sessionReplaced" });
    this.#ended = true;
    this.#leaveIfDone(out);
  }

  /** Everything that somebody may have taken is unknown, and the session is left. */
  #giveUp(why: Unknown, out: Out): void {
    while (this.#outbox.front < this.#numbered) {
      this.#settle(this.#outbox.front, { kind: "unknown", why }, out);
    }
    this.#ended = true;
    this.#leaveIfDone(out);
  }

  #settle(id: OutboxId, outcome: Outcome, out: Out): void {
    const draft = this.#outbox.settle(id);
    if (!draft) return;
    this.#answered();
    out.settle(id, { clientMsgId: uuidText(draft.clientMsgId), outcome });
    this.#leaveIfDone(out);
  }

  /** A session that takes nothing new is left when its last send is settled. */
  #leaveIfDone(out: Out): void {
    if (!this.#ended || !this.#session || this.#outbox.front < this.#numbered) return;
    this.#session = undefined;
    this.#expired = false;
    this.#startOver();
    out.saveMeta();
  }

  /** There was an answer: pauses begin small again. */
  #answered(): void {
    this.#answerBy = undefined;
    this.#answer.reset();
    this.#pause.reset();
  }

  /** Sends nothing for a while. What comes back of the same round makes it no longer. */
  #wait(now: number, hint: number | undefined): Need {
    if (hint !== undefined) this.#pausedUntil = Math.max(this.#pausedUntil ?? 0, now + hint);
    else this.#pausedUntil ??= now + this.#pause.pause(this.rng);
    this.#answerBy = undefined;
    this.#answer.reset();
    return "nothing";
  }

  /** Sends everything without an answer again. */
  #startOver(): void {
    this.#outbox.goBack(this.#outbox.front);
    this.#goneBack = undefined;
    this.#answerBy = undefined;
  }
}

/** A send to a group has no seq. */
function accepted(seq: number, timeMs: number): Outcome {
  return { kind: "accepted", timeMs, ...(seq > 0 && { seq }) };
}
