/** Where time comes from: the seam that lets tests have a time of their own. */
export interface Clock {
  /** Milliseconds that never go back. */
  now(): number;
  /** Milliseconds since the Unix epoch, by the device's own clock, which may be wrong. */
  wall(): number;
  /** Calls `then` once, after so many milliseconds; what it returns puts that off for good. */
  after(ms: number, then: () => void): () => void;
}

/** The longest time that a platform's timer can be set to. */
const TIMER_MS_MAX = 2 ** 31 - 1;

/** The platform's clock. */
export const systemClock: Clock = {
  now: () => performance.now(),
  wall: () => Date.now(),
  after: (ms, then) => {
    const timer = setTimeout(then, Math.min(Math.max(Math.ceil(ms), 0), TIMER_MS_MAX));
    return () => clearTimeout(timer);
  },
};
