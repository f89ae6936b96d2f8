/**
 * The sends without an outcome, in the order in which they were made.
 *
 * ```text
 *   front                         next                 end
 *     │  ·  settled  ·  settled     │  ·   ·   ·   ·    │
 *     └── unsettled, or the end     └── sent again      └── the id of the next send
 *                                       from here
 * ```
 *
 * Invariant: the front is not settled.
 */

import type { Draft, OutboxId } from "../store.js";

/** The sends without an outcome. */
export class Outbox {
  readonly #slots = new Map<OutboxId, Draft>();
  #front: OutboxId;
  #end: OutboxId;
  #next: OutboxId;
  /** Unsettled sends between front and next, and the bytes of their bodies. */
  #inFlight = 0;
  #inFlightBytes = 0;

  /** What a store holds; the next send gets the id `end` or a higher one. */
  constructor(saved: ReadonlyMap<OutboxId, Draft>, end: OutboxId) {
    const ids = [...saved.keys()].sort((one, other) => one - other);
    for (const id of ids) this.#slots.set(id, saved.get(id) as Draft);
    this.#end = Math.max(end, (ids.at(-1) ?? -1) + 1);
    this.#front = ids[0] ?? this.#end;
    this.#next = this.#front;
  }

  /** The first unsettled send, or the end. */
  get front(): OutboxId {
    return this.#front;
  }

  /** The id of the next send. */
  get end(): OutboxId {
    return this.#end;
  }

  /** How many have no outcome. */
  get length(): number {
    return this.#slots.size;
  }

  /** The next send to go out. */
  get next(): OutboxId {
    return this.#next;
  }

  /** How many went out and have no answer. */
  get inFlight(): number {
    return this.#inFlight;
  }

  /** Bytes of their bodies. */
  get inFlightBytes(): number {
    return this.#inFlightBytes;
  }

  /** A send without an outcome. */
  get(id: OutboxId): Draft | undefined {
    return this.#slots.get(id);
  }

  /** The next one went out, or was settled before. */
  pass(): void {
    this.#count(this.#next, 1);
    this.#next += 1;
  }

  /** This one goes out next, and all behind it again. */
  goBack(to: OutboxId): void {
    while (this.#next > Math.max(to, this.#front)) {
      this.#next -= 1;
      this.#count(this.#next, -1);
    }
  }

  /** Adds a send. */
  push(draft: Draft): OutboxId {
    const id = this.#end;
    this.#slots.set(id, draft);
    this.#end += 1;
    return id;
  }

  /** Takes out a send that has an outcome now. */
  settle(id: OutboxId): Draft | undefined {
    const draft = this.#slots.get(id);
    if (draft === undefined) return undefined;
    if (id < this.#next) this.#count(id, -1);
    this.#slots.delete(id);
    while (this.#front < this.#end && !this.#slots.has(this.#front)) this.#front += 1;
    this.#next = Math.max(this.#next, this.#front);
    return draft;
  }

  #count(id: OutboxId, sign: 1 | -1): void {
    const draft = this.#slots.get(id);
    if (draft === undefined) return;
    this.#inFlight += sign;
    this.#inFlightBytes += sign * draft.body.length;
  }
}
