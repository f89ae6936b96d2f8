/** The WebSocket carrier: one binary message is one frame (docs/protocol.md, section 2). */

import { fromBinary, toBinary } from "@bufbuild/protobuf";

import type { Connector, Wire, WireEvents } from "./carrier.js";
import { type ClientFrame, ClientFrameSchema, ServerFrameSchema } from "./gen/tidemark/v1/gateway_pb.js";

/** The WebSocket sub-protocol. */
const SUB_PROTOCOL = "tidemark.v1";

/**
 * Bytes that wait to be written: two windows of sends and what belongs to them. A gateway that lets
 * more pile up does not read, and the connection is given up.
 */
const OUTGOING_BYTES_MAX = 4 * 1024 * 1024;

/** Connects by the platform's WebSockets. */
export class WebSocketConnector implements Connector {
  connect(gateway: string, events: WireEvents): Wire {
    return new WebSocketWire(gateway, events);
  }
}

class WebSocketWire implements Wire {
  readonly #socket: WebSocket;
  #events: WireEvents | undefined;

  constructor(url: string, events: WireEvents) {
    this.#events = events;
    this.#socket = new WebSocket(url, SUB_PROTOCOL);
    this.#socket.binaryType = "arraybuffer";
    this.#socket.onopen = () => {
      if (this.#socket.protocol === SUB_PROTOCOL) this.#events?.open();
      else this.#lose(`the server does not speak ${SUB_PROTOCOL}`);
    };
    this.#socket.onmessage = ({ data }: MessageEvent<unknown>) => this.#message(data);
    this.#socket.onclose = ({ code, reason }) => {
      this.#lose(`the connection was closed: ${code} ${reason}`.trim());
    };
  }

  send(frame: ClientFrame): void {
    if (this.#socket.readyState !== WebSocket.OPEN) return;
    if (this.#socket.bufferedAmount > OUTGOING_BYTES_MAX) {
      this.#lose("the gateway does not read");
      return;
    }
    this.#socket.send(toBinary(ClientFrameSchema, frame) as Uint8Array<ArrayBuffer>);
  }

  close(): void {
    this.#events = undefined;
    this.#socket.close();
  }

  #message(data: unknown): void {
    if (!(data instanceof ArrayBuffer)) {
      this.#lose("the server sent a text, and frames are binary");
      return;
    }
    let frame;
    try {
      frame = fromBinary(ServerFrameSchema, new Uint8Array(data));
    } catch (error) {
      this.#lose(`the server sent what is no frame: ${String(error)}`);
      return;
    }
    this.#events?.frame(frame);
  }

  #lose(reason: string): void {
    const events = this.#events;
    this.close();
    events?.lost(reason);
  }
}
