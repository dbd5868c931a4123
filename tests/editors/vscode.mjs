// Drives a real VS Code with the packaged extension and the built server: types, accepts, saves, compares.
// It knows nothing of the server's insides.
//
// usage: vscode.mjs --code FOLDER --vsix FILE --taper BINARY --out FOLDER --script FILE [--model FILE]
//   FOLDER for --code is the one that get_vscode.sh filled; --script is for the scripted engine (drive.py --script
//   writes one). One line per check, then `N passed, N failed`.

import { spawn, spawnSync } from "node:child_process";
import fs from "node:fs";
import { createRequire } from "node:module";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";

const { values: given } = parseArgs({
  options: Object.fromEntries(["code", "vsix", "taper", "out", "script", "model"].map((name) => [name, { type: "string" }])),
});
// `--model auto` is no path.
for (const name of Object.keys(given)) if (given[name] !== "auto") given[name] = path.resolve(given[name]);
const { chromium } = createRequire(path.join(given.code, "package.json"))("playwright-core");
fs.mkdirSync(given.out, { recursive: true });

const CURSOR = "▮";
const SCRIPTED = [
  ["end of line", "sum.py", "def add(a, b):\n    ▮\n\n\nprint(add(1, 2))\n", "retu", "rn a + b"],
  ["several lines", "loop.py", "def show(n):\n    ▮\n", "for x in", " range(n):\n        print(x)"],
  ["mid-line", "call.py", "def add(a, b):\n    return a + b\n\n\nprint(▮)\n", "ad", "d(1, 2)"],
  ["not ASCII", "size.py", 'größe = "naïve 😀 日本語"; ▮\n', "pri", "nt(größe)"],
  // The server is killed before this one.
  ["after a crash", "crash.py", "def add(a, b):\n    ▮\n", "retu", "rn a + b"],
  ["CRLF", "dos.py", "def show(n):\r\n    ▮\r\n\r\n\r\nshow(3)\r\n", "for x in", " range(n):\r\n        print(x)"],
];
const MODEL = [
  [
    "model account.py",
    "account.py",
    'class Account:\n    """Money of one owner."""\n\n    def __init__(self, owner, balance=0):\n        self.owner = owner\n' +
      "        self.balance = balance\n\n    def deposit(self, amount):\n        self.balance += amount\n\n" +
      "    def withdraw(self, amount):\n        ▮\n\n\nAccount('Ada').withdraw(1)\n",
    "self.bal",
  ],
];

async function until(question, milliseconds, what) {
  const end = Date.now() + milliseconds;
  for (;;) {
    const answer = await question();
    if (answer) return answer;
    if (Date.now() > end) throw new Error(`waited ${milliseconds} ms for ${typeof what === "function" ? what() : what}`);
    await new Promise((again) => setTimeout(again, 20));
  }
}

// A `taper` with an engine or a model named, run by the extension unchanged.
function shim(folder, extra) {
  const file = path.join(folder, "taper");
  fs.mkdirSync(folder, { recursive: true });
  const quoted = extra.map((part) => `'${part}'`).join(" ");
  const log = path.join(given.out, `vscode-${path.basename(folder)}.log`);
  fs.writeFileSync(
    file,
    `#!/bin/sh\necho $$ > '${file}.pid'\nexport HOME='${os.homedir()}' XDG_CONFIG_HOME='${folder}/none'\nexec '${given.taper}' "$@" ${quoted} 2>>'${log}'\n`,
    { mode: 0o755 },
  );
  return file;
}

async function session(server, cases, checks) {
  const home = fs.mkdtempSync(path.join(os.tmpdir(), "taper-vscode-"));
  const work = path.join(home, "work");
  const user = path.join(home, "user");
  fs.mkdirSync(work);
  for (const [, file, fixture] of cases) fs.writeFileSync(path.join(work, file), fixture.replace(CURSOR, ""));
  fs.mkdirSync(path.join(user, "User"), { recursive: true });
  fs.writeFileSync(
    path.join(user, "User", "settings.json"),
    JSON.stringify({
      "taper.serverPath": server,
      "workbench.startupEditor": "none",
      "workbench.secondarySideBar.defaultVisibility": "hidden",
      "security.workspace.trust.enabled": false,
      "telemetry.telemetryLevel": "off",
      "chat.disableAIFeatures": true,
      // The popup of words would take the Tab from the ghost text.
      "editor.quickSuggestions": { other: "off", comments: "off", strings: "off" },
      "editor.wordBasedSuggestions": "off",
      "files.autoSave": "off",
      "git.enabled": false,
      "extensions.autoCheckUpdates": false,
    }),
  );
  const env = { ...process.env, HOME: home };
  const common = [
    path.join(given.code, "node_modules/code-server/out/node/entry.js"),
    ...["--user-data-dir", user, "--extensions-dir", path.join(home, "extensions")],
  ];
  const node = path.join(given.code, "node24");
  const installed = spawnSync(node, [...common, "--install-extension", given.vsix], { env, encoding: "utf8" });
  if (installed.status !== 0) throw new Error(installed.stdout + installed.stderr);
  const port = await new Promise((found) => {
    const probe = net.createServer().listen(0, "127.0.0.1", () => {
      const { port } = probe.address();
      probe.close(() => found(port));
    });
  });
  const code = spawn(
    node,
    [...common, "--auth", "none", "--bind-addr", `127.0.0.1:${port}`, "--disable-telemetry", "--disable-update-check"],
    { env, stdio: ["ignore", "pipe", "ignore"], detached: true },
  );
  let browser;
  try {
    await new Promise((listening) => code.stdout.on("data", (text) => String(text).includes("HTTP server listening") && listening()));
    browser = await chromium.launchPersistentContext(path.join(home, "browser"), {
      executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
      headless: true,
      viewport: { width: 900, height: 480 },
      args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-sync"],
    });
    const page = browser.pages()[0] ?? (await browser.newPage());
    await page.goto(`http://127.0.0.1:${port}/?folder=${work}`);
    await page.waitForSelector(".monaco-workbench .statusbar", { timeout: 90000 });
    await checks(page, work);
  } finally {
    await browser?.close();
    process.kill(-code.pid);
    await new Promise((gone) => (code.exitCode === null && code.signalCode === null ? code.on("exit", gone) : gone()));
    fs.rmSync(home, { recursive: true, force: true, maxRetries: 5 });
  }
}

