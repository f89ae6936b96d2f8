/**
 * Runs of entries, checked by the device: what it applies must be contiguous, whoever sent it, since
 * a hole that it passes over is a loss that nobody would notice (G6).
 */

import type { Entry, Page } from "../gen/tidemark/v1/entry_pb.js";
import type { Deliver } from "../gen/tidemark/v1/gateway_pb.js";
import { SEQ_MAX } from "../limits.js";

/** A run of entries, from a `Deliver` or a page. */
export interface Run {
  readonly epoch: number;
  /** The seq before its first entry. */
  readonly prev: number;
  /** The seq of its last entry, or `prev`. */
  readonly last: number;
  /** The last seq that retention removed before a device that asked for it had it. */
  readonly gapTo?: number;
  readonly entries: readonly Entry[];
}

/** The server broke the protocol; the connection is of no use. */
export class BrokenServer extends Error {
  override readonly name = "BrokenServer";
}

/** The run of a `Deliver`. Throws `BrokenServer` when it has a hole. */
export function runOfDeliver({ epoch, prevSeq, entries }: Deliver): Run {
  return { epoch, prev: prevSeq, last: lastSeq("deliver", prevSeq, entries), entries };
}

/** The run of a page. Throws `BrokenServer` when it has a hole, or its parts disagree. */
export function runOfPage(page: Page): Run {
  const { epoch, prevSeq, entries, gap, head, floor } = page;
  const last = lastSeq("page", prevSeq, entries);
  if (gap && (gap.from === 0 || gap.from > gap.to || gap.to !== prevSeq)) {
    throw new BrokenServer("page.gap: contradicts prev_seq");
  }
  if (last > head) throw new BrokenServer("page.head: contradicts the entries above it");
  if (prevSeq < floor) {
    throw new BrokenServer("page.floor: contradicts prev_seq: entries at or below it are removed");
  }
  return { epoch, prev: prevSeq, last, entries, ...(gap && { gapTo: gap.to }) };
}

function lastSeq(where: string, prev: number, entries: readonly Entry[]): number {
  let last = prev;
  for (const [at, { seq }] of entries.entries()) {
    // The space ends: nothing comes after its last seq, not even 0.
    if (last === SEQ_MAX || seq !== last + 1) {
      throw new BrokenServer(`${where}.entries[${at}].seq: contradicts the seq before it`);
    }
    last = seq;
  }
  return last;
}
