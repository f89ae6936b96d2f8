/**
 * The connection: which gateway, when to try the next one, whether the peer is alive.
 *
 * ```text
 *             ┌────────── lost, refused or silent: pause, next gateway ◄───────┐
 *             ▼                                                                │
 *   idle ─► connecting ─► greeting ── Welcome ──► online ── GoAway ──► leaving ┤
 *             ▲           token, Hello            Ping, Pong                   │
 *             └────────────────────────── after reconnect_after ───────────────┘
 *                                         the old one is read on meanwhile
 * ```
 *
 * It knows times and peers, and nothing of entries or sends. Invariant: a frame of a connection that
 * is neither the current nor the old one is dropped.
 */

import type { Welcome } from "../gen/tidemark/v1/gateway_pb.js";
import type { Rng } from "../rng.js";
import { Backoff } from "./backoff.js";
import type { ConnectionState, Link } from "./io.js";
import type { Out } from "./out.js";
import { earliest } from "./time.js";

/** The pause after a connection that failed. */
const RECONNECT_FIRST_MS = 200;
const RECONNECT_LONGEST_MS = 30_000;

/** A connection that lasted this long was a good one: after it the pauses begin small again. */
const STABLE_MS = 10_000;

/** Connecting, or the token, or a `Welcome`, takes no longer, or something is broken. */
const ANSWER_TIMEOUT_MS = 10_000;

/** A peer that sends nothing for this long after a `Ping` is gone. */
const PONG_TIMEOUT_MS = 5_000;

/** The silence of a device, when the server tells no maximum. */
const HEARTBEAT_MS = 30_000;

/** A token is renewed this long before it expires, or after half of its time if it is short. */
const RENEW_BEFORE_MS = 60_000;

type Phase =
  | { readonly kind: "idle"; readonly until: number }
  | { readonly kind: "connecting" | "greeting" | "online"; readonly link: Link }
  | { readonly kind: "leaving"; readonly link: Link; readonly until: number; readonly closeAt: number }
  | { readonly kind: "stopped" };

/** Whose frame it is: of the connection in use, of one that is left, of one that is gone. */
export type From = "current" | "old" | "nobody";

/** What a tick found. */
export type Due =
  | { readonly kind: "nothing" | "ping" | "hello" }
  | { readonly kind: "dead"; readonly reason: string };

/** The connection of a device. */
export class Connection {
  #gateway: number;
  #phase: Phase = { kind: "idle", until: 0 };
  /** A connection that said `GoAway`, and when it is cut. */
  #old: { readonly link: Link; readonly until: number } | undefined;
  #links = 0;
  #onlineSince: number | undefined;
  readonly #reconnect = new Backoff(RECONNECT_FIRST_MS, RECONNECT_LONGEST_MS);
  /** By when the peer must have answered: the connection, the token or the `Hello`. */
  #answerBy: number | undefined;
  #helloAt: number | undefined;
  #token = "";
  /** The server refused the last token that it was given. */
  #tokenRefused = false;
  #fetching = false;
  #renewAt: number | undefined;
  #heartbeat = HEARTBEAT_MS;
  #lastSent = 0;
  /** When the peer of the connection in use last said something. */
  #lastHeard = 0;
  #pongBy: number | undefined;

  constructor(
    private readonly gateways: number,
    private readonly rng: Rng,
  ) {
    this.#gateway = Math.floor(rng.unit() * gateways);
  }

  /** For the application. */
  get state(): ConnectionState {
    switch (this.#phase.kind) {
      case "idle":
        return "waiting";
      case "greeting":
        return "connecting";
      default:
        return this.#phase.kind;
    }
  }

  /** The gateway in use, by its place in the list. */
  get gateway(): number {
    return this.#gateway;
  }

  /** The connection in use. */
  get link(): Link | undefined {
    return "link" in this.#phase ? this.#phase.link : undefined;
  }

  get isStopped(): boolean {
    return this.#phase.kind === "stopped";
  }

