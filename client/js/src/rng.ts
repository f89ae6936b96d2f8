/** Where randomness comes from: the seam that makes an engine repeatable. */
export interface Rng {
  /** Fills `bytes` with random ones. */
  fill(bytes: Uint8Array): void;
  /** A random number from 0 to below 1, for jitter. */
  unit(): number;
}

/** The platform's randomness. */
export const systemRng: Rng = {
  fill: (bytes) => void globalThis.crypto.getRandomValues(bytes as Uint8Array<ArrayBuffer>),
  unit: () => Math.random(),
};
