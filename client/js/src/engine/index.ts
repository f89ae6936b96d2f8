/** The rules of the protocol without I/O, for whoever brings another runtime. */

export { Engine } from "./engine.js";
export { ORIGINS_MAX } from "./origins.js";
export type { Action, ConnectionState, Input, Link, Output, Status } from "./io.js";
