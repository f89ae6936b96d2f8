/**
 * What carries frames: the seam between a device and a network.
 *
 * A carrier moves frames in both directions, in order, and says when it no longer can. It knows
 * nothing of what they mean.
 */

import type { ClientFrame, ServerFrame } from "./gen/tidemark/v1/gateway_pb.js";

/** What a connection tells its device; nothing more after `lost`. */
export interface WireEvents {
  /** It stands. */
  open(): void;
  /** The gateway sent a frame. */
  frame(frame: ServerFrame): void;
  /** It does not stand, or no longer. The reason is for a person. */
  lost(reason: string): void;
}

/** One connection. */
export interface Wire {
  /** Sends a frame; once the connection is gone, nothing happens. */
  send(frame: ClientFrame): void;
  /** Ends it, after what was sent. Nothing is told afterwards. */
  close(): void;
}

/** Connects to gateways. */
export interface Connector {
  /** Begins to connect to a gateway, given as in the configuration. */
  connect(gateway: string, events: WireEvents): Wire;
}
