/** Ids of 16 bytes: as bytes in frames, as text for people. */

import type { Rng } from "./rng.js";

const UUID_BYTES = 16;

/** The text of a UUID. Throws a `RangeError` for what has not 16 bytes. */
export function uuidText(bytes: Uint8Array): string {
  if (bytes.length !== UUID_BYTES) {
    throw new RangeError(`a UUID has 16 bytes, and this has ${bytes.length}`);
  }
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

/** The bytes of a UUID. Throws a `RangeError` for what is none. */
export function uuidBytes(text: string): Uint8Array {
  if (!/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(text)) {
    throw new RangeError(`${JSON.stringify(text)} is no UUID`);
  }
  const digits = text.replaceAll("-", "");
  return Uint8Array.from({ length: UUID_BYTES }, (_, at) =>
    Number.parseInt(digits.slice(2 * at, 2 * at + 2), 16),
  );
}

/** Is this a UUID of version 7, as messages' names are? */
export function isMessageId(bytes: Uint8Array): boolean {
  return bytes.length === UUID_BYTES && (bytes[6] ?? 0) >> 4 === 7;
}

/** A message's name, made at this time (RFC 9562, section 5.7). */
export function newMessageId(nowMs: number, rng: Rng): Uint8Array {
  const id = new Uint8Array(UUID_BYTES);
  rng.fill(id.subarray(6));
  const view = new DataView(id.buffer);
  view.setUint16(0, Math.floor(nowMs / 2 ** 32));
  view.setUint32(2, nowMs % 2 ** 32);
  view.setUint8(6, (view.getUint8(6) & 0x0f) | 0x70);
  view.setUint8(8, (view.getUint8(8) & 0x3f) | 0x80);
  return id;
}

/** Do two ids have the same bytes? */
export function sameBytes(one: Uint8Array, other: Uint8Array): boolean {
  return one.length === other.length && one.every((byte, at) => byte === other[at]);
}
