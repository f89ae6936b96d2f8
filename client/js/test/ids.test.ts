import assert from "node:assert/strict";
import { test } from "node:test";

import { isMessageId, newMessageId, uuidBytes, uuidText } from "../src/ids.js";

test("a message's name says when it was made", () => {
  const ones = { fill: (bytes: Uint8Array) => void bytes.fill(0xff), unit: () => 0 };
  const id = newMessageId(0x0192_f5a0_1234, ones);
  assert.equal(uuidText(id), "0192f5a0-1234-7fff-bfff-ffffffffffff");
  assert.ok(isMessageId(id));
  assert.deepEqual(uuidBytes(uuidText(id)), id);
});

test("what is no UUID is refused", () => {
  assert.throws(() => uuidBytes("0192f5a0-1234"), RangeError);
  assert.throws(() => uuidBytes("0192f5a0-1234-7fff-bfff-fffffffffffg"), RangeError);
  assert.throws(() => uuidText(new Uint8Array(15)), RangeError);
  assert.ok(!isMessageId(new Uint8Array(16)), "version 0");
});
