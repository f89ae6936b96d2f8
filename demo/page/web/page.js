// @ts-check
/** The page: three devices, the way of a message, the cluster. */

import { ClusterView } from "./cluster.js";
import { clock, Phone } from "./phone.js";
import { look, messageOf, order } from "./server.js";
import { Way } from "./way.js";

/** Lines of what happened that are kept. */
const LOG_MAX = 100;

/** How often the lock screen is looked at. */
const PUSHES_MS = 250;

function tell(text) {
  const log = /** @type {HTMLElement} */ (document.querySelector("#log"));
  const item = document.createElement("p");
  const time = document.createElement("time");
  time.textContent = clock(new Date());
  item.append(time, text);
  log.prepend(item);
  while (log.childElementCount > LOG_MAX) log.lastElementChild?.remove();
}

function trouble(error) {
  const place = /** @type {HTMLElement} */ (document.querySelector("#trouble"));
  place.textContent = `The page cannot start: ${messageOf(error)}`;
  place.hidden = false;
}

/** Stores of people of an earlier run, whom the cluster may not even know any more. */
async function forgetOthers(users) {
  const known = (name) => users.some((user) => name.startsWith(user));
  for (const { name = "" } of await indexedDB.databases()) {
    if (name.startsWith("tidemark:") && !known(name.slice(9))) indexedDB.deleteDatabase(name);
  }
  for (const key of Object.keys(localStorage)) {
    if (!known(key)) localStorage.removeItem(key);
  }
}

async function watchPushes(phone) {
  for (;;) {
    const since = phone.network.mode === "on" ? Infinity : phone.awaySince;
    const pushes = since === Infinity ? [] : await look("pushes").catch(() => []);
    phone.pushes(pushes.filter(({ seen_ms: seen }) => seen >= since));
    await new Promise((turn) => setTimeout(turn, PUSHES_MS));
  }
}

async function start() {
  const { people, gateways } = await look("setup");
  await forgetOthers([people.a, people.b]);
  const way = new Way();
  const told = {
    tell,
    typed: (phone, at, text) => way.typed(phone, at, text),
    stored: (phone, id) => way.stored(phone, id),
    taken: (phone, id, seq) => way.taken(phone, id, seq),
  };
  const make = (which, title, user, name, to, toTitle) => {
    const phone = new Phone({ which, title, user, name, to, toTitle, gateways }, told);
    way.follow(phone, which, title);
    return phone;
  };
  const a = make("a", "A: Alice’s phone", people.a, "phone", people.b, "Bob");
  const b = make("b", "B: Bob’s phone", people.b, "phone", people.a, "Alice");
  const laptop = make("b_laptop", "B: Bob’s laptop", people.b, "laptop");
  await order("push").catch((error) => tell(`No pushes for B’s phone: ${messageOf(error)}`));
  await Promise.all([a, b, laptop].map((phone) => phone.open()));
  new ClusterView(people, tell, () => b.gateway);
  void watchPushes(b);
}

start().catch(trouble);
