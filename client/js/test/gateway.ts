/** A gateway in memory: a device's frames in, whatever a test wants out. */

import { create, type MessageInitShape } from "@bufbuild/protobuf";

import type { Connector, Wire, WireEvents } from "../src/carrier.js";
import type { Clock } from "../src/clock.js";
import { type ClientFrame, ServerFrameSchema } from "../src/gen/tidemark/v1/gateway_pb.js";

export type Frame = NonNullable<MessageInitShape<typeof ServerFrameSchema>["frame"]>;

const CLUSTER = new Uint8Array(16).fill(7);

/** Answers Hello, Open and Send as a gateway with one empty mailbox does. */
export class Gateway implements Connector {
  /** What the device sent, over all connections. */
  readonly received: ClientFrame[] = [];
  /** Sends that are not answered until they are asked for. */
  silent = false;
  connections = 0;
  #events: WireEvents | undefined;

  connect(_: string, events: WireEvents): Wire {
    this.connections += 1;
    this.#events = events;
    queueMicrotask(() => events.open());
    return {
      send: (frame) => {
        this.received.push(frame);
        queueMicrotask(() => this.#answer(events, frame));
      },
      close: () => {
        if (this.#events === events) this.#events = undefined;
      },
    };
  }

  /** The device's frames of one kind. */
  of(kind: string): unknown[] {
    return this.received.filter(({ frame }) => frame.case === kind).map(({ frame }) => frame.value);
  }

  /** Sends a frame on the connection in use. */
  send(frame: Frame): void {
    this.#events?.frame(create(ServerFrameSchema, { frame }));
  }

  cut(): void {
    this.#events?.lost("the cable is cut");
  }

  #answer(events: WireEvents, { frame }: ClientFrame): void {
    if (events !== this.#events) return;
    switch (frame.case) {
      case "hello": {
        const { epoch, seqCli } = frame.value;
        const start = epoch === 0 ? 0 : seqCli;
        const window = { sendWindow: 256, sendWindowBytes: 1 << 20 };
        const heartbeat = { heartbeatMinMs: 1_000, heartbeatMaxMs: 90_000 };
        const live = this.of("open").length > 0 ? 1n : 0n;
        const value = { clusterId: CLUSTER, epoch: 1, seqSvr: start, start, liveSession: live };
        return this.send({ case: "welcome", value: { ...value, ...window, ...heartbeat } });
      }
      case "open":
        return this.send({
          case: "opened",
          value: { openId: frame.value.openId, result: { case: "session", value: 1n } },
        });
      case "send": {
        if (this.silent) return;
        const { session, n } = frame.value;
        const accepted = { seq: Number(n), timeMs: 9n };
        return this.send({
          case: "sendAck",
          value: { session, n, result: { case: "accepted", value: accepted } },
        });
      }
      default:
        return;
    }
  }
}

/** A clock that goes on when it is told to. */
export class ManualClock implements Clock {
  #now = 0;
  #timers = new Set<{ at: number; then: () => void }>();

  now(): number {
    return this.#now;
  }

  wall(): number {
    return 1_800_000_000_000;
  }

  after(ms: number, then: () => void): () => void {
    const timer = { at: this.#now + ms, then };
    this.#timers.add(timer);
    return () => void this.#timers.delete(timer);
  }

  pass(ms: number): void {
    this.#now += ms;
    for (const timer of this.#timers) {
      if (timer.at > this.#now) continue;
      this.#timers.delete(timer);
      timer.then();
    }
  }
}
