/**
 * Tidemark's device SDK for browsers: a durable outbox, a gap-free inbox, and a connection that heals.
 *
 * A `Device` is one device of one user. It keeps its cursor, its send session and its outbox in a
 * `Store` of its own, connects to any gateway of a list, and keeps the rules of docs/protocol.md. The
 * rules are in the engine, a state machine without I/O; the runtime around it makes what it wants
 * stored durable before it does what relies on it.
 */

export { AskError, type Place, type Presence, type UnreadConversation, type UnreadCounts } from "./act.js";
export type { Connector, Wire, WireEvents } from "./carrier.js";
export { type Clock, systemClock } from "./clock.js";
export { type Config, OpenError, type Start } from "./config.js";
export { Device, type Handler, type Parts, type Sending } from "./device.js";
export { SendError, type To } from "./draft.js";
export type { ConnectionState, Status } from "./engine/io.js";
export { ORIGINS_MAX } from "./engine/origins.js";
export type { Act, Content, Entry, GroupChange, Item, Message, Origin, Recipient } from "./entry.js";
export type { Event, FatalReason } from "./event.js";
export { errorName } from "./failure.js";
export { ActKind } from "./gen/tidemark/v1/act_pb.js";
export { ErrorCode } from "./gen/tidemark/v1/error_pb.js";
export type { ClientFrame, ServerFrame } from "./gen/tidemark/v1/gateway_pb.js";
export { uuidText } from "./ids.js";
export type { Outcome, Settled, Unknown } from "./outcome.js";
export { type Rng, systemRng } from "./rng.js";
export type { Change, Draft, Meta, Saved, Store } from "./store.js";
export { IndexedDbStore, type Platform } from "./stores/indexeddb.js";
export { MemoryStore } from "./stores/memory.js";
export { WebSocketConnector } from "./websocket.js";
