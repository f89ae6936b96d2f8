/** Who the device is, where its gateways are, and how much it may keep. */

import { isName } from "./entry.js";
import { uuidBytes } from "./ids.js";
import { AGENT_BYTES_MAX, BODY_BYTES_MAX, LABEL_BYTES_MAX, SEND_WINDOW } from "./limits.js";

/** The software's name in a `Hello`, when the application gives none. */
const AGENT = "tidemark-client-js/0.1.0";

/** Sends that a device keeps by default: an hour without a network does not stop who types. */
const OUTBOX_ENTRIES = 16 * SEND_WINDOW;

/** The bytes of their bodies; the outbox is also in memory. */
const OUTBOX_BYTES = 64 * 1024 * 1024;

/** Where a device starts that has no cursor yet: with what comes, with all that is kept, or with the newest n. */
export type Start = "head" | "floor" | { readonly last: number };

/** Who the device is, where its gateways are, and how much it may keep. */
export interface Config {
  /** Whose mailbox. */
  readonly user: string;
  /** The user's name for this device. */
  readonly device: string;
  /**
   * Gateways, as URLs of WebSockets (`wss://gateway.example/v1/connect`); the first one is drawn, and
   * each failure goes on to the next.
   */
  readonly gateways: readonly string[];
  /** The only cluster to talk to, a UUID; without it the first one that welcomes the device. */
  readonly cluster?: string;
  /** Where a device starts that has no cursor yet; the oldest entry that is kept by default. */
  readonly start?: Start;
  /** The software's name and version, for the server's logs; at most 64 bytes. */
  readonly agent?: string;
  /** What the device is called in its owner's list; without it, what it was called before. */
  readonly label?: { readonly name: string; readonly platform: string };
  /** Sends that the outbox holds, those included whose outcome was not taken yet. */
  readonly outboxEntriesMax?: number;
  /** Bytes of their bodies. */
  readonly outboxBytesMax?: number;
  /**
   * Tells other users which of their messages this device has taken: a delivered mark for each conversation, at
   * most one a second. Each one is a send. Off by default.
   */
  readonly deliveredMarks?: boolean;
}

/** A configuration that can work. */
export type CheckedConfig = Required<Omit<Config, "cluster" | "label">> &
  Pick<Config, "cluster" | "label">;

/** A configuration that cannot work, or a store that is not this device's. */
export class OpenError extends Error {
  override readonly name = "OpenError";
}

/** Fills in the defaults. Throws an `OpenError` that names what cannot work. */
export function checkConfig(config: Config): CheckedConfig {
  const checked = {
    start: "floor" as const,
    agent: AGENT,
    outboxEntriesMax: OUTBOX_ENTRIES,
    outboxBytesMax: OUTBOX_BYTES,
    deliveredMarks: false,
    ...config,
  };
  const bytes = (text: string): number => new TextEncoder().encode(text).length;
  const refuse = (what: string): never => {
    throw new OpenError(what);
  };
  if (!isName(config.user)) refuse("user: a name has 1 to 64 bytes");
  if (!isName(config.device)) refuse("device: a name has 1 to 64 bytes");
  if (config.gateways.length === 0) refuse("gateways: there is none; name at least one");
  if (bytes(checked.agent) > AGENT_BYTES_MAX) refuse("agent: it may have 64 bytes");
  const { label, cluster, start } = checked;
  if (label && Math.max(bytes(label.name), bytes(label.platform)) > LABEL_BYTES_MAX) {
    refuse("label: name and platform may have 64 bytes each");
  }
  if (typeof start === "object" && !(Number.isInteger(start.last) && start.last > 0 && start.last <= 0xffff_ffff)) {
    refuse("start: last is how many entries, at least 1");
  }
  if (!(checked.outboxEntriesMax >= 1)) refuse("outboxEntriesMax: it must be 1 or more");
  if (!(checked.outboxBytesMax >= BODY_BYTES_MAX)) {
    refuse(`outboxBytesMax: one body has up to ${BODY_BYTES_MAX} bytes`);
  }
  if (cluster !== undefined) {
    try {
      uuidBytes(cluster);
    } catch {
      refuse("cluster: it is a UUID");
    }
  }
  return checked;
}
