// From a key to the visible suggestion in VS Code: milliseconds from the last key event in the page to the frame that has
// a suggestion.
//
// usage: latency.mjs --code FOLDER --vsix FILE --taper BINARY --out FOLDER [--model FILE] [--rounds N]
//   Prints a line of the table that latency.py prints for the other editors: p50, p95, the longest, how many were shown,
//   and the server's share.

import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import { Editor } from "./vscode_page.mjs";
import { shim } from "./vscode_server.mjs";

const names = ["code", "vsix", "taper", "out", "model", "rounds"];
const { values: given } = parseArgs({ options: Object.fromEntries(names.map((name) => [name, { type: "string" }])) });
for (const name of ["code", "vsix", "taper", "out", "model"]) if (given[name]) given[name] = path.resolve(given[name]);
fs.mkdirSync(given.out, { recursive: true });

const TYPED = "retu";
const beginnings = fs.readFileSync(path.join(import.meta.dirname, "beginnings.txt"), "utf8").trim().split("\n");
const rounds = Number(given.rounds ?? 40);
const lines = Array.from({ length: rounds }, (_, round) => (given.model ? beginnings[round % beginnings.length] : TYPED));

const folder = fs.mkdtempSync(path.join(os.tmpdir(), "taper-latency-"));
const said = path.join(given.out, "vscode-latency-said.log");
fs.rmSync(said, { force: true });
const goals = path.join(folder, "goals");
// Only after the last key, so that nothing is drawn before.
fs.writeFileSync(goals, `when ${TYPED}<|fim_suffix|>\nanswer rn a + b\n`);
const server = shim(given, folder, "latency", given.model ? ["--model", given.model] : ["--engine", `scripted:${goals}`], said);
const editor = await Editor.start(given, server, { width: 900, height: 480 }, (work) => {
  fs.writeFileSync(path.join(work, "keys.py"), "# Notes.\n\n\n");
});
try {
  await editor.status(/^taper: ready/, 120000);
  await editor.open("keys.py");
  await editor.goTo("# Notes.\n\n", "\n");
  const times = [];
  for (const line of lines) {
    times.push(await editor.seen(line));
    await editor.press("Escape");
    await editor.press("Shift+Home");
    await editor.press("Delete");
  }
  const shown = times.filter((time) => time !== undefined && time !== null);
  const answers = fs.readFileSync(said, "utf8").trim().split("\n").map((text) => JSON.parse(text));
  const shares = answers.filter(({ asked, result }) => asked && result?.items?.length > 0).map(({ at, since }) => 1000 * (at - since));
  const at = (all, percent) => all.toSorted((one, other) => one - other)[Math.ceil((all.length * percent) / 100) - 1]?.toFixed(0) ?? "–";
  const cells = [at(shown, 50), at(shown, 95), at(shown, 100), `${shown.length} of ${times.length}`, at(shares, 50), at(shares, 95)];
  console.log(`| vscode | ${cells.join(" | ")} |`);
} finally {
  await editor.end();
  fs.rmSync(folder, { recursive: true, force: true });
}
