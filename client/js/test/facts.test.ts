/** Facts that live elsewhere in the repository, and are compared with what is written here. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { answerOf, isDefinite } from "../src/engine/answer.js";
import { ErrorCode } from "../src/gen/tidemark/v1/error_pb.js";
import * as limits from "../src/limits.js";

const ROOT = new URL("../../../../", import.meta.url);

function read(path: string): string {
  return readFileSync(new URL(path, ROOT), "utf8");
}

test("limits are those of the servers", () => {
  const text = read("types/src/limits.rs");
  const found = [...text.matchAll(/^pub const (\w+): \w+ = ([\d_* ]+);/gm)];
  const product = (factors: string): number =>
    factors.split("*").reduce((product, factor) => product * Number(factor.replaceAll("_", "")), 1);
  const servers = new Map(found.map(([, name = "", value = ""]) => [name, product(value)]));
  for (const name of ["NAME_BYTES_MAX", "RECIPIENTS_MAX", "BODY_BYTES_MAX", "SEND_WINDOW", "SEND_WINDOW_BYTES", "LABEL_BYTES_MAX"] as const) {
    assert.equal(limits[name], servers.get(name), name);
  }
  const hello = read("proto/src/hello.rs");
  const agent = /pub const AGENT_BYTES_MAX: usize = (\d+);/.exec(hello);
  assert.equal(limits.AGENT_BYTES_MAX, Number(agent?.[1]));
});

test("what a code says of a send is what docs/errors.md says of it", () => {
  const rows = [...read("docs/errors.md").matchAll(/^\| (\d+) \| `(\w+)` \| `\w+` \| (yes)? *\| (?:yes)? *\| (yes)? *\|/gm)];
  const codes = Object.values(ErrorCode).filter((code) => typeof code === "number" && code > 0);
  assert.equal(rows.length, codes.length, "every code has a row");
  for (const [, number, name = "", retry, final] of rows) {
    const code = Number(number) as ErrorCode;
    assert.equal(ErrorCode[code], name);
    const answer = answerOf({ code, message: "", lastN: 1n });
    assert.equal(isDefinite(answer), final === "yes", name);
    if (retry === "yes") {
      assert.ok(["wait", "elsewhere"].includes(answerOf({ code, message: "" }).kind), name);
    }
  }
});
