/**
 * What became of a send, as far as its sender's own shard is concerned.
 *
 * Three answers and no fourth: taken, refused for good, or unknown for good. Invariant (R3): nothing
 * that may have been taken is ever called refused.
 */

import type { ErrorCode } from "./gen/tidemark/v1/error_pb.js";

/** Why nobody can tell what became of a send. */
export type Unknown =
  /** Its session is no longer kept, and the mailbox does not hold the message. */
  | "expired"
  /** The server knows its number with other content: the device's store was copied or restored. */
  | "conflict"
  /** It was answered before, to a later state of this device's store than this one. */
  | "settled";

/** What became of a send. It is final, and reported once. */
export type Outcome =
  /**
   * It is durable, and every recipient will have exactly one outcome. `seq` is the one in the
   * sender's own mailbox, and absent for a send to a group; `timeMs` is the cluster's time.
   */
  | { readonly kind: "accepted"; readonly seq?: number; readonly timeMs: number }
  /** It was refused for good: nobody got it, and nobody will. */
  | { readonly kind: "refused"; readonly code: ErrorCode }
  /** Whether it was taken cannot be found out any more; it is not sent again by itself. */
  | { readonly kind: "unknown"; readonly why: Unknown };

/** The name of a send, and what became of it. */
export interface Settled {
  /** The application's name for the message, a UUID. */
  readonly clientMsgId: string;
  /** What became of it. */
  readonly outcome: Outcome;
}
