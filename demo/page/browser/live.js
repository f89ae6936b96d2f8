/**
 * A gateway's live page in Debian's Chromium, against a real cluster:
 * `node live.js ADDRESS TOKEN HOME FOLDER`, where HOME is the cluster's folder.
 *
 * Each step is a claim; the first one that does not hold ends the test, and the folder has what the
 * page looked like then.
 */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync } from "node:fs";
import { join } from "node:path";

import { chromium } from "playwright-core";

/** A step that takes longer has failed; a failover takes some seconds. */
const PATIENCE_MS = 30_000;

/** Bytes that the page may weigh. */
const WEIGHT_MAX = 200_000;

const SIZES = [["wide", { width: 1440, height: 1000 }], ["narrow", { width: 390, height: 844 }]];

const [address, token, home, folder] = process.argv.slice(2);
assert.ok(address && token && home && folder, "usage: node live.js ADDRESS TOKEN HOME FOLDER");
mkdirSync(folder, { recursive: true });
const cluster = (...words) => execFileSync("scripts/cluster", [...words, "--home", home]);

/** What the browser says when the gateway is gone, and nobody can keep it from saying. */
const EXPECTED_IN_FAILURES = /^Failed to load resource: (net::ERR|the server responded with a status of 401)/;

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  // A test runs as root in a container, where Chromium's sandbox does not.
  args: ["--no-sandbox"],
});
const context = await browser.newContext({ viewport: SIZES[0][1], colorScheme: "light" });
context.setDefaultTimeout(PATIENCE_MS);
const page = await context.newPage();
const said = [];
page.on("console", (message) => {
  if (["error", "warning"].includes(message.type())) said.push(message.text());
});
page.on("pageerror", (error) => said.push(`uncaught: ${error}`));
let weight = 0;
page.on("response", async (response) => {
  if (!response.url().includes("/events")) weight += (await response.body().catch(() => "")).length;
});
const picture = (name) => page.screenshot({ path: join(folder, `live-${name}.png`), fullPage: true });

async function step(claim, act) {
  const from = Date.now();
  try {
    await act();
  } catch (error) {
    await picture("failed").catch(() => {});
    console.error(`not so: ${claim}`);
    throw error;
  }
  console.log(`${claim} (${((Date.now() - from) / 1000).toFixed(1)} s)`);
}

const news = (pattern) => page.locator("#news li").filter({ hasText: pattern }).first().waitFor();
const rows = () => page.locator("#rows tr");

async function enter(text) {
  await page.getByLabel("Admin token").fill(text);
  await page.keyboard.press("Enter");
}

await step("the page loads under its strict policy, and shows nothing without a token", async () => {
  const response = await page.goto(address);
  assert.match(response.headers()["content-security-policy"], /^default-src 'none'; script-src 'self';/);
  assert.equal(await page.locator("#shown").isHidden(), true);
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
  await picture("killed");
  cluster("restart", String(column + 1));
  await news(/node \d answers again/);
});

await step("a gateway that is started again is found again", async () => {
  cluster("restart", "gateway-1");
  await page.getByText("live", { exact: true }).waitFor();
  await page.waitForFunction(() => document.querySelectorAll("#rows .leads").length === 9);
});

await step("samples go on, and cost a little script each", async () => {
  const metric = async (name) => (await devtools.send("Performance.getMetrics")).metrics.find((it) => it.name === name).value;
  const devtools = await context.newCDPSession(page);
  await devtools.send("Performance.enable");
  const [script, from] = [await metric("ScriptDuration"), Date.now()];
  await page.waitForTimeout(5_000);
  const samples = (Date.now() - from) / 100;
  const each = ((await metric("ScriptDuration")) - script) * 1_000 / samples;
  console.log(`  ${each.toFixed(2)} ms of script for each sample`);
  assert.ok(each > 0);
});

await step("it fits on a phone and on a desk, in light and in dark", async () => {
  for (const [name, size] of SIZES) {
    await page.setViewportSize(size);
    const wide = await page.evaluate(() => document.documentElement.scrollWidth);
    assert.ok(wide <= size.width, `the page is ${wide} wide, and the screen ${size.width}`);
    for (const colorScheme of ["dark", "light"]) {
      await page.emulateMedia({ colorScheme });
      await page.waitForTimeout(300);
      await picture(`${name}-${colorScheme}`);
    }
  }
  assert.ok(weight > 0 && weight < WEIGHT_MAX, `${weight} bytes`);
  assert.deepEqual(said.filter((text) => !EXPECTED_IN_FAILURES.test(text)), []);
});

await browser.close();
console.log(`the live page holds; pictures are in ${folder}`);
