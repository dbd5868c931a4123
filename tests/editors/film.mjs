// Films VS Code: types real code with the real model, accepts, and records the browser as an animated picture.
// Every frame was on the screen, for the same time.
//
// usage: film.mjs --code FOLDER --vsix FILE --taper BINARY --out FOLDER --model FILE
//   As vscode.mjs. Writes OUT/typing.png, an animated PNG, through film_png.py: PYTHON names a Python that has Pillow
//   (python3 -m venv V && V/bin/pip install pillow). The picture in editors/vscode was made with
//   PYTHON=V/bin/python node tests/editors/film.mjs --code .ci/tools/vscode --vsix editors/vscode/taper.vsix
//     --taper target/release/taper --out target/film --model ~/.cache/…/qwen2.5-coder-0.5b-instruct-q4_k_m.gguf

import { spawnSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import { Editor } from "./vscode_page.mjs";
import { shim } from "./vscode_server.mjs";

const names = ["code", "vsix", "taper", "out", "model"];
const { values: given } = parseArgs({ options: Object.fromEntries(names.map((name) => [name, { type: "string" }])) });
for (const name of names) given[name] = path.resolve(given[name]);
const frames = path.join(given.out, "film");
fs.rmSync(frames, { recursive: true, force: true });
fs.mkdirSync(frames, { recursive: true });

const FILE = "account.py";
const BEFORE =
  'class Account:\n    """Money of one owner."""\n\n    def __init__(self, owner, balance=0):\n        self.owner = owner\n' +
  "        self.balance = balance\n\n    def deposit(self, amount):\n        self.balance += amount\n\n    ";
// \t accepts what is shown once something is, \n is Enter, < takes a level of indentation back.
const SCRIPT = ["def with", "\t", "\n", "\n", "<", "<", "def __st", "\t"];
const SIZE = { width: 760, height: 420 };
// The window's frame is left out.
const LOOK = {
  "editor.autoIndent": "full",
  "editor.cursorBlinking": "solid",
  "editor.stickyScroll.enabled": false,
  "editor.fontSize": 15,
  "breadcrumbs.enabled": false,
  "workbench.activityBar.location": "hidden",
  "workbench.colorTheme": "Default Dark Modern",
  "window.commandCenter": false,
  "editor.scrollbar.vertical": "hidden",
  "editor.overviewRulerBorder": false,
  "editor.hideCursorInOverviewRuler": true,
};

const folder = fs.mkdtempSync(path.join(os.tmpdir(), "taper-film-"));
const server = shim(given, folder, "film", ["--model", given.model]);
const editor = await Editor.start(given, server, SIZE, (work) => fs.writeFileSync(path.join(work, FILE), `${BEFORE}\n`), LOOK);
let number = 0;
let start = 0;
async function watch(milliseconds) {
  const end = performance.now() + milliseconds;
  do {
    const picture = await editor.page.screenshot();
    const at = Math.round(performance.now() - start);
    fs.writeFileSync(path.join(frames, `${String(number++).padStart(4, "0")}-${at}.png`), picture);
  } while (performance.now() < end);
}
try {
  await editor.status(/^taper: ready/, 120000);
  await editor.open(FILE);
  await editor.goTo(BEFORE, "\n");
  await editor.command("View: Toggle Primary Side Bar Visibility");
  await editor.focused();
  // The model's first output, before filming.
  await editor.ask("d");
  await editor.press("Backspace");
  await editor.press("Escape");
  await editor.ghostGone();
  start = performance.now();
  await watch(600);
  for (const piece of SCRIPT) {
    if (piece === "\n" || piece === "<") {
      await editor.press(piece === "<" ? "Shift+Tab" : "Enter");
      await watch(250);
      continue;
    }
    if (piece === "\t") {
      await editor.ghostShown();
      await watch(1300);
      await editor.press("Tab");
      await watch(900);
      continue;
    }
    for (const key of piece) {
      await editor.type(key);
      await watch(150);
    }
  }
  await watch(1500);
} finally {
  await editor.end();
  fs.rmSync(folder, { recursive: true, force: true });
}
const made = spawnSync(process.env.PYTHON ?? "python3", [path.join(import.meta.dirname, "film_png.py"), frames, path.join(given.out, "typing.png")], { stdio: "inherit" });
process.exit(made.status ?? 1);
