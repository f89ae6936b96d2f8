/**
 * Debian's Chromium for the tests of the pages: a page that is watched, and steps that are claims.
 *
 * Steps build on each other, as a person's do; the first one that does not hold ends the test, and the
 * folder has what the page looked like then.
 */

import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

import { chromium } from "playwright-core";

/** A step that takes longer has failed; a failover takes some seconds. */
export const PATIENCE_MS = 30_000;

/** Bytes that a page may weigh, uncompressed. */
export const WEIGHT_MAX = 200_000;

const WIDE = { width: 1440, height: 1000 };
const NARROW = { width: 390, height: 844 };

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

/**
 * A browser with one page, wide and light.
 *
 * `name` begins the names of its pictures, `isPart` says of an address whether it is one of the page's parts, which
 * have a weight, and `expected` is what the browser says when servers are gone, and nobody can keep it from saying.
 */
export async function open(folder, name, isPart, expected) {
  mkdirSync(folder, { recursive: true });
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    // A test runs as root in a container, where Chromium's sandbox does not.
    args: ["--no-sandbox"],
  });
  const context = await browser.newContext({ viewport: WIDE, colorScheme: "light" });
  context.setDefaultTimeout(PATIENCE_MS);
  const page = await context.newPage();
  const said = [];
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) said.push(message.text());
  });
  page.on("pageerror", (error) => said.push(`uncaught: ${error}`));
  const parts = [];
  page.on("response", (response) => {
    if (isPart(response.url())) parts.push(response.body());
  });
  const picture = (what) => page.screenshot({ path: join(folder, `${name}${what}.png`), fullPage: true });

  return {
    context,
    page,
    picture,
    /** What the page's console said so far. */
    said,
    /** Bytes of all parts that were loaded. */
    weight: async () => (await Promise.all(parts)).reduce((bytes, body) => bytes + body.length, 0),

    async step(claim, act) {
      const from = Date.now();
      try {
        await act();
      } catch (error) {
        await picture("failed").catch(() => {});
        const log = await page.innerText("#log, #news").catch(() => "-");
        console.error(`not so: ${claim}\nthe page's log:\n${log}`);
        throw error;
      }
      console.log(`${claim} (${((Date.now() - from) / 1000).toFixed(1)} s)`);
    },

    /** What axe finds that would be in the way of who cannot see the page, or not well. */
    async accessible() {
      await page.evaluate(AXE);
      const { violations } = await page.evaluate(() => globalThis.axe.run());
      const found = violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ target }) => target).join(", ")}`);
      assert.deepEqual(found, []);
    },

    /** On a desk and on a phone, in light and in dark: nothing sticks out to the right, axe finds nothing; a picture. */
    async fitsEverywhere() {
      for (const [what, size] of [["wide", WIDE], ["narrow", NARROW]]) {
        await page.setViewportSize(size);
        for (const colorScheme of ["light", "dark"]) {
          await page.emulateMedia({ colorScheme });
          const wide = await page.evaluate(() => document.documentElement.scrollWidth);
          assert.ok(wide <= size.width, `the page is ${wide} wide, and the screen ${size.width}`);
          await this.accessible();
          await picture(colorScheme === "light" ? what : `${what}-dark`);
        }
      }
      await page.emulateMedia({ colorScheme: "light" });
    },

    /** The console has nothing but what is expected when servers are gone. */
    saidNothing() {
      assert.deepEqual(said.filter((text) => !expected.test(text)), []);
    },

    async close() {
      await browser.close();
    },
  };
}
