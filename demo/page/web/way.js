// @ts-check
/**
 * The way of the last message: when each step was seen, by the page's one clock, and what the servers
 * measured meanwhile. Nothing is shown that was not timed.
 */

import { uuidText } from "./tidemark-client.js";

import { look } from "./server.js";

/** So long after a message was stored the servers are asked: with all well, it is everywhere then. */
const ASK_AFTER_MS = 1_500;

export class Way {
  /** The message that is shown. @type {any} */
  #last;
  /** Sends on their way, by device, session and n. */
  #sends = new Map();
  #before;
  #phones = new Map();

  constructor() {
    void this.#measure().then((totals) => (this.#before = totals));
  }

  /** Follows a phone's frames. Its title is for the steps. */
  follow(phone, which, title) {
    this.#phones.set(phone, { which, title });
    phone.network.onSent = (frame) => this.#sent(phone, frame.frame);
    phone.network.onReceived = (frame) => this.#received(phone, frame.frame);
  }

  /** A message was typed, and is on its way into its phone's outbox. */
  typed(phone, typed, text) {
    this.#last = { id: undefined, typed, from: phone, steps: [], passed: {}, seqs: new Map() };
    this.#step(typed, `typed on ${this.#title(phone)}: “${text}”`);
    this.#render();
  }

  /** A send is durable; the first one since then is the one that was typed. */
  stored(phone, id) {
    const message = this.#last;
    if (message?.from !== phone || message.id !== undefined) return;
    message.id = id;
    this.#step(performance.now(), "durable in its outbox (IndexedDB)");
    setTimeout(() => message === this.#last && void this.#ask(), ASK_AFTER_MS);
    this.#render();
  }

  /** A device's application took an entry. */
  taken(phone, id, seq) {
    if (id !== this.#last?.id) return;
    this.#step(performance.now(), `taken by the application of ${this.#title(phone)}: seq_cli ${seq}`);
    this.#last.seqs.set(phone, seq);
    this.#render();
  }

  #sent(phone, { case: kind, value }) {
    if (kind === "send") {
      const id = uuidText(value.clientMsgId);
      this.#sends.set(`${this.#which(phone)} ${value.session} ${value.n}`, id);
      if (id === this.#last?.id) this.#sentOne(performance.now());
    }
    if (kind === "ack" || kind === "ping" || kind === "hello") {
      const upto = kind === "ack" ? value.seq : value.seqCli;
      const seq = this.#last?.seqs.get(phone);
      if (seq === undefined || upto < seq) return;
      this.#last.seqs.delete(phone);
      this.#step(performance.now(), `${this.#title(phone)} confirms seq_cli ${upto}`);
      this.#render();
    }
  }

  #sentOne(at) {
    const again = this.#last.passed.connect !== undefined;
    this.#pass("connect", at);
    this.#step(at, `Send frame to ConnectSvr${again ? ", again" : ""}`);
    this.#render();
  }

  #received(phone, { case: kind, value }) {
    const now = performance.now();
    if (kind === "sendAck" && value.result.case === "accepted") {
      const id = this.#sends.get(`${this.#which(phone)} ${value.session} ${value.n}`);
      if (id !== this.#last?.id || this.#last.passed.store) return;
      this.#pass("send", now);
      this.#pass("store", now);
      const { seq } = value.result.value;
      this.#step(now, `SendAck: in MsgStore on a majority’s disks, seq ${seq} of the sender’s mailbox`);
      this.#render();
    }
    const entries = kind === "deliver" ? value.entries : kind === "syncPage" ? (value.page?.entries ?? []) : [];
    for (const { seq, content } of entries) {
      if (content.case !== "message" || uuidText(content.value.clientMsgId) !== this.#last?.id) continue;
      const by = kind === "deliver" ? "push" : "receive";
      const how = kind === "deliver" ? "Deliver, unasked, from PushSvr" : "page from ReceiveSvr, after a sync";
      if (phone !== this.#last.from) this.#pass(by, now);
      this.#step(now, `${how}, by ConnectSvr to ${this.#title(phone)}: seq_svr ${seq}`);
      this.#render();
    }
  }

  #which(phone) {
    return this.#phones.get(phone).which;
  }

  #title(phone) {
    return this.#phones.get(phone).title;
  }

  #pass(station, at) {
    this.#last.passed[station] ??= at;
  }

  #step(at, what, by = "this page") {
    this.#last.steps.push({ at: at - this.#last.typed, what, by });
    this.#last.steps.sort((one, other) => one.at - other.at);
  }

  async #measure() {
    return look("measured").catch(() => undefined);
  }

  /** What the servers measured since they were asked last. */
  async #ask() {
    const [before, message] = [this.#before, this.#last];
    const after = await this.#measure();
    this.#before = after;
    if (!before || !after || message !== this.#last) return;
    // A server that was started again counts from 0, and one that is gone says nothing: neither counts.
    const mean = (name) => {
      let [count, seconds] = [0, 0];
      for (const [server, totals] of Object.entries(after)) {
        const counted = totals[name].count - (before[server]?.[name].count ?? Infinity);
        if (counted <= 0) continue;
        count += counted;
        seconds += totals[name].seconds - before[server][name].seconds;
      }
      return count > 0 ? { count, ms: (1_000 * seconds) / count } : undefined;
    };
    message.means = [
      ["SendSvr, from a Send to its SendAck", mean("gateway_send_seconds")],
      ["MsgStore, from a proposal to its answer", mean("store_proposal_seconds")],
      ["… of it, a group commit’s fsync on one node", mean("store_log_fsync_seconds")],
      ["… of it, applying on one replica", mean("store_apply_seconds")],
      ["PushSvr, from acceptance to a Deliver, by the cluster’s clock", mean("gateway_delivery_seconds")],
    ];
    this.#render();
  }

  #render() {
    const { steps, passed, typed, means = [] } = this.#last;
    for (const item of document.querySelectorAll("#stations li")) {
      const { station = "" } = /** @type {HTMLElement} */ (item).dataset;
      const at = passed[station];
      item.classList.toggle("passed", at !== undefined);
      const text = /** @type {HTMLElement} */ (item.querySelector("span"));
      const unneeded = station === "receive" && passed.push !== undefined ? "not needed" : "";
      text.textContent = at === undefined ? unneeded : `+${(at - typed).toFixed(1)} ms`;
    }
    const rows = steps.map(({ at, what, by }) => row(what, `+${at.toFixed(1)} ms`, by));
    for (const [what, mean] of means) {
      const by = mean ? `the servers, mean of ${mean.count}` : "not counted since the message before";
      rows.push(row(what, mean ? `${mean.ms.toFixed(2)} ms` : "–", by));
    }
    document.querySelector("#steps")?.replaceChildren(...rows);
  }
}

function row(...texts) {
  const element = document.createElement("tr");
  for (const text of texts) element.append(Object.assign(document.createElement("td"), { textContent: text }));
  return element;
}
