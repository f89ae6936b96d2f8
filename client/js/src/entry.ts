/**
 * Entries of a mailbox as an application gets them: checked where this version knows them, and whole
 * where it does not.
 */

import { ErrorCode } from "./gen/tidemark/v1/error_pb.js";
import { ActKind } from "./gen/tidemark/v1/act_pb.js";
import type {
  Act as WireAct,
  Entry as WireEntry,
  Message as WireMessage,
} from "./gen/tidemark/v1/entry_pb.js";
import type { GroupChange as WireChange } from "./gen/tidemark/v1/group_pb.js";
import { IdKind, type Id as WireId, type Origin as WireOrigin } from "./gen/tidemark/v1/id_pb.js";
import { isErrorCode } from "./failure.js";
import { isMessageId, uuidText } from "./ids.js";
import { NAME_BYTES_MAX } from "./limits.js";

/** What an entry costs in memory beside its body and its recipients: names, numbers. */
const OVERHEAD_BYTES = 256;
const RECIPIENT_BYTES = 128;

/** Somebody who can be sent to. */
export interface Recipient {
  /** A person or program, or a conversation of many. */
  readonly kind: "user" | "group";
  /** 1 to 64 bytes of UTF-8. */
  readonly name: string;
}

/** Which send an entry comes from; unique, and the same in all copies. */
export type Origin =
  /** A device's, inside a send session. */
  | { readonly kind: "session"; readonly sender: string; readonly session: bigint; readonly n: bigint }
  /** A back end's. */
  | { readonly kind: "backend"; readonly sender: string; readonly clientMsgId: string }
  /** No send: a change of a group, by its place in the group's log. */
  | { readonly kind: "group"; readonly sender: string; readonly group: string; readonly seq: number };

/** A message; its sender stands in the entry's origin. */
export interface Message {
  readonly kind: "message";
  /** The sender's device; empty when a back end sent it. */
  readonly device: string;
  /** The sender's application's name for it, a UUID. */
  readonly clientMsgId: string;
  /** When it was accepted, by the cluster's time. */
  readonly sentMs: number;
  /** The recipients; only in the sender's own copy. */
  readonly to: readonly Recipient[];
  /** The conversation, when it is a group. */
  readonly group?: string;
  /** Its number in the group's log; a group's messages and changes come in this order. */
  readonly groupSeq?: number;
  /** The application's kind of message. */
  readonly messageKind: number;
  /** The application's bytes. */
  readonly body: Uint8Array;
}

/** What somebody did about a message that is there already; who, stands in the entry's origin. */
export interface Act {
  readonly kind: "act";
  /** A delivered or read mark, for all of the conversation up to the message; a recall; an edit. */
  readonly what: ActKind;
  /** The message that it is about, by the origin that all its copies have. */
  readonly of: Origin;
  /** The act itself as a message; of an edit, with the new body. */
  readonly message: Message;
}

/** A group changed; who changed it stands in the entry's origin. */
export interface GroupChange {
  readonly kind: "group";
  /** Which group. */
  readonly group: string;
  /** The change's number in the group's log. */
  readonly groupSeq: number;
  /** What changed. */
  readonly change: Exclude<WireChange["change"], { readonly case: undefined }>;
}

/** What an entry says. */
export type Content =
  | Message
  | Act
  | GroupChange
  /** A recipient's side refused a message of this user, after it was accepted. */
  | { readonly kind: "refused"; readonly recipient: Recipient; readonly code: ErrorCode }
  /** Something that this version does not know. It counts as any other entry. */
  | { readonly kind: "unknown"; readonly raw: WireEntry };

/** One entry of the user's mailbox. */
export interface Entry {
  /** The epoch in which `seq` counts. */
  readonly epoch: number;
  /** Its number: 1, 2, 3 and so on, without a hole. */
  readonly seq: number;
  /** When it was appended, by the cluster's time; never goes back within a mailbox. */
  readonly timeMs: number;
  /** Which send it comes from; absent in an entry that this version cannot read. */
  readonly origin?: Origin;
  /** What it says. */
  readonly content: Content;
}

/** What the application is given, in the order of seqs. */
export type Item =
  | { readonly kind: "entry"; readonly entry: Entry }
  /** Entries that retention removed before this device had them, both ends included. */
  | { readonly kind: "gap"; readonly first: number; readonly last: number };

/** The cursor of a device whose application has taken it. */
export function lastOf(item: Item): number {
  return item.kind === "entry" ? item.entry.seq : item.last;
}

