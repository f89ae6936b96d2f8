/** A store that lives as long as the page: for tests, and for devices that need not come back. */

import type { Settled } from "../outcome.js";
import type { Change, Draft, Meta, OutboxId, Saved, Store } from "../store.js";

/** A store in memory. A device can be opened again with it. */
export class MemoryStore implements Store {
  #meta: Meta | undefined;
  readonly #outbox = new Map<OutboxId, Draft>();
  readonly #outcomes = new Map<OutboxId, Settled>();

  /** What it holds now. */
  saved(): Saved {
    return {
      ...(this.#meta && { meta: this.#meta }),
      outbox: new Map(this.#outbox),
      outcomes: new Map(this.#outcomes),
    };
  }

  /** Makes these changes. */
  apply(changes: readonly Change[]): void {
    for (const change of changes) {
      switch (change.kind) {
        case "meta":
          this.#meta = change.meta;
          break;
        case "put":
          this.#outbox.set(change.id, change.draft);
          break;
        case "settle":
          this.#outbox.delete(change.id);
          this.#outcomes.set(change.id, change.settled);
          break;
        case "forget":
          this.#outcomes.delete(change.id);
          break;
      }
    }
  }

  async load(): Promise<Saved> {
    return this.saved();
  }

  async commit(changes: readonly Change[]): Promise<void> {
    this.apply(changes);
  }

  async close(): Promise<void> {}
}
