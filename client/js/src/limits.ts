/**
 * Protocol limits: the same for both sides of every wire. They are those of `types/src/limits.rs`,
 * and a test compares them.
 */

/** Bytes of a user's, group's or device's name, at least 1. */
export const NAME_BYTES_MAX = 64;

/** Recipients of one send. */
export const RECIPIENTS_MAX = 256;

/** Bytes of one message body. */
export const BODY_BYTES_MAX = 192 * 1024;

/** Sends of one session that may be without an acknowledgement: `n - base` stays below it. */
export const SEND_WINDOW = 256;

/** Bytes of the bodies of those sends. */
export const SEND_WINDOW_BYTES = 1024 * 1024;

/** Bytes of what a device's owner calls it, and of what it runs on. */
export const LABEL_BYTES_MAX = 64;

/** Bytes of the software's name in a `Hello`. */
export const AGENT_BYTES_MAX = 64;

/** The last seq there is; nothing comes after it. */
export const SEQ_MAX = 0xffff_ffff;
