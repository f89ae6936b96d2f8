/** What goes into an engine, and what comes out of it. */

import type { Item } from "../entry.js";
import type { Event } from "../event.js";
import type { Failure } from "../failure.js";
import type { ClientFrame, ServerFrame } from "../gen/tidemark/v1/gateway_pb.js";
import type { Settled } from "../outcome.js";
import type { Answer } from "../questions.js";
import type { Change, OutboxId } from "../store.js";

/** A connection, by the number that the engine gave it. */
export type Link = number;

/** What happens to a device. */
export type Input =
  /** Time has passed; due at `Engine.deadline`. */
  | { readonly kind: "tick" }
  /** The connection that was asked for stands. */
  | { readonly kind: "connected"; readonly link: Link }
  /** A connection does not stand, or no longer. */
  | { readonly kind: "lost"; readonly link: Link; readonly reason: string }
  /** The server sent a frame. */
  | { readonly kind: "frame"; readonly link: Link; readonly frame: ServerFrame }
  /** The answer to `fetchToken`. */
  | { readonly kind: "token"; readonly token: string }
  | { readonly kind: "noToken"; readonly reason: string }
  /** The application has taken the item of `hand`, or says why not. */
  | { readonly kind: "handled" }
  | { readonly kind: "notHandled"; readonly reason: string }
  /** The application has taken an outcome. */
  | { readonly kind: "taken"; readonly id: OutboxId }
  /** The device is to stop. */
  | { readonly kind: "close" };

/** What is to be done, once the changes beside it are durable. */
export type Action =
  /** Connect to a gateway, by its place in the configuration. */
  | { readonly kind: "connect"; readonly link: Link; readonly gateway: number }
  /** Close a connection, or give up connecting; it may be gone already. */
  | { readonly kind: "close"; readonly link: Link }
  /** Send a frame; if its connection is gone, the frame is lost. */
  | { readonly kind: "send"; readonly link: Link; readonly frame: ClientFrame }
  /** Get a token. With `refused` the same again will not do. */
  | { readonly kind: "fetchToken"; readonly refused: boolean }
  /** Hand this to the application; one at a time. */
  | { readonly kind: "hand"; readonly item: Item }
  /** Report an outcome; `taken` when the application has it. */
  | { readonly kind: "report"; readonly id: OutboxId; readonly settled: Settled }
  /** A question was answered. */
  | { readonly kind: "answer"; readonly answer: Answer }
  /** A question was refused. */
  | { readonly kind: "unanswered"; readonly requestId: bigint; readonly failure: Failure }
  /** Tell the application. */
  | { readonly kind: "event"; readonly event: Event }
  /** Nothing more will come. */
  | { readonly kind: "stop" };

/** What a step wants: first these changes, durable; then these actions, in this order. */
export interface Output {
  readonly changes: readonly Change[];
  readonly actions: readonly Action[];
}

/** How a device is connected. */
export type ConnectionState = "waiting" | "connecting" | "online" | "leaving" | "stopped";

/** Where a device stands. */
export interface Status {
  /** How it is connected. */
  readonly connection: ConnectionState;
  /** The gateway that it is or was connected to, by its place in the configuration. */
  readonly gateway: number;
  /** The mailbox's epoch; 0 before the first welcome. */
  readonly epoch: number;
  /** The last seq that the application has taken (`seq_cli`). */
  readonly cursor: number;
  /** The last seq that the device has got. */
  readonly received: number;
  /** The highest seq that the device has heard of (`seq_svr`). */
  readonly head: number;
  /** Sends without an outcome. */
  readonly outboxLength: number;
  /** Of these, the ones that went out: somebody may have taken them. */
  readonly unsettled: number;
  /** Sending has stopped until the device is opened again. */
  readonly sendingStopped: boolean;
}
