/**
 * A gateway's live page in Debian's Chromium, against a real cluster:
 * `node live.js ADDRESS TOKEN HOME FOLDER`, where HOME is the cluster's folder.
 */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";

import { WEIGHT_MAX, open } from "./browser.js";

const [address, token, home, folder] = process.argv.slice(2);
assert.ok(address && token && home && folder, "usage: node live.js ADDRESS TOKEN HOME FOLDER");
const cluster = (...words) => execFileSync("scripts/cluster", [...words, "--home", home]);

/** What the browser says when the gateway is gone, and nobody can keep it from saying. */
const EXPECTED_IN_FAILURES = /^Failed to load resource: (net::ERR|the server responded with a status of 401)/;

const browser = await open(folder, "live-", (url) => !url.includes("/events"), EXPECTED_IN_FAILURES);
const { page, picture, step } = browser;

const news = (pattern) => page.locator("#news li").filter({ hasText: pattern }).first().waitFor();
const verdict = (pattern) => page.locator("#verdict").filter({ hasText: pattern }).waitFor();
const gateways = (count) => page.waitForFunction((it) => document.querySelectorAll("#gateway-rows tr").length === it, count);
const rows = () => page.locator("#rows tr");

async function enter(text) {
  await page.getByLabel("Admin token").fill(text);
  await page.keyboard.press("Enter");
}

/** A frame with the Hello of a device whose cursor is above the head of its mailbox, which is new. */
function impossible(user, token) {
  const varint = (number) => (number < 128 ? [number] : [number % 128 | 128, ...varint(number >> 7)]);
  const bytes = (field, content) => [field << 3 | 2, ...varint(content.length), ...content];
  const text = (field, value) => bytes(field, new TextEncoder().encode(value));
  const number = (field, value) => [field << 3, ...varint(value)];
  const hello = [...text(2, token), ...text(3, user), ...text(4, "phone"), ...number(5, 1), ...number(6, 1_000)];
  return bytes(1, hello);
}

await step("the page loads under its strict policy, and shows nothing without a token", async () => {
  const response = await page.goto(address);
  assert.match(response.headers()["content-security-policy"], /^default-src 'none'; script-src 'self';/);
  assert.equal(await page.locator("#shown").isHidden(), true);
  const weight = await browser.weight();
  assert.ok(weight > 25_000 && weight < WEIGHT_MAX, `it weighs ${weight} bytes`);
  await enter("nonsense");
  await page.getByText(/^refused: /).waitFor();
});

await step("with an operator's token every shard has one leader", async () => {
  await enter(token);
  await page.getByText("live", { exact: true }).waitFor();
  await rows().nth(8).waitFor();
  // The control group is the ninth.
  await page.waitForFunction(() => document.querySelectorAll("#rows .leads").length === 9);
  assert.equal(await page.locator("#rows .leads").count(), 9);
  assert.equal(await page.getByLabel("led all the time").count(), 9);
  await picture("calm");
});

await step("nothing is lost at any node or gateway, and every gateway tells of itself", async () => {
  await verdict(/is 0 at all 3 nodes and 2 gateways/);
  assert.equal(await page.locator("#verdict.well").count(), 1);
  assert.deepEqual(await page.locator("#gateway-rows td:nth-child(2)").allInnerTexts(), ["answers", "answers"]);
});

await step("a leader that is killed is a gap in the shards that it led, with its length", async () => {
  const shard = rows().filter({ hasText: "shard 3" });
  const column = await shard.locator("td span").evaluateAll((cells) => cells.findIndex((it) => it.className === "leads"));
  const led = await rows().evaluateAll((all, at) => all
    .filter((row) => row.querySelectorAll("td span")[at].className === "leads")
    .map((row) => row.querySelector("th").textContent), column);
  cluster("kill-leader", "--shard", "3");
  await news(/^.*node \d does not answer$/);
  await news(/shard 3: node \d leads in term \d+, after .* without a leader/);
  await page.waitForFunction((at) => [...document.querySelectorAll("#rows tr")]
    .every((row) => row.querySelectorAll("td span")[at].className === "gone"), column);
  await page.waitForFunction(() => document.querySelectorAll("#rows .leads").length === 9);
  const gaps = await rows().filter({ has: page.getByLabel(/without a leader for/) }).locator("th").allInnerTexts();
  assert.ok(gaps.includes("shard 3"), gaps.join());
  assert.deepEqual(gaps.filter((name) => !led.includes(name)), [], "others have no gap");
  await verdict(`node ${column + 1} cannot be asked`);
  await picture("killed");
  cluster("restart", String(column + 1));
  await news(/node \d answers again/);
});

await step("a gateway that is started again is found again", async () => {
  cluster("restart", "gateway-1");
  await page.getByText("live", { exact: true }).waitFor();
  await page.waitForFunction(() => document.querySelectorAll("#rows .leads").length === 9);
});

await step("the other gateway is seen to go, and to come back", async () => {
  cluster("kill", "gateway-2");
  await news(/^.*gateway \S+ does not answer$/);
  await page.locator("#gateway-rows td.bad").filter({ hasText: "does not answer" }).waitFor();
  // The nodes forget it in the end.
  await news(/^.*gateway \S+ has gone$/);
  await gateways(1);
  cluster("restart", "gateway-2");
  await news(/^.*gateway \S+ is there$/);
  await gateways(2);
});

await step("it fits on a phone and on a desk, in light and in dark, and axe finds nothing", async () => {
  await browser.fitsEverywhere();
  browser.saidNothing();
});

await step("what never must happen is told, and where it did", async () => {
  const make = ["--key", `${home}/keys/local.hs256`, "token", "make", "--role", "device", "--user", "mallory"];
  const device = execFileSync(`${process.env.TIDEMARK_BIN}/tidemark`, make, { encoding: "utf8" }).trim();
  await page.evaluate((frame) => new Promise((answered, failed) => {
    const socket = new WebSocket(`ws://${location.host}/v1/connect`, "tidemark.v1");
    socket.onopen = () => socket.send(new Uint8Array(frame));
    socket.onmessage = () => { socket.close(); answered(); };
    socket.onerror = () => failed(new Error("the gateway takes no WebSocket"));
  }), impossible("mallory", device));
  await verdict(/^Perhaps: what never must happen did, at (node \d, )+gateway \S+\. Its log says more\.$/);
  assert.ok((await page.locator("#ledger td.bad").count()) >= 2, "at a node and at the gateway");
});

await browser.close();
console.log(`the live page holds; pictures are in ${folder}`);
