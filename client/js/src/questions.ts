/**
 * Questions on the connection in use. Each goes out once, or not at all; it is answered, refused, or given up:
 * a connection that is lost takes its answer with it.
 */

import { AskError } from "./act.js";
import type { Clock } from "./clock.js";
import type { Failure } from "./failure.js";
import type { ServerFrame } from "./gen/tidemark/v1/gateway_pb.js";

/** Questions under way. */
const QUESTIONS_MAX = 64;

/** How long a question waits for its answer. */
const ANSWER_TIMEOUT_MS = 10_000;

/** What answers a question. */
export type Answer = Extract<ServerFrame["frame"], { case: "unreadReply" | "presenceReply" }>;

interface Asked {
  readonly answer: (answer: Answer) => void;
  readonly refuse: (error: AskError) => void;
  readonly cancel: () => void;
}

/** The questions of a device. */
export class Questions {
  readonly #asked = new Map<bigint, Asked>();
  #last = 0n;

  constructor(private readonly clock: Clock) {}

  /** Asks with this function, which is given the request's number and says whether it went out. */
  ask(send: (requestId: bigint) => boolean): Promise<Answer> {
    return new Promise((answer, refuse) => {
      if (this.#asked.size >= QUESTIONS_MAX) {
        return refuse(new AskError("busy", "too many questions are under way"));
      }
      this.#last += 1n;
      const requestId = this.#last;
      if (!send(requestId)) return refuse(new AskError("offline", "the device is not connected"));
      const cancel = this.clock.after(ANSWER_TIMEOUT_MS, () => {
        this.#asked.delete(requestId);
        refuse(new AskError("noAnswer", "there was no answer in time"));
      });
      this.#asked.set(requestId, { answer, refuse, cancel });
    });
  }

  /** A question was answered. */
  answered(answer: Answer): void {
    this.#take(answer.value.requestId)?.answer(answer);
  }

  /** A question was refused. */
  refused(requestId: bigint, failure: Failure): void {
    this.#take(requestId)?.refuse(AskError.refused(failure));
  }

  /** The device has stopped. */
  close(): void {
    for (const requestId of [...this.#asked.keys()]) {
      this.#take(requestId)?.refuse(new AskError("closed", "the device has stopped"));
    }
  }

  #take(requestId: bigint): Asked | undefined {
    const asked = this.#asked.get(requestId);
    asked?.cancel();
    this.#asked.delete(requestId);
    return asked;
  }
}