const GHOST = "[class*=ghost-text]";

async function suggestion(page, work, [name, file, fixture, typed, rest]) {
  const [before, after] = fixture.split(CURSOR);
  const target = path.join(work, file);
  const lines = before.split(/\r?\n/);
  // Not quick open: its search needs a native program that the npm package lacks.
  await page.dblclick(`.explorer-folders-view .monaco-list-row:has-text("${file}")`);
  await page.waitForSelector(`.tab.active[data-resource-name="${file}"]`, { timeout: 20000 });
  await page.waitForSelector(".monaco-editor.focused", { timeout: 20000 });
  await page.keyboard.press("Control+G");
  await page.waitForSelector(".quick-input-widget input:focus");
  await page.keyboard.type(`${lines.length}:${lines.at(-1).length + 1}`);
  await page.keyboard.press("Enter");
  await page.waitForSelector(`.statusbar :text("Ln ${lines.length}, Col")`, { timeout: 20000 });
  await page.waitForSelector(".monaco-editor.focused", { timeout: 20000 });
  // The status bar counts wide characters in its own way; the end of the line is the end of the line.
  if (/^\r?\n/.test(after)) await page.keyboard.press("End");
  await page.keyboard.type(typed);
  let start = Date.now();
  for (let asked = 1; ; asked++) {
    // Neither the extension nor the model need be there yet: ask again.
    const shown = await page.waitForSelector(GHOST, { timeout: 2500, state: "attached" }).catch(() => undefined);
    if (shown) break;
    if (asked === 40) throw new Error("no ghost text");
    start = Date.now();
    await page.keyboard.press("Backspace");
    await page.keyboard.type(typed.at(-1));
  }
  const taken = Date.now() - start;
  await page.screenshot({ path: path.join(given.out, `vscode-${name.replaceAll(/[ .]/g, "-")}.png`) });
  await page.keyboard.press("Tab");
  await until(async () => (await page.$(GHOST)) === null, 5000, "the ghost text to go");
  await page.keyboard.press("Control+S");
  const saved = () => fs.readFileSync(target, "utf8");
  if (rest !== undefined) {
    const wanted = before + typed + rest + after;
    await until(() => saved() === wanted, 5000, () => `the saved file to be\n${JSON.stringify(wanted)}\nbut it is\n${JSON.stringify(saved())}`);
  } else {
    const fits = () => saved().startsWith(before + typed) && saved().endsWith(after) && saved().length > (before + typed + after).length;
    await until(fits, 5000, () => `a suggestion to be saved; the file is\n${saved()}`);
    console.log(`   ${JSON.stringify(typed)} + ${JSON.stringify(saved().slice((before + typed).length, saved().length - after.length))}`);
  }
  const parsed = spawnSync("python3", ["-c", "import sys; compile(open(sys.argv[1], 'rb').read(), sys.argv[1], 'exec')", target], { encoding: "utf8" });
  if (parsed.status !== 0) throw new Error(`the saved file does not parse: ${parsed.stderr}\n${saved()}`);
  await page.keyboard.press("Control+F4");
  return taken;
}

let passed = 0;
let failed = 0;
const bin = fs.mkdtempSync(path.join(os.tmpdir(), "taper-vscode-bin-"));
const runs = [[SCRIPTED, shim(path.join(bin, "script"), ["--engine", `scripted:${given.script}`])]];
if (given.model) runs.push([MODEL, shim(path.join(bin, "model"), ["--model", given.model])]);
for (const [cases, server] of runs) {
  await session(server, cases, async (page, work) => {
    for (const one of cases) {
      try {
        if (one[0] === "after a crash") process.kill(Number(fs.readFileSync(`${server}.pid`, "utf8")), "SIGKILL");
        console.log(`ok vscode ${one[0]} (${await suggestion(page, work, one)} ms)`);
        passed++;
      } catch (error) {
        console.log(`FAILED vscode ${one[0]}: ${error.message}`);
        await page.screenshot({ path: path.join(given.out, `vscode-failed-${failed}.png`) });
        failed++;
        await page.keyboard.press("Escape");
      }
    }
  });
}
fs.rmSync(bin, { recursive: true, force: true });
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed || !passed ? 1 : 0);
