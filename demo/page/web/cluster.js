// @ts-check
/** The cluster on the page: who is up, who leads, and what is done to it. */

import { look, messageOf, order } from "./server.js";

/** How often it is looked at. */
const LOOK_MS = 1_000;

export class ClusterView {
  #people;
  #tell;
  #leader;
  #killed;

  /** @param {{shard_a: number, shard_b: number}} people @param {(text: string) => void} tell @param {() => number} gatewayOfB */
  constructor(people, tell, gatewayOfB) {
    this.#people = people;
    this.#tell = tell;
    this.#button("#kill", async () => {
      this.#killed = this.#leader;
      return (await order("kill-leader")).said;
    });
    this.#button("#heal", async () => (await order("restart", { name: this.#killed })).said);
    this.#button("#gateway", async () => (await order("restart", { name: `gateway-${gatewayOfB() + 1}` })).said);
    void this.#watch();
  }

  #button(selector, act) {
    const button = /** @type {HTMLButtonElement} */ (document.querySelector(selector));
    button.onclick = async () => {
      if (button.getAttribute("aria-disabled") === "true") return;
      // Not `disabled`, which would take the focus away.
      button.setAttribute("aria-disabled", "true");
      try {
        this.#tell(await act());
      } catch (error) {
        this.#tell(`It did not work: ${messageOf(error)}`);
      }
      button.removeAttribute("aria-disabled");
      await this.#look();
    };
  }

  async #watch() {
    for (;;) {
      if (!document.hidden) await this.#look();
      await new Promise((turn) => setTimeout(turn, LOOK_MS));
    }
  }

  async #look() {
    const state = await look("cluster").catch(() => undefined);
    const trouble = /** @type {HTMLElement} */ (document.querySelector("#trouble"));
    trouble.hidden = state !== undefined;
    trouble.textContent = state ? "" : "The process that serves this page does not answer: scripts/cluster page starts it.";
    if (!state) return;
    const { shard_a: a, shard_b: b } = this.#people;
    const items = [];
    let leader;
    for (const [name, leads] of Object.entries(state.nodes)) {
      if (leads?.includes(b)) leader = name;
      const roles = [leads?.includes(a) && `A’s shard ${a}`, leads?.includes(b) && `B’s shard ${b}`].filter(Boolean);
      const text = leads ? `leads ${leads.length} shards${roles.length ? `: ${roles.join(", ")}` : ""}` : "down";
      items.push(item(name, text, leads ? (leads.includes(b) ? "leads-b" : "") : "down"));
    }
    for (const [name, up] of Object.entries(state.gateways)) {
      items.push(item(name, up ? "ready" : "not ready", up ? "" : "down"));
    }
    document.querySelector("#servers")?.replaceChildren(...items);
    if (leader && leader !== this.#leader) this.#tell(`${leader} leads B’s shard ${b}`);
    this.#leader = leader ?? this.#leader;
    const down = Object.keys(state.nodes).filter((name) => state.nodes[name] === null);
    this.#killed = down[0];
    const [kill, heal] = ["#kill", "#heal"].map((id) => /** @type {HTMLButtonElement} */ (document.querySelector(id)));
    // With a second node down there would be no majority, and nothing to see.
    if (kill) kill.disabled = down.length > 0 || !leader;
    if (heal) heal.disabled = down.length === 0;
    if (heal && down[0]) heal.textContent = `Start ${down[0]} again`;
  }
}

function item(name, text, state) {
  const element = document.createElement("li");
  element.className = state;
  element.dataset.server = name;
  const small = document.createElement("small");
  small.textContent = text;
  element.append(name, small);
  return element;
}
