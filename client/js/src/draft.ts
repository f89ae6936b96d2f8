/**
 * What is checked before a send gets a number: a number that was given must be used, so what every
 * server would refuse never takes one.
 */

import { isName, type Recipient } from "./entry.js";
import { ErrorCode } from "./gen/tidemark/v1/error_pb.js";
import { IdKind } from "./gen/tidemark/v1/id_pb.js";
import { BODY_BYTES_MAX, RECIPIENTS_MAX } from "./limits.js";
import type { Draft } from "./store.js";

/** Why a send was not taken into the outbox. Nobody got it, and nobody will, but for `unknown`. */
export class SendError extends Error {
  override readonly name = "SendError";

  constructor(
    /**
     * It breaks a limit; there is no room now; the device has stopped; it stopped while it stored
     * the send, which may be in the outbox.
     */
    readonly why: "invalid" | "full" | "closed" | "unknown",
    message: string,
    /** What a server would refuse it with. */
    readonly code?: ErrorCode,
  ) {
    super(message);
  }
}

/** Who a message is for: users by their names, or one group alone. */
export type To = string | readonly string[] | { readonly group: string };

/** A legal message. Throws a `SendError` that names what is not; of several faults always the same one. */
export function checkDraft(
  to: To,
  kind: number,
  body: Uint8Array | string,
  clientMsgId: Uint8Array,
): Draft {
  const recipients = recipientsOf(to);
  const refuse = (message: string, code: ErrorCode): never => {
    throw new SendError("invalid", message, code);
  };
  if (recipients.length === 0) refuse("to: is empty", ErrorCode.BAD_RECIPIENT);
  if (recipients.length > RECIPIENTS_MAX) {
    refuse(`to: has ${recipients.length} recipients, and may have ${RECIPIENTS_MAX}`, ErrorCode.TOO_MANY_RECIPIENTS);
  }
  for (const [at, { name }] of recipients.entries()) {
    if (!isName(name)) refuse(`to[${at}].name: has 1 to 64 bytes`, ErrorCode.BAD_RECIPIENT);
  }
  if (!Number.isInteger(kind) || kind < 0 || kind > 0xffff_ffff) {
    refuse("kind: is a whole number below 2^32", ErrorCode.INVALID);
  }
  const bytes = typeof body === "string" ? new TextEncoder().encode(body) : body.slice();
  if (bytes.length > BODY_BYTES_MAX) {
    refuse(`body: has ${bytes.length} bytes, and may have ${BODY_BYTES_MAX}`, ErrorCode.BODY_TOO_LARGE);
  }
  const ids = recipients.map(({ kind: of, name }) => ({
    kind: of === "user" ? IdKind.USER : IdKind.GROUP,
    name,
  }));
  return { to: ids, kind, body: bytes, clientMsgId };
}

function recipientsOf(to: To): Recipient[] {
  if (typeof to === "string") return [{ kind: "user", name: to }];
  if ("group" in to) return [{ kind: "group", name: to.group }];
  return to.map((name) => ({ kind: "user", name }));
}
