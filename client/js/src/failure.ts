/** A refusal or failure, read from a frame. */

import { ErrorCode, type Failure as WireFailure } from "./gen/tidemark/v1/error_pb.js";

/** Why a request was refused or failed, and what the device needs to go on. */
export interface Failure {
  /** Why; a code that this version does not know is `UNKNOWN`. */
  readonly code: ErrorCode;
  /** For a person; may be empty. */
  readonly message: string;
  /** When to try again; absent for no hint. */
  readonly retryAfterMs?: number;
  /** With `OUT_OF_ORDER`: the n that the session takes next. */
  readonly expected?: bigint;
  /** With `STALE`: the live session, 0 for none. */
  readonly live?: bigint;
  /** With `SESSION_ENDED`: the last n that the session took. */
  readonly lastN?: bigint;
}

/** What a frame says of it. */
export function readFailure(wire: WireFailure | undefined): Failure {
  if (wire === undefined) return unknownFailure;
  const { detail } = wire;
  return {
    code: isErrorCode(wire.code) ? wire.code : ErrorCode.UNKNOWN,
    message: wire.message,
    ...(wire.retryAfterMs > 0 && { retryAfterMs: wire.retryAfterMs }),
    ...(detail.case === "expected" && { expected: detail.value }),
    ...(detail.case === "live" && { live: detail.value }),
    ...(detail.case === "lastN" && { lastN: detail.value }),
  };
}

/** What is said of an answer that this version does not know. */
export const unknownFailure: Failure = { code: ErrorCode.UNKNOWN, message: "" };

/** The name of a code, as in logs and documents: `OUT_OF_ORDER`. */
export function errorName(code: ErrorCode): string {
  return ErrorCode[code] ?? "UNKNOWN";
}

/** A failure as a line for a person. */
export function failureText({ code, message }: Failure): string {
  return message === "" ? errorName(code) : `${errorName(code)}: ${message}`;
}

/** Is this a code that this version knows? A missing one is none. */
export function isErrorCode(code: number): code is ErrorCode {
  return code !== 0 && ErrorCode[code] !== undefined;
}
