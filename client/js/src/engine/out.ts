/** What a step of the engine wants done: first what must be durable, then what may rely on it. */

import { create, type MessageInitShape } from "@bufbuild/protobuf";

import type { Event } from "../event.js";
import { ClientFrameSchema } from "../gen/tidemark/v1/gateway_pb.js";
import type { Settled } from "../outcome.js";
import type { Change, Draft, Meta, OutboxId } from "../store.js";
import type { Action, Link, Output } from "./io.js";

/** A frame, by the name of its kind. */
export type FrameInit = NonNullable<MessageInitShape<typeof ClientFrameSchema>["frame"]>;

/** Collects what a step wants. */
export class Out {
  #changes: Change[] = [];
  #actions: Action[] = [];
  /** Outcomes to remove, with the next write. */
  #forgotten: OutboxId[] = [];
  /** The meta data changed. */
  #meta = false;
  /** The connection that frames go out on. */
  #link: Link | undefined;
  /** A frame went out since this was last asked. */
  #sent = false;

  /** Frames go out on this connection from now on, or nowhere. */
  setLink(link: Link | undefined): void {
    this.#link = link;
  }

  /** Sends a frame; without a connection it is lost, as any frame may be. */
  frame(frame: FrameInit): void {
    if (this.#link === undefined) return;
    this.#sent = true;
    const message = create(ClientFrameSchema, { frame });
    this.#actions.push({ kind: "send", link: this.#link, frame: message });
  }

  /** Wants something done. */
  action(action: Action): void {
    this.#actions.push(action);
  }

  /** Tells the application. */
  event(event: Event): void {
    this.#actions.push({ kind: "event", event });
  }

  /** Stores a new send. */
  put(id: OutboxId, draft: Draft): void {
    this.#changes.push({ kind: "put", id, draft });
  }

  /** Stores an outcome, and reports it. */
  settle(id: OutboxId, settled: Settled): void {
    this.#changes.push({ kind: "settle", id, settled });
    this.#actions.push({ kind: "report", id, settled });
  }

  /**
   * Removes an outcome that the application has taken, with the next write: until then a crash makes
   * it come again.
   */
  forget(id: OutboxId): void {
    this.#forgotten.push(id);
  }

  /** The next write is due. */
  flush(): void {
    for (const id of this.#forgotten.splice(0)) this.#changes.push({ kind: "forget", id });
  }

  /** The meta data must be stored with this step. */
  saveMeta(): void {
    this.#meta = true;
  }

  /** Did a frame go out since this was last asked? */
  takeSent(): boolean {
    const sent = this.#sent;
    this.#sent = false;
    return sent;
  }

  /** What has come together; the meta data if they are to be stored. */
  take(meta: () => Meta): Output {
    if (this.#meta) {
      this.#meta = false;
      this.#changes.push({ kind: "meta", meta: meta() });
    }
    if (this.#changes.length > 0) this.flush();
    return { changes: this.#changes.splice(0), actions: this.#actions.splice(0) };
  }
}
