/**
 * The two-phones page in Debian's Chromium, against a real cluster: `node test.js ADDRESS FOLDER`.
 */

import assert from "node:assert/strict";

import { PATIENCE_MS, WEIGHT_MAX, open } from "./browser.js";

const [address, folder] = process.argv.slice(2);
assert.ok(address && folder, "usage: node test.js ADDRESS FOLDER");

/** What the browser says when a server is gone, and nobody can keep it from saying. */
const EXPECTED_IN_FAILURES = /^(WebSocket connection to|Failed to load resource: net::ERR)/;

const browser = await open(folder, "", (url) => !url.includes("/api/"), EXPECTED_IN_FAILURES);
const { context, page, picture, said, step } = browser;

const phone = (which) => page.locator(`[data-phone="${which}"]`);
const button = (name) => page.getByRole("button", { name });

/** Messages sent so far, in order. */
const sent = [];

async function until(what, holds) {
  const end = Date.now() + PATIENCE_MS;
  while (!(await holds())) {
    assert.ok(Date.now() < end, `${what}, but not within ${PATIENCE_MS / 1000} s`);
    await new Promise((turn) => setTimeout(turn, 50));
  }
}

async function type(text) {
  sent.push(text);
  await page.getByLabel("Message to Bob").fill(text);
  await page.keyboard.press("Enter");
}

/** Every message is on this device once, in order, and its seqs have no hole. */
async function hasAll(which) {
  const lines = phone(which).locator(".talk p");
  await until(`${which} has ${sent.length} messages`, async () => (await lines.count()) >= sent.length);
  const found = await lines.evaluateAll((items) => items.map((item) => [item.dataset.seq, item.firstChild.textContent]));
  assert.deepEqual(found, sent.map((text, at) => [String(at + 1), text]));
}

async function allHaveAll() {
  for (const which of ["a", "b", "b_laptop"]) await hasAll(which);
}

async function online() {
  for (const which of ["a", "b", "b_laptop"]) {
    await page.locator(`[data-phone="${which}"][data-state="online"]`).waitFor();
  }
}

await step("the page loads under its strict policy, and three devices are online", async () => {
  const response = await page.goto(address);
  const policy = response.headers()["content-security-policy"];
  assert.match(policy, /^default-src 'none'; script-src 'self'; style-src 'self';/);
  assert.doesNotMatch(policy, /unsafe|\*/);
  await online();
  const weight = await browser.weight();
  assert.ok(weight > 100_000 && weight < WEIGHT_MAX, `it weighs ${weight} bytes`);
});

await step("a message reaches both of B's devices, and each step of its way has a time", async () => {
  await type("hello Bob");
  await allHaveAll();
  for (const station of ["connect", "send", "store", "push"]) {
    await page.locator(`[data-station="${station}"].passed`).waitFor();
  }
  await page.getByText(/the servers, mean of \d+/).first().waitFor();
  const times = await page.locator("#steps td:nth-child(2)").allInnerTexts();
  const steps = times.filter((time) => time.startsWith("+")).map((time) => Number.parseFloat(time));
  assert.ok(steps.length >= 8, times.join());
  assert.deepEqual(steps, [...steps].sort((one, other) => one - other));
});

await step("B answers", async () => {
  sent.push("hello Alice");
  await page.getByLabel("Message to Alice").fill("hello Alice");
  await page.keyboard.press("Enter");
  await allHaveAll();
});

await step("offline B gets a push on its lock screen, and catches up on return", async () => {
  await button("Go offline: B: Bob’s phone").click();
  await type("are you there?");
  await hasAll("b_laptop");
  await phone("b").locator(".pushes").getByText("You have new messages").waitFor();
  await browser.accessible();
  await picture("offline");
  await button("Go offline: B: Bob’s phone").click();
  await allHaveAll();
  await page.locator('[data-station="receive"].passed').waitFor();
});

await step("nothing needed more than the browser's patience so far: no console error", async () => {
  assert.deepEqual(said, []);
});

await step("what is sent without a network waits in the outbox", async () => {
  await button("Lose the network: A: Alice’s phone").click();
  await type("from a tunnel");
  await until("it waits", async () => (await phone("a").locator(".outbox").innerText()) === "1");
  await button("Lose the network: A: Alice’s phone").click();
  await allHaveAll();
  assert.equal(await phone("a").locator(".outbox").innerText(), "0");
});

await step("the leader of B's shard is killed: messages wait, and arrive", async () => {
  await button("Kill the leader of B’s shard").click();
  for (const number of [1, 2, 3]) await type(`after the kill, ${number}`);
  await page.locator("#log").getByText(/^.*killed node-\d, which led shard \d+$/).first().waitFor();
  await allHaveAll();
  await picture("killed");
  await button(/^Start node-\d again$/).click();
  await page.locator("#log").getByText(/node-\d is ready/).waitFor();
});

await step("B's gateway is restarted: its devices come back", async () => {
  await button("Restart B’s gateway").click();
  await page.locator("#log").getByText(/gateway-\d is ready/).waitFor();
  await online();
  await type("after the restart");
  await allHaveAll();
});

await step("a reload loses nothing, and a second page with the same devices is refused", async () => {
  await page.reload();
  await online();
  await allHaveAll();
  await type("after the reload");
  await allHaveAll();
  const second = await context.newPage();
  await second.goto(address);
  await second.getByRole("alert").getByText(/another page has/).waitFor();
  await second.close();
});

await step("the keyboard alone will do", async () => {
  await page.getByLabel("Message to Bob").focus();
  sent.push("by keyboard");
  await page.keyboard.type("by keyboard");
  await page.keyboard.press("Enter");
  await allHaveAll();
  await page.keyboard.press("Tab");
  await page.keyboard.press("Tab");
  const focused = () => page.evaluate(() => document.activeElement?.getAttribute("aria-label"));
  assert.equal(await focused(), "Go offline: A: Alice’s phone");
  await page.keyboard.press("Space");
  const pressed = button("Go offline: A: Alice’s phone");
  assert.equal(await pressed.getAttribute("aria-pressed"), "true");
  await page.keyboard.press("Space");
  assert.equal(await pressed.getAttribute("aria-pressed"), "false");
  await online();
});

await step("it fits on a phone and on a desk, in light and in dark, and axe finds nothing", async () => {
  await page.getByText(/the servers, mean of \d+/).first().waitFor();
  await browser.fitsEverywhere();
  browser.saidNothing();
});

await browser.close();
console.log(`the page holds; pictures are in ${folder}`);
