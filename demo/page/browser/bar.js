/**
 * What the live page costs, against a real cluster: `node bar.js ADDRESS TOKEN HOME FOLDER`, where HOME is
 * the cluster's folder and ADDRESS a gateway's HTTP port, http://HOST:PORT.
 *
 *   servers: processor time of all of them, with one watcher and without, in turns
 *   page:    script for each of 60 events in a second, and how often it draws in a frame
 *   gap:     from a leader's SIGKILL to its shards' gaps on the page
 *
 * The last line is the verdict; it fails where a bar does not hold.
 */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync, readdirSync } from "node:fs";
import { createServer } from "node:http";
import { setTimeout as after } from "node:timers/promises";

import { PATIENCE_MS, open } from "./browser.js";

/** The bars. */
const SERVERS_PERCENT = 1;
const SCRIPT_MS = 4;
const GAP_MS = 1_000;

const TURNS = 4;
const TURN_MS = 30_000;
const EVENTS_PER_SECOND = 60;
const PAGE_MS = 30_000;

const [address, token, home, folder] = process.argv.slice(2);
assert.ok(address && token && home && folder, "usage: node bar.js ADDRESS TOKEN HOME FOLDER");
const authorization = `Bearer ${token}`;
const pidOf = (name) => Number(readFileSync(`${home}/${name}.pid`, "utf8"));
const servers = readdirSync(home).filter((name) => /^(node|gateway)-\d+\.pid$/.test(name)).map((name) => name.slice(0, -4));

// ---- servers ----

const TICKS_PER_SECOND = Number(execFileSync("getconf", ["CLK_TCK"], { encoding: "utf8" }));

/** Seconds of a processor that a server has used: fields 14 and 15, where its name has no space. */
function used(server) {
  const fields = readFileSync(`/proc/${pidOf(server)}/stat`, "utf8").split(" ");
  return (Number(fields[13]) + Number(fields[14])) / TICKS_PER_SECOND;
}

/** Percent of a core that each server uses during `ms`. */
async function usage(ms) {
  const [from, before] = [performance.now(), servers.map(used)];
  await after(ms);
  const seconds = (performance.now() - from) / 1_000;
  return servers.map((server, at) => ((used(server) - before[at]) / seconds) * 100);
}

/** Reads samples as a page does, until it is told to stop; how many bytes came. */
function watcher() {
  const leaving = new AbortController();
  let bytes = 0;
  const reading = (async () => {
    const response = await fetch(`${address}/live/events`, { headers: { authorization }, signal: leaving.signal });
    assert.equal(response.status, 200);
    for await (const chunk of response.body) bytes += chunk.length;
  })().catch((error) => assert.equal(error.name, "AbortError", error));
  return async () => {
    leaving.abort();
    await reading;
    return bytes;
  };
}

async function measureServers() {
  const [with_, without] = [servers.map(() => 0), servers.map(() => 0)];
  let bytes = 0;
  for (let turn = 0; turn < TURNS; turn += 1) {
    (await usage(TURN_MS)).forEach((percent, at) => { without[at] += percent / TURNS; });
    const leave = watcher();
    (await usage(TURN_MS)).forEach((percent, at) => { with_[at] += percent / TURNS; });
    bytes += await leave();
  }
  assert.ok(bytes > 0, "the watcher saw nothing");
  servers.forEach((server, at) => {
    console.log(`  ${server}: ${without[at].toFixed(2)} % of a core, with a watcher ${with_[at].toFixed(2)} %`);
  });
  console.log(`  ${(bytes / (TURNS * TURN_MS)).toFixed(0)} kB/s to the watcher`);
  return with_.reduce((total, percent, at) => total + percent - without[at], 0);
}

// ---- the page ----

/** Another sample of the same moment: all followers are a little behind, each in its own way. */
function varied(sample) {
  const other = structuredClone(sample);
  for (const { stands } of other.nodes) {
    for (const group of stands?.groups ?? []) group[4] = Math.max(0, group[4] - Math.floor(Math.random() * 50));
  }
  return other;
}

/**
 * The gateway's page, whose samples come 60 times a second: each real one is followed by some
 * that differ from it in every follower.
 */
function faster() {
  const sent = { events: 0 };
  const server = createServer(async (request, response) => {
    const leaving = new AbortController();
    request.socket.on("close", () => leaving.abort());
    const { signal } = leaving;
    const from = await fetch(address + request.url, { headers: { authorization: request.headers.authorization ?? "" }, signal });
    const { "content-type": type, "content-security-policy": policy } = Object.fromEntries(from.headers);
    response.writeHead(from.status, { "content-type": type, ...(policy && { "content-security-policy": policy }) });
    if (!request.url.endsWith("/events")) {
      response.end(Buffer.from(await from.arrayBuffer()));
      return;
    }
    let newest = null;
    const timer = setInterval(() => {
      if (!newest) return;
      response.write(`data: ${JSON.stringify(varied(newest))}\n\n`);
      sent.events += 1;
    }, 1_000 / EVENTS_PER_SECOND);
    signal.addEventListener("abort", () => clearInterval(timer));
    try {
      let rest = "";
      for await (const text of from.body.pipeThrough(new TextDecoderStream())) {
        const parts = (rest + text).split("\n\n");
        rest = parts.pop();
        for (const part of parts) if (part.startsWith("data: ")) newest = JSON.parse(part.slice("data: ".length));
      }
    } catch { /* The page was closed. */ }
  });
  return new Promise((listening) => {
    server.listen(0, "127.0.0.1", () => listening({ server, sent, at: `http://127.0.0.1:${server.address().port}` }));
  });
}

