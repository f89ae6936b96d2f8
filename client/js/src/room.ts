/**
 * The room in the outbox. An outcome holds its send's place until the application has taken it, so
 * that outcomes are bounded as well.
 */

interface Waiting {
  readonly bytes: number;
  readonly enter: () => void;
  readonly refuse: (error: Error) => void;
}

/** Room for so many sends, with bodies of so many bytes; who waits is let in in turn. */
export class Room {
  readonly #waiting: Waiting[] = [];
  #closed: Error | undefined;

  constructor(
    private entries: number,
    private bytes: number,
  ) {}

  /** Takes room if there is some, and nobody waits for it. */
  tryEnter(bytes: number): boolean {
    if (this.#closed) throw this.#closed;
    if (this.#waiting.length > 0 || this.entries < 1 || this.bytes < bytes) return false;
    this.#take(bytes);
    return true;
  }

  /** Takes room, as soon as there is some. */
  enter(bytes: number): Promise<void> {
    return new Promise((enter, refuse) => {
      if (this.#closed) refuse(this.#closed);
      else if (this.tryEnter(bytes)) enter();
      else this.#waiting.push({ bytes, enter, refuse });
    });
  }

  /** A send with a body of so many bytes is gone. */
  leave(bytes: number): void {
    this.entries += 1;
    this.bytes += bytes;
    for (let first = this.#waiting[0]; first; first = this.#waiting[0]) {
      if (this.entries < 1 || this.bytes < first.bytes) return;
      this.#waiting.shift();
      this.#take(first.bytes);
      first.enter();
    }
  }

  /** Nobody gets in any more. */
  close(error: Error): void {
    this.#closed = error;
    for (const { refuse } of this.#waiting.splice(0)) refuse(error);
  }

  #take(bytes: number): void {
    this.entries -= 1;
    this.bytes -= bytes;
  }
}
