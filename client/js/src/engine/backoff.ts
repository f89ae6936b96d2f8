/** Pauses that grow and are randomised, so that many devices do not come back at once. */

import type { Rng } from "../rng.js";

/** A pause that doubles from the first to the longest. */
export class Backoff {
  #next: number;

  constructor(
    private readonly first: number,
    private readonly longest: number,
  ) {
    this.#next = first;
  }

  /** The next pause, as long as it has grown to. */
  grow(): number {
    const pause = this.#next;
    this.#next = Math.min(pause * 2, this.longest);
    return pause;
  }

  /** The next pause: between half and all of what it has grown to. */
  pause(rng: Rng): number {
    return this.grow() * (0.5 + 0.5 * rng.unit());
  }

  /** Begins again with the first pause. */
  reset(): void {
    this.#next = this.first;
  }
}