/** About how much memory it takes. */
export function sizeOf(item: Item): number {
  if (item.kind === "gap") return OVERHEAD_BYTES;
  const { content } = item.entry;
  switch (content.kind) {
    case "message":
      return OVERHEAD_BYTES + messageBytes(content);
    case "act":
      return OVERHEAD_BYTES + messageBytes(content.message);
    case "group":
      return OVERHEAD_BYTES + usersOf(content.change).length * RECIPIENT_BYTES;
    case "refused":
    case "unknown":
      return OVERHEAD_BYTES;
  }
}

function messageBytes({ body, to }: Message): number {
  return body.length + to.length * RECIPIENT_BYTES;
}

function usersOf(change: GroupChange["change"]): readonly string[] {
  switch (change.case) {
    case "created":
      return change.value.members;
    case "joined":
    case "left":
      return change.value.users;
    case "roleSet":
    case "policySet":
    case "deleted":
      return [];
  }
}

/**
 * The entry of this frame. It never fails: what cannot be read is `unknown`, since an entry that is
 * passed over would be a hole.
 */
export function readEntry(epoch: number, raw: WireEntry): Entry {
  const place = { epoch, seq: raw.seq, timeMs: Number(raw.timeMs) };
  const origin = readOrigin(raw.origin);
  const content = origin && readContent(raw);
  if (!content) return { ...place, content: { kind: "unknown", raw } };
  return { ...place, origin, content };
}

/** Is this a name: 1 to 64 bytes? */
export function isName(name: string): boolean {
  return name !== "" && new TextEncoder().encode(name).length <= NAME_BYTES_MAX;
}

function readContent({ content }: WireEntry): Content | undefined {
  switch (content.case) {
    case "message":
      return readMessage(content.value);
    case "refused": {
      const recipient = readRecipient(content.value.recipient);
      const { code } = content.value;
      return (
        recipient && { kind: "refused", recipient, code: isErrorCode(code) ? code : ErrorCode.UNKNOWN }
      );
    }
    case "groupChange":
      return readChange(content.value);
    case "act":
      return readAct(content.value);
    case undefined:
      return undefined;
  }
}

/** An act of a kind that this version does not know is no act that it can show. */
function readAct(raw: WireAct): Act | undefined {
  const known = raw.kind !== ActKind.UNSPECIFIED && ActKind[raw.kind] !== undefined;
  const of = readOrigin(raw.of);
  const message = raw.message && readMessage(raw.message);
  if (!known || !of || !message) return undefined;
  return { kind: "act", what: raw.kind, of, message };
}

function readChange({ group, groupSeq, change }: WireChange): GroupChange | undefined {
  if (!isName(group) || groupSeq === 0 || change.case === undefined) return undefined;
  return { kind: "group", group, groupSeq, change };
}

function readMessage(raw: WireMessage): Message | undefined {
  const to = raw.to.map(readRecipient);
  const { conversation } = raw;
  const legal =
    isMessageId(raw.clientMsgId) &&
    (raw.device === "" || isName(raw.device)) &&
    (conversation === undefined || (conversation.kind === IdKind.GROUP && isName(conversation.name)));
  if (!legal || !to.every((recipient) => recipient !== undefined)) return undefined;
  return {
    kind: "message",
    device: raw.device,
    clientMsgId: uuidText(raw.clientMsgId),
    sentMs: Number(raw.sentMs),
    to,
    ...(conversation && { group: conversation.name }),
    ...(raw.groupSeq > 0 && { groupSeq: raw.groupSeq }),
    messageKind: raw.kind,
    body: raw.body,
  };
}

function readRecipient(id: WireId | undefined): Recipient | undefined {
  if (id === undefined || !isName(id.name)) return undefined;
  switch (id.kind) {
    case IdKind.USER:
      return { kind: "user", name: id.name };
    case IdKind.GROUP:
      return { kind: "group", name: id.name };
    default:
      return undefined;
  }
}

function readOrigin(origin: WireOrigin | undefined): Origin | undefined {
  if (origin === undefined || !isName(origin.sender)) return undefined;
  const { sender, key } = origin;
  switch (key.case) {
    case "sessionSend": {
      const { session, n } = key.value;
      return session > 0n && n > 0n ? { kind: "session", sender, session, n } : undefined;
    }
    case "clientMsgId":
      return isMessageId(key.value)
        ? { kind: "backend", sender, clientMsgId: uuidText(key.value) }
        : undefined;
    case "groupChange": {
      const { group, seq } = key.value;
      return isName(group) && seq > 0 ? { kind: "group", sender, group, seq } : undefined;
    }
    case undefined:
      return undefined;
  }
}
