/**
 * What a device keeps across restarts, and the seam behind which it is kept.
 *
 * A store does what it is told and judges nothing: the engine decides what is written, and in which
 * order. Outbox ids count up in the order in which the application sent, without a hole. So a send's
 * number needs no place of its own: `n = id - session.first + 1` for every id below `numbered`.
 *
 * Invariant: `commit` is all or nothing, and durable when it resolves.
 */

import type { Settled } from "./outcome.js";

/** The place of a send in the outbox; counts up without a hole, and is never used again. */
export type OutboxId = number;

/** A message as it waits in the outbox. */
export interface Draft {
  /** 1 to 256 users, or one group alone, as in frames; nobody for an act. */
  readonly to: readonly { readonly kind: number; readonly name: string }[];
  /** The application's kind of message. */
  readonly kind: number;
  /** The application's bytes. */
  readonly body: Uint8Array;
  /** The application's name for the message: 16 bytes, a UUID of version 7. */
  readonly clientMsgId: Uint8Array;
  /** What it does instead of bringing a message, as in frames. */
  readonly about?: { readonly kind: number; readonly epoch: number; readonly seq: number };
}

/** The send session, as the device stores it. */
export interface Session {
  /** Its number. */
  readonly id: bigint;
  /** The send that is its n = 1. */
  readonly first: OutboxId;
}

/** The number of a send in a session. */
export function numberOf(session: Session, id: OutboxId): bigint {
  return BigInt(Math.max(id - session.first, 0) + 1);
}

/** The send with this number, which counts from 1. */
export function idOf(session: Session, n: bigint): OutboxId {
  return session.first + Number(n > 0n ? n - 1n : 0n);
}

/** What a device keeps beside its sends. */
export interface Meta {
  /** Whose store it is. */
  readonly user: string;
  /** Which device's. */
  readonly device: string;
  /** The cluster in which the cursor counts, a UUID; absent before the first welcome. */
  readonly cluster?: string;
  /** The epoch in which the cursor counts; 0 before there is one. */
  readonly epoch: number;
  /** The last seq that the application has taken. */
  readonly cursor: number;
  /** The `Open` that has no answer yet. */
  readonly openId?: Uint8Array;
  /** The send session. */
  readonly session?: Session;
  /** The first send without a number. */
  readonly numbered: OutboxId;
}

/** Everything that a store holds. */
export interface Saved {
  /** What is kept beside the sends; absent in a new store. */
  readonly meta?: Meta;
  /** Sends without an outcome. */
  readonly outbox: ReadonlyMap<OutboxId, Draft>;
  /** Outcomes that the application has not taken. */
  readonly outcomes: ReadonlyMap<OutboxId, Settled>;
}

/** One change of what is held. */
export type Change =
  /** Replaces the meta data. */
  | { readonly kind: "meta"; readonly meta: Meta }
  /** Adds a send. */
  | { readonly kind: "put"; readonly id: OutboxId; readonly draft: Draft }
  /** Replaces a send by its outcome. */
  | { readonly kind: "settle"; readonly id: OutboxId; readonly settled: Settled }
  /** Removes an outcome. */
  | { readonly kind: "forget"; readonly id: OutboxId };

/** A place where one device keeps what must survive. */
export interface Store {
  /** Everything that it holds. */
  load(): Promise<Saved>;
  /**
   * Makes these changes, all or none; they are durable when it resolves. After an error nobody knows
   * what is held, so nothing more may be written.
   */
  commit(changes: readonly Change[]): Promise<void>;
  /** Lets go of it; nothing is called afterwards. */
  close(): Promise<void>;
}
