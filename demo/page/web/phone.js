// @ts-check
/** One device of the page: the SDK, its network, and its screen. */

import { Device, IndexedDbStore, errorName, uuidText } from "./tidemark-client.js";

import { Network } from "./network.js";
import { messageOf, order } from "./server.js";

/** Lines of a talk that are kept. */
const LINES_MAX = 50;

export class Phone {
  network = new Network();
  /** When its network went, by the wall clock. */
  awaySince = Infinity;
  /** @type {any} */
  device;
  #title;
  #element;
  #setup;
  #which;
  /** @type {Record<string, number>} */
  #seen = {};
  #tell;

  /**
   * @param {{which: string, title: string, user: string, name: string, to?: string, toTitle?: string,
   *   gateways: string[]}} setup
   * @param {{tell: (text: string) => void, typed: Function, stored: Function, taken: Function}} told
   */
  constructor(setup, told) {
    this.#setup = setup;
    this.#title = setup.title;
    this.#which = setup.which;
    this.#tell = told;
    const template = /** @type {HTMLTemplateElement} */ (document.querySelector("#phone"));
    const copy = /** @type {DocumentFragment} */ (template.content.cloneNode(true));
    this.#element = /** @type {HTMLElement} */ (copy.querySelector("section"));
    this.#element.dataset.phone = setup.which;
    const title = this.#find("h2");
    title.id = `title-${setup.which}`;
    title.textContent = setup.title;
    this.#element.setAttribute("aria-labelledby", title.id);
    this.#find(".talk").setAttribute("aria-label", `Messages on ${setup.title}`);
    this.#find(".pushes").setAttribute("aria-label", `Lock screen of ${setup.title}`);
    this.#form();
    this.#switches();
    for (const line of this.#lines()) this.#show(line);
    document.querySelector("#phones")?.append(copy);
  }

  /** Where its messages are kept, beside the SDK's own store. */
  get #key() {
    return `${this.#setup.user}-${this.#setup.name}`;
  }

