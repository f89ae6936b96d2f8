/**
 * The origins of what the application took last: after a `Reset` the mailbox comes again, and what is
 * known must not be handed over twice.
 *
 * Limits: the last `ORIGINS_MAX` of them, in memory. What was taken before that, or in an earlier run
 * of the page, is handed over again after a reset; an application that cannot bear it remembers
 * origins itself.
 */

import { type Item, lastOf, type Origin } from "../entry.js";

/** Origins that a device remembers: more than a restored backup is behind in all but bad cases. */
export const ORIGINS_MAX = 1_024;

/** What was taken, and, while a mailbox comes again, what of it to drop. */
export class Origins {
  readonly #recent: string[] = [];
  /** Known ones, until the mailbox is past the head that the reset told. */
  #again: { readonly head: number; readonly known: Set<string> } | undefined;

  /** The application took this; it had it in its hands since before the reset, if there is one. */
  took(item: Item, beforeReset: boolean): void {
    const key = keyOf(item);
    if (key === undefined) return;
    if (beforeReset) this.#again?.known.add(key);
    if (this.#recent.length === ORIGINS_MAX) this.#recent.shift();
    this.#recent.push(key);
  }

  /** The mailbox comes again, up to this head. */
  reset(head: number): void {
    this.#again = { head, known: new Set(this.#recent) };
  }

  /** Did the application take this before the reset? */
  knows(item: Item): boolean {
    if (this.#again === undefined) return false;
    if (lastOf(item) > this.#again.head) {
      this.#again = undefined;
      return false;
    }
    const key = keyOf(item);
    return key !== undefined && this.#again.known.has(key);
  }
}

/** What makes an entry unique: of a refusal, the recipient as well. */
function keyOf(item: Item): string | undefined {
  if (item.kind === "gap") return undefined;
  const { origin, content } = item.entry;
  if (origin === undefined) return undefined;
  const key = originKey(origin);
  if (content.kind === "refused") key.push(content.recipient.kind, content.recipient.name);
  return JSON.stringify(key);
}

function originKey(origin: Origin): string[] {
  switch (origin.kind) {
    case "session":
      return [origin.sender, String(origin.session), String(origin.n)];
    case "backend":
      return [origin.sender, origin.clientMsgId];
    case "group":
      // As many parts as no other has.
      return [origin.sender, "group", origin.group, String(origin.seq)];
  }
}