/** Counts, in the page, how often each canvas is begun anew within one frame. */
function countDraws() {
  const draws = { most: 0, all: 0, frames: 0 };
  let frame = new Map();
  const next = () => {
    draws.frames += 1;
    frame = new Map();
    requestAnimationFrame(next);
  };
  requestAnimationFrame(next);
  const { clearRect } = CanvasRenderingContext2D.prototype;
  CanvasRenderingContext2D.prototype.clearRect = function (x, y, width, height) {
    // All of it, and not what is below a gap's length.
    if (x === 0 && y === 0) {
      const count = (frame.get(this) ?? 0) + 1;
      frame.set(this, count);
      draws.most = Math.max(draws.most, count);
      draws.all += 1;
    }
    return clearRect.call(this, x, y, width, height);
  };
  globalThis.draws = draws;
}

async function enter(page, at) {
  await page.goto(`${at}/live`);
  await page.getByLabel("Admin token").fill(token);
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.querySelectorAll("#rows .leads").length > 1
    && document.querySelectorAll("#rows .leads").length === document.querySelectorAll("#rows tr").length);
}

async function measurePage({ context, page }) {
  const { server, sent, at } = await faster();
  await enter(page, at);
  const devtools = await context.newCDPSession(page);
  await devtools.send("Performance.enable");
  const metrics = async () => Object.fromEntries((await devtools.send("Performance.getMetrics")).metrics.map((it) => [it.name, it.value]));
  const [before, events, from] = [await metrics(), sent.events, performance.now()];
  await after(PAGE_MS);
  const [later, seconds] = [await metrics(), (performance.now() - from) / 1_000];
  const came = sent.events - events;
  const each = (metric) => ((later[metric] - before[metric]) * 1_000) / came;
  console.log(`  ${(came / seconds).toFixed(0)} events/s, ${await page.locator("#rows tr").count()} groups; for each event `
    + `${each("ScriptDuration").toFixed(2)} ms of script, ${each("TaskDuration").toFixed(2)} ms of the page in all`);
  // The counting costs script itself, and so has a page of its own.
  const counted = await context.newPage();
  await counted.addInitScript(countDraws);
  await enter(counted, at);
  await after(PAGE_MS / 3);
  const { most, all, frames } = await counted.evaluate(() => globalThis.draws);
  assert.ok(all > frames / 10, "it draws nothing");
  console.log(`  ${frames} frames, in which no canvas was drawn more than ${most} times`);
  await counted.close();
  server.closeAllConnections();
  server.close();
  return { each: each("ScriptDuration"), most };
}

// ---- a gap ----

async function measureGap({ page }) {
  await enter(page, address);
  const led = await page.evaluate(() => [...document.querySelectorAll("#rows tr")].map((row) => [
    row.querySelector("th").textContent,
    [...row.querySelectorAll("td span")].findIndex((cell) => cell.className === "leads"),
  ]));
  const column = led.find(([name]) => name === "shard 0")[1];
  const concerned = led.filter(([, leader]) => leader === column).map(([name]) => name).sort();
  const seen = page.evaluate(() => new Promise((done) => {
    new MutationObserver((_, observer) => {
      if (!document.querySelector('#rows canvas[aria-label^="without a leader"]')) return;
      observer.disconnect();
      done(Date.now());
    }).observe(document.getElementById("rows"), { subtree: true, attributeFilter: ["aria-label"] });
  }));
  const killed = Date.now();
  process.kill(pidOf(`node-${column + 1}`), "SIGKILL");
  const took = await seen - killed;
  await page.waitForFunction(() => document.querySelectorAll("#rows .leads").length === document.querySelectorAll("#rows tr").length,
    null, { timeout: PATIENCE_MS });
  const gaps = await page.evaluate(() => [...document.querySelectorAll('#rows canvas[aria-label^="without a leader"]')]
    .map((canvas) => [canvas.closest("tr").querySelector("th").textContent, canvas.getAttribute("aria-label")]));
  console.log(`  gaps after ${took} ms, in ${gaps.length} of ${led.length} groups: ${gaps[0][0]} was ${gaps[0][1]}`);
  assert.deepEqual(gaps.map(([name]) => name).sort(), concerned, "gaps are where the node led, and nowhere else");
  return took;
}

const percent = await measureServers();
const browser = await open(folder, "bar-", () => false, /^Failed to load resource/);
const { each, most } = await measurePage(browser);
const gap = await measureGap(browser);
await browser.close();
const bars = [
  ["servers_percent", percent.toFixed(2), percent <= SERVERS_PERCENT],
  ["script_ms", each.toFixed(2), each <= SCRIPT_MS],
  ["draws_per_frame", most, most === 1],
  ["gap_seen_ms", gap, gap <= GAP_MS],
];
console.log(`bars: ${bars.map(([name, value, holds]) => `${name}=${value}${holds ? "" : "!"}`).join(" ")}`);
process.exitCode = bars.every(([, , holds]) => holds) ? 0 : 1;