  async open() {
    const { user, name, gateways } = this.#setup;
    this.device = await Device.open(
      { user, device: name, gateways, label: { name: this.#title, platform: "browser" } },
      {
        store: watched(await IndexedDbStore.open(this.#key), (id) => this.#tell.stored(this, id)),
        connector: this.network,
        token: async () => (await order("token", { device: this.#which })).token,
        handler: {
          entry: (entry) => this.#take(entry),
          gap: (first, last) => this.#tell.tell(`${this.#title}: ${first} to ${last} were removed before it had them`),
        },
        onEvent: (event) => this.#event(event),
        onStatus: (status) => this.#status(status),
      },
    );
    this.#status(this.device.status);
  }

  /** The gateway that it talks to, by its place in the list. */
  get gateway() {
    return this.device.status.gateway;
  }

  /** Shows the pushes that reached it while it is away. */
  pushes(pushes) {
    const list = this.#find(".pushes");
    list.replaceChildren(
      ...pushes.map(({ alert, payload, seen_ms: seen }) => {
        const item = document.createElement("p");
        item.title = payload;
        item.append(alert, small(`seen ${clock(new Date(seen))}`));
        return item;
      }),
    );
    this.#find(".time").textContent = new Date().toTimeString().slice(0, 5);
  }

  #form() {
    const { to, toTitle } = this.#setup;
    const form = /** @type {HTMLFormElement} */ (this.#find("form"));
    if (!to) {
      form.remove();
      return;
    }
    const input = /** @type {HTMLInputElement} */ (form.querySelector("input"));
    const label = /** @type {HTMLLabelElement} */ (form.querySelector("label"));
    input.id = `text-${this.#which}`;
    label.htmlFor = input.id;
    label.textContent = `Message to ${toTitle}`;
    form.onsubmit = (event) => {
      event.preventDefault();
      const text = input.value.trim();
      if (text === "" || !this.device) return;
      input.value = "";
      void this.#send(to, text);
    };
  }

  async #send(to, text) {
    const typed = performance.now();
    try {
      this.#tell.typed(this, typed, text);
      const sending = await this.device.send(to, 1, text);
      const outcome = await sending.outcome();
      if (outcome.kind === "refused") this.#tell.tell(`${this.#title}: refused, ${errorName(outcome.code)}`);
      if (outcome.kind === "unknown") this.#tell.tell(`${this.#title}: unknown for good, ${outcome.why}`);
    } catch (error) {
      this.#tell.tell(`${this.#title}: ${messageOf(error)}`);
    }
  }

  #switches() {
    const offline = this.#find(".offline");
    const lose = this.#find(".lose");
    const label = (button, text) => button.setAttribute("aria-label", `${text}: ${this.#title}`);
    label(offline, "Go offline");
    label(lose, "Lose the network");
    const set = (mode) => {
      this.network.set(this.network.mode === mode ? "on" : mode);
      const now = this.network.mode;
      this.awaySince = now === "on" ? Infinity : Math.min(this.awaySince, Date.now());
      offline.setAttribute("aria-pressed", String(now === "off"));
      lose.setAttribute("aria-pressed", String(now === "lost"));
      this.#find(".lock").hidden = now === "on" || this.#which !== "b";
      this.#find(".talk").hidden = !this.#find(".lock").hidden;
      const words = { on: "its network is back", off: "goes offline", lost: "loses its network without a word" };
      this.#tell.tell(`${this.#title}: ${words[now]}`);
      this.#status(this.device.status);
    };
    offline.onclick = () => set("off");
    lose.onclick = () => set("lost");
  }

  /** @param {import("./tidemark-client.js").Entry} entry */
  #take({ seq, timeMs, origin, content }) {
    if (content.kind === "message") {
      const from = origin?.sender ?? "";
      const mine = from === this.#setup.user;
      const body = new TextDecoder().decode(content.body);
      this.#tell.taken(this, content.clientMsgId, seq);
      this.#keep({ seq, mine, text: body, from: mine ? content.device : from, timeMs });
    } else if (content.kind === "refused") {
      this.#keep({ seq, mine: true, text: `refused: ${errorName(content.code)}`, from: "", timeMs });
    }
  }

  /** @returns {any[]} */
  #lines() {
    return JSON.parse(localStorage.getItem(this.#key) ?? "[]");
  }

  /** An entry that came before, since the page died before its cursor was stored, is known by its seq. */
  #keep(line) {
    const lines = this.#lines();
    if (lines.some(({ seq }) => seq === line.seq)) return;
    localStorage.setItem(this.#key, JSON.stringify([...lines, line].slice(-LINES_MAX)));
    this.#show(line);
  }

  #show({ seq, mine, text, from, timeMs }) {
    const item = document.createElement("p");
    item.className = mine ? "mine" : "";
    item.dataset.seq = String(seq);
    item.append(text, small(`seq ${seq} · ${from} · ${clock(new Date(timeMs))}`));
    const talk = this.#find(".talk");
    talk.append(item);
    talk.scrollTop = talk.scrollHeight;
  }

  #event(event) {
    const text = {
      connected: () => `connected to ${new URL(event.gateway).host}`,
      disconnected: () => `no connection (${event.reason}), again in ${Math.round(event.retryInMs)} ms`,
      reset: () => `its mailbox was restored: epoch ${event.epoch}`,
      sendingStopped: () => `sending has stopped: ${errorName(event.code)}`,
      stopped: () => `has stopped: ${event.reason}, ${event.message}`,
      handlerFailed: () => `could not take ${event.seq}: ${event.error}`,
    }[event.kind];
    if (text && (this.network.mode === "on" || event.kind !== "disconnected")) {
      this.#tell.tell(`${this.#title}: ${text()}`);
    }
  }

  #status(status) {
    const { mode } = this.network;
    const state = mode === "on" ? status.connection : "waiting";
    this.#element.dataset.state = state;
    const gateway = new URL(this.#setup.gateways[status.gateway] ?? "ws://nowhere").host;
    const words = {
      online: `online, by the gateway at ${gateway}`,
      connecting: `connecting to ${gateway}`,
      waiting: "waits to connect again",
      leaving: `leaves the gateway at ${gateway}, which stops`,
      stopped: "stopped",
    };
    const text = { on: words[state], off: "offline", lost: "no network, and nobody knows yet" }[mode];
    this.#find(".state .text").textContent = text;
    for (const [name, value] of Object.entries({
      cursor: status.cursor,
      received: status.received,
      head: status.head,
      outbox: status.outboxLength,
    })) {
      if (this.#seen[name] === value) continue;
      const cell = this.#find(`.${name}`);
      cell.textContent = String(value);
      if (this.#seen[name] !== undefined) restart(cell, "moved");
      this.#seen[name] = value;
    }
  }

  /** @returns {HTMLElement} */
  #find(selector) {
    return /** @type {HTMLElement} */ (this.#element.querySelector(selector));
  }
}

/** A store that tells when a send is durable in it. */
function watched(store, stored) {
  return {
    load: () => store.load(),
    close: () => store.close(),
    commit: async (changes) => {
      await store.commit(changes);
      for (const { kind, draft } of changes) if (kind === "put") stored(uuidText(draft.clientMsgId));
    },
  };
}

/** Plays the animation of a class once more. */
function restart(element, name) {
  element.classList.remove(name);
  void element.offsetWidth;
  element.classList.add(name);
}

function small(text) {
  const element = document.createElement("small");
  element.textContent = text;
  return element;
}

/** The time of day, to the millisecond. */
export function clock(date) {
  return `${date.toTimeString().slice(0, 8)}.${String(date.getMilliseconds()).padStart(3, "0")}`;
}