  /** May entries and pages be asked for? */
  get isOnline(): boolean {
    return this.#phase.kind === "online";
  }

  /** Is there a connection on which a `Hello` makes sense? Not one that is being left. */
  get mayGreet(): boolean {
    return this.#phase.kind === "greeting" || this.#phase.kind === "online";
  }

  /** Whose frame is it? Any frame shows that its peer is alive. */
  heard(now: number, link: Link): From {
    if (this.link === link) {
      this.#lastHeard = now;
      this.#pongBy = undefined;
      return "current";
    }
    return this.#old?.link === link ? "old" : "nobody";
  }

  /** A frame went out. */
  sent(now: number): void {
    this.#lastSent = now;
  }

  /** The connection stands: a token is wanted for the `Hello`. */
  connected(now: number, link: Link, out: Out): void {
    if (this.#phase.kind === "connecting" && this.#phase.link === link) {
      this.#phase = { kind: "greeting", link };
      this.#answerBy = now + ANSWER_TIMEOUT_MS;
      this.fetchToken(out);
    }
  }

  /** Asks the application for a token. */
  fetchToken(out: Out): void {
    if (this.#fetching) return;
    this.#fetching = true;
    out.action({ kind: "fetchToken", refused: this.#tokenRefused });
  }

  /** There is a token, for the next `Hello`. */
  token(token: string): void {
    this.#fetching = false;
    this.#token = token;
  }

  /** There is no token, for now. True when nothing can go on without one. */
  noToken(now: number): boolean {
    this.#fetching = false;
    if (this.isOnline) this.#renewAt = now + this.#reconnect.pause(this.rng);
    return this.#phase.kind === "greeting";
  }

  /** The server refused the token. True when the one before was refused as well. */
  refuseToken(): boolean {
    const again = this.#tokenRefused;
    this.#tokenRefused = true;
    return again;
  }

  /** A `Hello` goes out with this token. */
  greet(now: number): string {
    this.#helloAt = undefined;
    this.#answerBy = now + ANSWER_TIMEOUT_MS;
    return this.#token;
  }

  /** A `Hello` was put off: again after this time. */
  greetLater(now: number, hint: number | undefined): void {
    this.#answerBy = undefined;
    this.#helloAt = now + (hint ?? this.#reconnect.pause(this.rng));
  }

  /**
   * The device is welcome: true for the first time on this connection, undefined when nothing had
   * asked for it.
   */
  welcome(now: number, welcome: Welcome, out: Out): boolean | undefined {
    if (this.#answerBy === undefined) return undefined;
    this.#answerBy = undefined;
    this.#tokenRefused = false;
    const longest = welcome.heartbeatMaxMs || HEARTBEAT_MS * 3;
    this.#heartbeat = Math.max(longest / 3, welcome.heartbeatMinMs);
    // By the server's clock alone: the device's own may be wrong.
    const left = Math.max(Number(welcome.tokenExpiresMs - welcome.serverTimeMs), 0);
    const early = Math.min(RENEW_BEFORE_MS, left / 2);
    this.#renewAt = welcome.tokenExpiresMs > 0n ? now + (left - early) : undefined;
    if (this.#phase.kind !== "greeting") return false;
    this.#phase = { kind: "online", link: this.#phase.link };
    this.#onlineSince = now;
    this.#closeOld(out);
    return true;
  }

  /** The server drains: connect elsewhere after a while, and read on here until then. */
  goAway(now: number, afterHint: number | undefined, close: number): void {
    if (this.#phase.kind !== "online" && this.#phase.kind !== "greeting") return;
    const after = afterHint ?? this.#reconnect.pause(this.rng);
    const { link } = this.#phase;
    this.#phase = { kind: "leaving", link, until: now + after, closeAt: now + Math.max(close, after) };
    this.#quiet();
  }

  /**
   * The connection is gone, or is given up. The pause until the next attempt, if it was the one in
   * use.
   */
  lose(now: number, link: Link, hint: number | undefined, out: Out): number | undefined {
    if (this.#old?.link === link) this.#closeOld(out);
    if (this.link !== link) return undefined;
    out.action({ kind: "close", link });
    this.#nextGateway();
    let until: number;
    if (this.#phase.kind === "leaving") {
      until = this.#phase.until;
    } else {
      const stable = this.#onlineSince !== undefined && now - this.#onlineSince >= STABLE_MS;
      if (stable) this.#reconnect.reset();
      until = now + Math.max(this.#reconnect.pause(this.rng), hint ?? 0);
    }
    this.#phase = { kind: "idle", until };
    this.#onlineSince = undefined;
    this.#quiet();
    return Math.max(until - now, 0);
  }

  /** Closes everything, for good. */
  stop(out: Out): void {
    this.#closeOld(out);
    if (this.link !== undefined) out.action({ kind: "close", link: this.link });
    this.#phase = { kind: "stopped" };
    this.#quiet();
    out.action({ kind: "stop" });
  }

  /** When something is due. */
  get deadline(): number | undefined {
    const phase = this.#phase;
    const ofPhase =
      phase.kind === "idle" || phase.kind === "leaving"
        ? phase.until
        : phase.kind === "online"
          ? (this.#pongBy ?? this.#pingAt())
          : undefined;
    const renew = this.isOnline && !this.#fetching ? this.#renewAt : undefined;
    return earliest(ofPhase, this.#old?.until, this.#answerBy, this.#helloAt, renew);
  }

  tick(now: number, out: Out): Due {
    if (this.#old && this.#old.until <= now) this.#closeOld(out);
    const phase = this.#phase;
    if (phase.kind === "idle" && phase.until <= now) {
      this.#connect(now, out);
    } else if (phase.kind === "leaving" && phase.until <= now) {
      this.#closeOld(out);
      this.#old = { link: phase.link, until: phase.closeAt };
      this.#nextGateway();
      this.#connect(now, out);
    }
    if (this.#answerBy !== undefined && this.#answerBy <= now) {
      return { kind: "dead", reason: "no answer to a Hello" };
    }
    if (this.#helloAt !== undefined && this.#helloAt <= now) {
      this.#helloAt = undefined;
      return { kind: "hello" };
    }
    return this.isOnline ? this.#tickOnline(now, out) : { kind: "nothing" };
  }

  #tickOnline(now: number, out: Out): Due {
    if (this.#renewAt !== undefined && this.#renewAt <= now) {
      this.#renewAt = undefined;
      this.fetchToken(out);
    }
    if (this.#pongBy !== undefined) {
      return this.#pongBy <= now
        ? { kind: "dead", reason: "no frame since a Ping" }
        : { kind: "nothing" };
    }
    if (this.#pingAt() > now) return { kind: "nothing" };
    this.#pongBy = now + PONG_TIMEOUT_MS;
    return { kind: "ping" };
  }

  /**
   * When a `Ping` is due: after a silence of either side, since what a device repeats into a dead
   * connection is no silence of its own.
   */
  #pingAt(): number {
    return Math.min(this.#lastSent, this.#lastHeard) + this.#heartbeat;
  }

  #connect(now: number, out: Out): void {
    this.#quiet();
    this.#links += 1;
    const link = this.#links;
    this.#phase = { kind: "connecting", link };
    this.#answerBy = now + ANSWER_TIMEOUT_MS;
    out.action({ kind: "connect", link, gateway: this.#gateway });
  }

  #nextGateway(): void {
    this.#gateway = (this.#gateway + 1) % this.gateways;
  }

  #closeOld(out: Out): void {
    if (this.#old) out.action({ kind: "close", link: this.#old.link });
    this.#old = undefined;
  }

  /** Nothing is expected of a peer. */
  #quiet(): void {
    this.#answerBy = undefined;
    this.#helloAt = undefined;
    this.#renewAt = undefined;
    this.#pongBy = undefined;
  }
}
