/**
 * What a failure says of a send, or of an `Open`: the table of docs/protocol.md, section 5.
 *
 * Judges by the code alone, and remembers nothing. A code is only called definite when it is the
 * outcome of every attempt (R3).
 */

import type { Failure } from "../failure.js";
import { ErrorCode } from "../gen/tidemark/v1/error_pb.js";

/** What a failure says. */
export type Answer =
  /** Definite: refused for good. */
  | { readonly kind: "refused" }
  /** Definite: not taken, and never will be in this session, which took this n last. */
  | { readonly kind: "ended"; readonly lastN: bigint }
  /** The session takes this n next. */
  | { readonly kind: "outOfOrder"; readonly expected: bigint }
  /** It was answered before. */
  | { readonly kind: "settled" }
  /** Nobody knows what the session took. */
  | { readonly kind: "expired" }
  /** The number was used for other content. */
  | { readonly kind: "conflict" }
  /** Nothing is decided: later again, after a `Hello`, with a token, or elsewhere, the same. */
  | { readonly kind: "wait" | "hello" | "token" | "elsewhere" }
  /** Repeating it cannot heal it. */
  | { readonly kind: "stop" };

/** What this failure says. A new code of the protocol does not compile until it has its place. */
export function answerOf(failure: Failure): Answer {
  const { code } = failure;
  switch (code) {
    case ErrorCode.BODY_TOO_LARGE:
    case ErrorCode.TOO_MANY_RECIPIENTS:
    case ErrorCode.BAD_RECIPIENT:
    case ErrorCode.KIND_NOT_ALLOWED:
    case ErrorCode.FILTERED:
    case ErrorCode.HOOK_REFUSED:
    case ErrorCode.NO_MESSAGE:
    case ErrorCode.TOO_LATE:
    case ErrorCode.BLOCKED:
    case ErrorCode.SEQ_EXHAUSTED:
    case ErrorCode.NO_MAILBOX:
    case ErrorCode.NOT_MEMBER:
    case ErrorCode.GROUP_GONE:
    case ErrorCode.STRANGER:
      return { kind: "refused" };
    // Without its number it says nothing of this send; asking again does no harm.
    case ErrorCode.SESSION_ENDED:
      return failure.lastN === undefined
        ? { kind: "wait" }
        : { kind: "ended", lastN: failure.lastN };
    case ErrorCode.OUT_OF_ORDER:
      return failure.expected === undefined
        ? { kind: "wait" }
        : { kind: "outOfOrder", expected: failure.expected };
    case ErrorCode.SETTLED:
      return { kind: "settled" };
    case ErrorCode.SESSION_EXPIRED:
      return { kind: "expired" };
    case ErrorCode.CONFLICT:
      return { kind: "conflict" };
    case ErrorCode.UNSPECIFIED:
    case ErrorCode.NOT_LEADER:
    case ErrorCode.UNAVAILABLE:
    case ErrorCode.OVERLOADED:
    case ErrorCode.RETRY_AFTER:
    case ErrorCode.UNKNOWN:
    case ErrorCode.DISPLACED:
    case ErrorCode.WINDOW_FULL:
      return { kind: "wait" };
    case ErrorCode.NO_DEVICE:
      return { kind: "hello" };
    case ErrorCode.UNAUTHENTICATED:
    case ErrorCode.TOKEN_EXPIRED:
      return { kind: "token" };
    case ErrorCode.GOING_AWAY:
      return { kind: "elsewhere" };
    case ErrorCode.INVALID:
    case ErrorCode.PERMISSION_DENIED:
    case ErrorCode.LOGGED_OUT:
    case ErrorCode.TOO_MANY_DEVICES:
    case ErrorCode.FRAME_TOO_LARGE:
    case ErrorCode.UNKNOWN_FRAME:
    case ErrorCode.WRONG_CLUSTER:
    case ErrorCode.WRONG_SHARD:
    case ErrorCode.INTERNAL:
    case ErrorCode.STALE:
    case ErrorCode.DEDUP_EXPIRED:
    case ErrorCode.ID_IN_FUTURE:
    case ErrorCode.GROUP_FULL:
    case ErrorCode.FORBIDDEN:
    case ErrorCode.RESET:
    case ErrorCode.NOT_EMPTY:
      return { kind: "stop" };
  }
}

/** Is it the outcome of the send, whoever tells it and however late? */
export function isDefinite(answer: Answer): boolean {
  return answer.kind === "refused" || answer.kind === "ended";
}
