/** What a device tells its application beside entries and the outcomes that it waits for. */

import type { ErrorCode } from "./gen/tidemark/v1/error_pb.js";
import type { Settled } from "./outcome.js";

/** Why a device stops for good. */
export type FatalReason =
  /** The gateways belong to another cluster than the device's cursor. */
  | "wrongCluster"
  /** A second token in a row does not verify. */
  | "unauthenticated"
  /** The token is for another user or device. */
  | "permissionDenied"
  /** The device was logged out: it goes on with a token that was made since. */
  | "loggedOut"
  /** Server and device do not understand each other. */
  | "refused"
  /** The device's own store failed: what it holds is not known any more. */
  | "store";

/** What a device tells its application. */
export type Event =
  /** A gateway has welcomed the device. */
  | { readonly kind: "connected"; readonly gateway: string }
  /** There is no connection; the device comes back by itself. */
  | { readonly kind: "disconnected"; readonly reason: string; readonly retryInMs: number }
  /** What became of a send of an earlier run of this device, for which nobody waits any more. */
  | { readonly kind: "outcome"; readonly settled: Settled }
  /** Entries that retention removed before this device had them; the handler is told in its turn. */
  | { readonly kind: "gap"; readonly first: number; readonly last: number }
  /** The mailbox was restored or rebuilt: what it keeps is delivered once more. */
  | { readonly kind: "reset"; readonly epoch: number; readonly floor: number }
  /** Somebody types to this user, or has stopped; whoever shows it forgets it after some seconds. */
  | { readonly kind: "typing"; readonly by: string; readonly typing: boolean }
  /** The handler did not take an item, which is handed over again. */
  | {
      readonly kind: "handlerFailed";
      readonly seq: number;
      readonly error: string;
      readonly retryInMs: number;
    }
  /** The send session is not the live one any more; the device goes on in a new one. */
  | { readonly kind: "sessionReplaced" }
  /** Nothing is sent until the device is opened again; the outbox keeps everything. */
  | { readonly kind: "sendingStopped"; readonly code: ErrorCode; readonly message: string }
  /** The device has stopped for good; open it again when the reason is gone. */
  | { readonly kind: "stopped"; readonly reason: FatalReason; readonly message: string };
