// @ts-check
/**
 * The network of one device: real WebSockets, which can be switched off, or lost without a word.
 *
 * Off: connections are closed, as by a phone that is told to, and the servers know. Lost: frames
 * vanish in both directions, and nobody is told anything, as in a tunnel.
 */

import { WebSocketConnector } from "./tidemark-client.js";

export class Network {
  /** @type {"on" | "off" | "lost"} */
  mode = "on";
  /** Frames that really went to a socket, and that really came from one. */
  onSent = (_frame) => {};
  onReceived = (_frame) => {};
  #connector = new WebSocketConnector();
  /** Connections that the device has. */
  #links = new Set();

  connect(gateway, events) {
    /** @type {{events: any, wire?: import("./tidemark-client.js").Wire, lose?: (reason: string) => void}} */
    const link = { events };
    const drop = (reason) => {
      if (this.#links.delete(link)) events.lost(reason);
    };
    this.#links.add(link);
    link.lose = (reason) => {
      link.wire?.close();
      drop(reason);
    };
    if (this.mode === "off") queueMicrotask(() => drop("the device is offline"));
    if (this.mode === "on") {
      link.wire = this.#connector.connect(gateway, {
        open: () => this.mode === "on" && events.open(),
        frame: (frame) => {
          if (this.mode !== "on") return;
          this.onReceived(frame);
          events.frame(frame);
        },
        lost: (reason) => this.mode !== "lost" && drop(reason),
      });
    }
    return {
      send: (frame) => {
        if (this.mode !== "on") return;
        this.onSent(frame);
        link.wire?.send(frame);
      },
      close: () => {
        this.#links.delete(link);
        link.wire?.close();
      },
    };
  }

  /** Switches; what was connected before is gone, and known to be once the network is there again. */
  set(mode) {
    const before = this.mode;
    this.mode = mode;
    if (before === mode || mode === "lost") return;
    for (const link of [...this.#links]) link.lose(`the network was ${before === "on" ? "switched off" : before}`);
  }
}
