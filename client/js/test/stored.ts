/** Durable before use: what a frame tells must be in the device's store when the frame goes out. */

import assert from "node:assert/strict";

import type { ClientFrame } from "../src/gen/tidemark/v1/gateway_pb.js";
import { type Saved, idOf } from "../src/store.js";

/** Is what this frame tells in the store? */
export function storedBefore({ frame }: ClientFrame, { meta, outbox }: Saved): void {
  assert.ok(meta, "stored before anything else");
  // What came later in the same step may be stored as well.
  const told = (epoch: number, seq: number): void => {
    assert.ok(epoch < meta.epoch || (epoch === meta.epoch && seq <= meta.cursor), "the cursor");
  };
  switch (frame.case) {
    case "hello":
    case "ping":
      return told(frame.value.epoch, frame.value.seqCli);
    case "ack":
      return told(frame.value.epoch, frame.value.seq);
    case "open":
      return assert.deepEqual(frame.value.openId, meta.openId);
    case "send": {
      const { session, n, base, body, about } = frame.value;
      assert.ok(meta.session && meta.session.id === session, "the session");
      const id = idOf(meta.session, n);
      assert.ok(id < meta.numbered, "the number");
      assert.deepEqual(outbox.get(id)?.body, body);
      const { kind, epoch, seq } = about ?? {};
      assert.deepEqual(outbox.get(id)?.about, about && { kind, epoch, seq });
      const front = idOf(meta.session, base);
      assert.ok(![...outbox.keys()].some((id) => id < front), "a base above a send without an outcome");
    }
  }
}
