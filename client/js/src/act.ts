/** Acts: what a user does about messages that are there already, and what is asked about them. */

import { SendError } from "./draft.js";
import type { Entry } from "./entry.js";
import type { Failure } from "./failure.js";
import { ActKind } from "./gen/tidemark/v1/act_pb.js";
import { ErrorCode } from "./gen/tidemark/v1/error_pb.js";
import { IdKind } from "./gen/tidemark/v1/id_pb.js";
import { BODY_BYTES_MAX } from "./limits.js";
import type { Draft } from "./store.js";

/** How often delivered marks are sent, each for what came meanwhile. */
export const MARK_INTERVAL_MS = 1_000;

/** Conversations with a delivered mark that waits; what comes on top waits for its next message. */
const MARKS_MAX = 1_024;

/** A message by its place in the user's own mailbox: how an act names it. An `Entry` is one. */
export interface Place {
  /** The epoch in which `seq` counts. */
  readonly epoch: number;
  /** Its number. */
  readonly seq: number;
}

/** A legal act. Throws a `SendError` that names what is not. */
export function checkAct(
  what: ActKind,
  { epoch, seq }: Place,
  kind: number,
  body: Uint8Array | string,
  clientMsgId: Uint8Array,
): Draft {
  const refuse = (message: string, code: ErrorCode): never => {
    throw new SendError("invalid", message, code);
  };
  for (const [name, number] of Object.entries({ epoch, seq, kind })) {
    if (!Number.isInteger(number) || number < 0 || number > 0xffff_ffff) {
      refuse(`${name}: is a whole number below 2^32`, ErrorCode.INVALID);
    }
  }
  const bytes = typeof body === "string" ? new TextEncoder().encode(body) : body.slice();
  if (bytes.length > BODY_BYTES_MAX) {
    refuse(`body: has ${bytes.length} bytes, and may have ${BODY_BYTES_MAX}`, ErrorCode.BODY_TOO_LARGE);
  }
  return { to: [], kind, body: bytes, clientMsgId, about: { kind: what, epoch, seq } };
}

/** What was received since the last delivered mark: the newest message of each conversation. */
export class Received {
  #waiting = new Map<string, Place>();

  constructor(private readonly user: string) {}

  /** The application has taken an entry. In a group a delivered mark would tell nobody anything. */
  note({ epoch, seq, origin, content }: Entry): void {
    if (content.kind !== "message" || origin === undefined || content.group !== undefined) return;
    const { sender } = origin;
    if (sender === this.user) return;
    if (this.#waiting.size < MARKS_MAX || this.#waiting.has(sender)) this.#waiting.set(sender, { epoch, seq });
  }

  /** The messages to mark now. */
  take(): Place[] {
    const places = [...this.#waiting.values()];
    this.#waiting.clear();
    return places;
  }
}

/** How a user stands in one conversation. */
export interface UnreadConversation {
  /** The other user, or the group. */
  readonly with: { readonly kind: "user" | "group"; readonly name: string };
  /** Messages received and not read; none that was recalled. */
  readonly unread: number;
  /** A device of the user has everything of it up to this seq; 0 for nothing. */
  readonly deliveredSeq: number;
  /** The user has read everything of it up to this seq; 0 for nothing. */
  readonly readSeq: number;
}

/** What a user has not read. */
export interface UnreadCounts {
  /** The epoch in which the seqs count. */
  readonly epoch: number;
  /** Everything after this seq was counted, up to `head`; older messages are in no count. */
  readonly from: number;
  /** The mailbox's head when it was counted. */
  readonly head: number;
  /** Messages that were not read, in all conversations. */
  readonly unread: number;
  /** Each conversation of which a message was counted or had been read. */
  readonly conversations: readonly UnreadConversation[];
}

/** Whether a user is there; who is not to be known is told of as one who never was. */
export interface Presence {
  /** A device of the user is connected, or was until some seconds ago. */
  readonly online: boolean;
  /** When one was last heard of, to the hour; 0 for never. */
  readonly lastSeenMs: number;
}

/** Why a question has no answer. Nothing was changed by it. */
export class AskError extends Error {
  override readonly name = "AskError";

  constructor(
    /**
     * The device is not connected; too many questions are under way; the server refused it; there was
     * no answer in time, as the connection may have been lost; the device has stopped.
     */
    readonly why: "offline" | "busy" | "refused" | "noAnswer" | "closed",
    message: string,
    /** What the server refused it with. */
    readonly code?: ErrorCode,
  ) {
    super(message);
  }

  static refused({ code, message }: Failure): AskError {
    return new AskError("refused", message, code);
  }
}

/** The kind of a conversation's id, as applications are told. */
export function kindOf(kind: IdKind): "user" | "group" {
  return kind === IdKind.GROUP ? "group" : "user";
}
