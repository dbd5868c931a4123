// Drives a real VS Code with the packaged extension and the built server: types, accepts, saves, compares.
//
// usage: vscode.mjs --code FOLDER --vsix FILE --taper BINARY --out FOLDER [--model FILE] [--only PATTERN-OF-NAMES]
//   FOLDER for --code is the one that get_vscode.sh filled. `--model` adds the checks with a real model. One line per
//   check, then `N passed, N failed`.

import { spawnSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import { Editor, put, until } from "./vscode_page.mjs";
import { script, shim as shimIn, trap, untouched } from "./vscode_server.mjs";
import { virtual } from "./vscode_virtual.mjs";

const names = ["code", "vsix", "taper", "out", "model", "only"];
const { values: given } = parseArgs({ options: Object.fromEntries(names.map((name) => [name, { type: "string" }])) });
// `--model auto` is not a path.
for (const name of ["code", "vsix", "taper", "out"]) given[name] = path.resolve(given[name]);
if (given.model && given.model !== "auto") given.model = path.resolve(given.model);
fs.mkdirSync(given.out, { recursive: true });

const ADD = "def add(a, b):\n    ▮\n\n\nprint(add(1, 2))\n";
const SUM = "return a + b";
const LOOP = "for x in range(n):\n        print(x)";
// name, file, fixture, typed text, expected suggestion
const SUGGESTIONS = [
  ["end of line", "sum.py", ADD, "retu", "rn a + b"],
  ["several lines", "loop.py", "def show(n):\n    ▮\n", "for x in", " range(n):\n        print(x)"],
  ["mid-line", "call.py", "def add(a, b):\n    return a + b\n\n\nprint(▮)\n", "ad", "d(1, 2)"],
  ["tabs", "tabs.py", "def add(a, b):\n\t▮\n\n\nprint(add(1, 2))\n", "retu", "rn a + b"],
  ["not ASCII", "size.py", 'größe = "naïve 😀 日本語"; ▮\n', "pri", "nt(größe)"],
  ["CRLF", "dos.py", "def show(n):\r\n    ▮\r\n\r\n\r\nshow(3)\r\n", "for x in", " range(n):\r\n        print(x)"],
];
// Files of the other checks. All are there before VS Code starts, which might not see new ones.
const FILES = {
  ...Object.fromEntries(SUGGESTIONS.map(([, file, fixture]) => [file, fixture])),
  ...Object.fromEntries(
    ["word", "several", "through", "end", "away", "dismiss", "undo", "fast", "compare", "pause", "menu", "off", "crash", "outlive", "later", "remote"].map(
      (name) => [`${name}.py`, ADD],
    ),
  ),
  "keys.py": "# Notes.\n\n▮\n",
  "lines.py": "def show(n):\n    ▮\n",
  "live.py": "def show(n):\n    ▮\n",
};
// With a slow engine, the long one exceeds the latency budget.
const LONG = "return alpha + beta + gamma + delta + epsilon + zeta + eta + theta";
const SHORT = "hand_on(a)";
// Three continuations after the first four characters, best first.
const SEVERAL = ["hand_on(a)", "hand_in(b)", "hand_back(a, b)"];
const GOALS = [SUM, LOOP, SEVERAL, "add(1, 2)", "print(größe)"];
const MODEL = [
  [
    "account.py",
    'class Account:\n    """Money of one owner."""\n\n    def __init__(self, owner, balance=0):\n        self.owner = owner\n' +
      "        self.balance = balance\n\n    def deposit(self, amount):\n        self.balance += amount\n\n" +
      "    def withdraw(self, amount):\n        ▮\n\n\nAccount('Ada').withdraw(1)\n",
    "self.bal",
  ],
  [
    "greet.py",
    "def greet(name):\n    ▮\n\n\nfor name in ['Ada', 'Grace']:\n    print(greet(name))\n",
    "return f\"Hel",
  ],
];

// Beginnings of lines, for the time from a key to the visible suggestion.
const BEGINNINGS = fs.readFileSync(path.join(import.meta.dirname, "beginnings.txt"), "utf8").trim().split("\n");

const folder = fs.mkdtempSync(path.join(os.tmpdir(), "taper-vscode-bin-"));
const shim = (...of) => shimIn(given, folder, ...of);

const pid = (server) => Number(fs.readFileSync(`${server}.pid`, "utf8"));

let passed = 0;
let failed = 0;
async function check(editor, name, work) {
  if (given.only && !new RegExp(given.only).test(name)) return;
  const start = Date.now();
  try {
    const taken = (await work()) ?? Date.now() - start;
    console.log(`ok vscode ${name} (${Math.round(taken)} ms)`);
    passed++;
  } catch (error) {
    console.log(`FAILED vscode ${name}: ${error.message}`);
    await editor.picture(`failed-${failed++}`);
    await editor.recover();
  }
}

const place = (editor, file, fixture = FILES[file]) => editor.place(file, fixture);

function parses(file) {
  const code = "import sys; compile(open(sys.argv[1], 'rb').read(), sys.argv[1], 'exec')";
  const parsed = spawnSync("python3", ["-c", code, file], { encoding: "utf8" });
  if (parsed.status !== 0) throw new Error(`the saved file does not parse: ${parsed.stderr}\n${fs.readFileSync(file)}`);
}

async function suggestion(editor, [name, file, , typed, rest]) {
  const [before, after] = await place(editor, file);
  const taken = await editor.ask(typed);
  await editor.picture(name);
  await editor.press("Tab");
  await editor.ghostGone();
  await editor.saved(file, before + typed + rest + after);
  parses(path.join(editor.work, file));
  await editor.close();
  return taken;
}

/** Types `typed`, does `work` while the suggestion is shown, and compares what is saved then. */
async function with_suggestion(editor, file, typed, work, wanted) {
  const [before, after] = await place(editor, file);
  await editor.ask(typed);
  await work();
  await editor.saved(file, before + wanted + after);
  await editor.close();
}

async function scripted() {
  const goals = path.join(folder, "goals");
  script(goals, GOALS);
  // Only after the cell above.
  fs.writeFileSync(goals, `when ${SUM}\\nq = ab<|fim_suffix|>\nanswer ove(x)\n${fs.readFileSync(goals, "utf8")}`);
  const server = shim("script", ["--engine", `scripted:${goals}`]);
  const evil = trap(folder, "evil");
  const editor = await Editor.start(given, server, { width: 1000, height: 900 }, (work) => {
    put(work, Object.entries(FILES));
    // A project that names its own program.
    fs.mkdirSync(path.join(work, ".vscode"));
    fs.writeFileSync(path.join(work, ".vscode/settings.json"), JSON.stringify({ "taper.serverPath": evil, "taper.serverArguments": ["--config", "x"] }));
    fs.writeFileSync(
      path.join(work, "cells.ipynb"),
      JSON.stringify({ cells: [{ cell_type: "code", metadata: {}, execution_count: null, outputs: [], source: ["x = 1"] }, { cell_type: "markdown", metadata: {}, source: ["# words"] }, { cell_type: "code", metadata: {}, execution_count: null, outputs: [], source: [] }], metadata: { language_info: { name: "python" } }, nbformat: 4, nbformat_minor: 5 }),
    );
  });
  try {
    await check(editor, "ready", () => editor.status(/^taper: ready/, 60000));
    for (const one of SUGGESTIONS) await check(editor, one[0], () => suggestion(editor, one));

    await check(editor, "a remote folder", () =>
      with_suggestion(editor, "remote.py", "retu", async () => {
        // Else nothing of this file would show what happens in remote folders.
        const uri = await editor.uri();
        if (!/^vscode-remote:\/\/.*\/remote\.py$/.test(uri)) throw new Error(`it is ${uri}`);
        await editor.press("Tab");
        await editor.ghostGone();
      }, SUM));
    await check(editor, "a word at a time", () =>
      with_suggestion(editor, "word.py", "retu", async () => {
        await editor.press("Control+ArrowRight");
        await editor.has(/^    return$/m);
        // A blank may count as a word of its own.
        for (let more = 0; more < 3 && !/return a$/m.test(await editor.text()); more++) {
          await editor.ghostShown();
          await editor.press("Control+ArrowRight");
          await until(async () => !/return$/m.test(await editor.text()), 1000, "another word").catch(() => {});
        }
        await editor.has(/return a$/m);
        await editor.press("Escape");
      }, "return a"));
    await check(editor, "a line at a time", async () => {
      const [before, after] = await place(editor, "lines.py");
      await editor.ask("for x in");
      await editor.press("Control+ArrowDown");
      await editor.has(/^    for x in range\(n\):$/m);
      // Not Tab: where the suggestion begins with indentation, VS Code's Tab indents.
      await editor.ghostShown();
      await editor.press("Control+ArrowDown");
      await editor.ghostGone();
      await editor.saved("lines.py", before + LOOP + after);
      await editor.close();
    });
    await check(editor, "several candidates one after another", async () => {
      const [before, after] = await place(editor, "several.py");
      const typed = SEVERAL[0].slice(0, 4);
      await editor.ask(typed);
      const shows = (at) => {
        const wanted = SEVERAL[at].slice(4);
        return until(async () => (await editor.ghost()) === wanted, 5000, async () => `${wanted}; shown is ${await editor.ghost()}`);
      };
      await shows(0);
      for (const [key, at] of [["]", 1], ["]", 2], ["]", 0], ["[", 2], ["[", 1]]) {
        await editor.press(`Alt+${key}`);
        await shows(at);
        if (at === 2) await editor.picture("several");
      }
      await editor.press("Tab");
      await editor.ghostGone();
      await editor.saved("several.py", before + SEVERAL[1] + after);
      parses(path.join(editor.work, "several.py"));
      await editor.close();
    });
    await check(editor, "typed through", () =>
      with_suggestion(editor, "through.py", "retu", async () => {
        for (const key of "rn a") {
          await editor.type(key);
          if ((await editor.ghost()) === "") await editor.ghostShown();
        }
        await until(async () => (await editor.ghost()) === " + b", 5000, async () => `" + b" to be shown, not ${JSON.stringify(await editor.ghost())}`);
        await editor.press("Tab");
        await editor.ghostGone();
      }, SUM));
    await check(editor, "typed to the end", () =>
      with_suggestion(editor, "end.py", "retu", async () => {
        await editor.type("rn a + b  # the sum");
      }, `${SUM}  # the sum`));
    await check(editor, "typed away", () =>
      with_suggestion(editor, "away.py", "retu", async () => {
        await editor.type("x");
        await editor.ghostGone();
        await editor.type(" = 1");
      }, "retux = 1"));
    await check(editor, "dismissed, and Tab is Tab", () =>
      with_suggestion(editor, "dismiss.py", "retu", async () => {
        await editor.press("Escape");
        await editor.ghostGone();
        await editor.press("Tab");
        await editor.type("y");
      }, "retu    y"));
    await check(editor, "undone", () =>
      with_suggestion(editor, "undo.py", "retu", async () => {
        await editor.press("Tab");
        await editor.has(/return a \+ b$/m);
        await editor.press("Control+Z");
        await editor.has(/retu$/m);
        await editor.press("Escape");
      }, "retu"));
    await check(editor, "accepted right after fast typing", async () => {
      const [before, after] = await place(editor, "fast.py");
      await editor.ask("retu");
      await editor.page.keyboard.type("rn a");
      await editor.press("Tab");
      await editor.saved("fast.py", before + SUM + after);
      await editor.close();
    });

    await check(editor, "an untitled file", async () => {
      await editor.command("Create: New File...", "Text File");
      await editor.ask("retu");
      await editor.press("Tab");
      await editor.has(/return a \+ b$/m);
      await editor.press("Control+A");
      await editor.press("Delete");
      await editor.close();
    });
    await check(editor, "a cell of a notebook", async () => {
      await editor.doubleClick("cells.ipynb");
      const cell = editor.page.locator(".notebookOverlay .cell.code .view-lines").first();
      await cell.waitFor({ timeout: 30000 });
      await cell.click();
      await editor.press("Control+End");
      await editor.press("Enter");
      await editor.ask("retu");
      await editor.picture("notebook");
      await editor.press("Tab");
      await editor.ghostGone();
      await editor.press("Control+S");
      const saved = () => fs.readFileSync(path.join(editor.work, "cells.ipynb"), "utf8");
      await until(() => saved().includes(SUM), 5000, () => `the cell to be saved; the file is ${saved()}`);
      // The next code cell continues it.
      await editor.page.locator(".notebookOverlay .cell.code .view-lines").nth(1).click();
      await editor.ask("q = ab");
      await editor.picture("notebook-next-cell");
      await editor.press("Tab");
      await editor.ghostGone();
      await editor.press("Control+S");
      await until(() => saved().includes("q = above(x)"), 5000, () => `the next cell to be saved; the file is ${saved()}`);
      await editor.close();
    });
    await check(editor, "nothing in a comparison", async () => {
      await place(editor, "compare.py");
      await editor.type("q = 1");
      await editor.command("File: Compare Active File with Saved");
      await editor.page.waitForSelector(".monaco-diff-editor .modified .view-lines", { timeout: 20000 });
      await editor.page.locator(".monaco-diff-editor .editor.modified .view-line").first().click();
      await editor.press("Control+Home");
      await editor.silent("retu");
      await editor.close();
      await editor.saved("compare.py");
      await editor.close();
    });

    await check(editor, "paused and resumed everywhere", async () => {
      await place(editor, "pause.py");
      await editor.command("taper: Pause or Resume Everywhere");
      await editor.status(/^taper: paused/);
      await editor.silent("retu");
      await editor.picture("paused");
      await editor.command("taper: Pause or Resume Everywhere");
      await editor.status(/^taper: ready/);
      await editor.ask("retu", true);
      await editor.revert();
    });
    await check(editor, "paused in a language and in a file, by the menu", async () => {
      await place(editor, "menu.py");
      await editor.menu("Pause in python", "menu");
      await editor.status(/^taper: paused: in python/);
      await editor.silent("retu");
      await editor.menu("Resume in python");
      await editor.menu("Pause here");
      await editor.status(/^taper: paused: in this file/);
      await editor.menu("Resume here");
      await editor.status(/^taper: ready/);
      await editor.ask("retu", true);
      await editor.revert();
    });
    await check(editor, "statistics and an explanation", async () => {
      await editor.menu("Explain the last suggestion");
      await editor.dialog(/taper suggested/, "explained");
      await editor.menu("Show statistics");
      // Each check before this one that took a suggestion counts.
      await editor.dialog(/Today: [1-9]\d* suggestions shown[^]*accepted [1-9]\d* \([^]*Since 2[^]*Since the server's start/, "statistics");
    });
    await check(editor, "the models that can be picked", async () => {
      await editor.menu("Pick a model");
      await editor.page.waitForSelector('.quick-input-list-row:has-text("qwen2.5-coder-1.5b")', { timeout: 10000 });
      await editor.picture("models");
      await editor.press("Escape");
    });

    await check(editor, "settings, changed live and for one language", async () => {
      await editor.settings({ "taper.maxLines": 1 }, "retu");
      const [before, after] = await place(editor, "live.py");
      await editor.ask("for x in");
      await editor.press("Tab");
      await editor.ghostGone();
      await editor.saved("live.py", `${before}for x in range(n):${after}`);
      await editor.close();
      await editor.settings({ "[python]": { "taper.enable": false } });
      await place(editor, "off.py");
      await editor.status(/^taper: paused: the setting/);
      await editor.silent("retu");
      await editor.revert();
      await editor.settings({});
    });

    await check(editor, "the server killed while typing", async () => {
      const [before, after] = await place(editor, "crash.py");
      const first = pid(server);
      await editor.type("re");
      process.kill(first, "SIGKILL");
      await editor.type("tu");
      await until(() => pid(server) !== first, 20000, "another server");
      await editor.ask("retu", true);
      await editor.press("Tab");
      await editor.ghostGone();
      await editor.saved("crash.py", before + SUM + after);
      await editor.close();
    });
    await check(editor, "a pause outlives the server", async () => {
      await editor.command("taper: Pause or Resume Everywhere");
      await editor.status(/^taper: paused/);
      const first = pid(server);
      process.kill(first, "SIGKILL");
      await until(() => pid(server) !== first, 20000, "another server");
      await editor.status(/^taper: paused: everywhere/);
      await place(editor, "outlive.py");
      await editor.silent("retu");
      await editor.command("taper: Pause or Resume Everywhere");
      await editor.status(/^taper: ready/);
      await editor.ask("retu", true);
      await editor.revert();
    });
    await check(editor, "a server that keeps ending is left alone", async () => {
      await editor.command("taper: Restart Server");
      let last = 0;
      for (let ends = 0; ends < 6; ends++) {
        await until(() => pid(server) !== last && running(pid(server)), 20000, `server ${ends + 1}`);
        await editor.status(/^taper: ready/, 20000);
        last = pid(server);
        process.kill(last, "SIGKILL");
      }
      await editor.status(/^taper: error: .*left alone/);
      await editor.notification(/left alone/, "left-alone", "Try Again");
      await editor.status(/^taper: ready/, 20000);
    });

    await check(editor, "a model that is missing, and then comes", async () => {
      const later = path.join(folder, "later");
      const without = shim("without", ["--engine", `scripted:${later}`]);
      await editor.server(without);
      await editor.status(/^taper: error: .*later/, 20000);
      await editor.notification(/cannot suggest yet/, "no-model");
      script(later, GOALS);
      const [before, after] = await place(editor, "later.py");
      await editor.ask("retu");
      await editor.status(/^taper: ready/);
      await editor.press("Tab");
      await editor.ghostGone();
      await editor.saved("later.py", before + SUM + after);
      await editor.close();
    });
    await check(editor, "a program that is missing", async () => {
      await editor.server(path.join(folder, "nowhere"));
      await editor.status(/^taper: error: .*nowhere/);
      await editor.notification(/names .*nowhere/, "no-program", "How to Get It");
      await editor.page.waitForSelector(':text("Get started with taper")', { timeout: 20000 });
      await editor.picture("walkthrough");
      await editor.close();
      await editor.server(server);
      await editor.status(/^taper: ready/, 20000);
    });
    await check(editor, "no program of a project's was run", () => untouched(evil));
  } finally {
    await editor.end();
  }
}

/** A workspace of two folders that nobody trusts, and a server whose talk is written down. */
async function talk() {
  const said = path.join(given.out, "vscode-said.log");
  fs.rmSync(said, { force: true });
  const goals = path.join(folder, "long");
  script(goals, [LONG, SHORT, LOOP], 40);
  const server = shim("talk", ["--engine", `scripted:${goals}`], said);
  const evil = trap(folder, "evil-two");
  const editor = await Editor.start(
    given,
    server,
    { width: 1000, height: 900 },
    (work) => {
      const folders = { one: {}, two: { "taper.enable": false } };
      for (const [name, settings] of Object.entries(folders)) {
        fs.mkdirSync(path.join(work, name, ".vscode"), { recursive: true });
        fs.writeFileSync(path.join(work, name, ".vscode/settings.json"), JSON.stringify({ "taper.serverPath": evil, "taper.model": evil, ...settings }));
      }
      const names = ["grow", "choose", "rest", "lines_one", "log"];
      put(path.join(work, "one"), names.map((name) => [`${name}.py`, ADD]));
      put(path.join(work, "two"), [["off_two.py", ADD]]);
      const settings = { "taper.serverPath": evil, "taper.serverArguments": ["--model", evil], "taper.maxLines": 1 };
      fs.writeFileSync(path.join(work, "both.code-workspace"), JSON.stringify({ folders: Object.keys(folders).map((name) => ({ path: name })), settings }));
      return "both.code-workspace";
    },
    { "security.workspace.trust.enabled": true, "security.workspace.trust.startupPrompt": "never" },
  );
  // The last line may be incomplete.
  const messages = () => (fs.existsSync(said) ? fs.readFileSync(said, "utf8").split("\n").slice(0, -1).map((line) => JSON.parse(line)) : []);
  const questions = (kind) =>
    messages()
      .filter(({ method, params }) => method === "textDocument/inlineCompletion" && params.context.triggerKind === kind)
      .map(({ params }) => params.position);
  const cursors = () => messages().filter(({ method }) => method === "taper/cursor");
  /** Waits until nothing was said for a second, which is longer than anything takes to be said here. */
  const settled = async () => {
    const start = Date.now();
    await until(() => Date.now() - Math.max(start, fs.statSync(said).mtimeMs) > 1000, 20000, "the talk to end");
  };
  const put_cursor = async (file) => {
    await editor.expand(file);
    return place(editor, file, ADD);
  };
  try {
    await check(editor, "restricted: ready, by the user's own program", async () => {
      await editor.page.waitForSelector('.statusbar :text("Restricted Mode")', { timeout: 60000 });
      await editor.status(/^taper: ready/, 60000);
    });
    await check(editor, "restricted: suggests, a workspace's harmless settings hold", async () => {
      const [before, after] = await put_cursor("lines_one.py");
      await editor.ask("for x in");
      await until(async () => (await editor.ghost()) === " range(n):", 10000, async () => `the whole line; it is ${await editor.ghost()}`);
      await settled();
      await editor.press("Tab");
      await editor.ghostGone();
      await editor.saved("one/lines_one.py", `${before}for x in range(n):${after}`);
      await editor.picture("restricted");
      await editor.close();
    });
    await check(editor, "two folders, each with its settings", async () => {
      await put_cursor("off_two.py");
      await editor.status(/^taper: paused: the setting/);
      await editor.silent("retu");
      await editor.revert();
    });
    await check(editor, "the text grows where the server knows more", async () => {
      const [before, after] = await put_cursor("grow.py");
      const [asked, told] = [questions(1).length, messages().length];
      await editor.type("retu");
      await editor.film();
      await until(async () => (await editor.ghost()) === LONG.slice(4), 10000, async () => `the whole suggestion; it is ${await editor.ghost()}`);
      await settled();
      const frames = await editor.filmed();
      console.log(`   ${JSON.stringify(frames)}`);
      // Until the first response, nothing is shown.
      const shown = frames.slice(frames.findIndex((frame) => frame !== ""));
      if (shown.some((frame, at) => at > 0 && !frame.startsWith(shown[at - 1]))) throw new Error(`it did not grow in place: ${JSON.stringify(shown)}`);
      if (!messages().slice(told).some(({ method }) => method === "taper/refresh")) throw new Error("the server told of nothing: this checked nothing");
      if (questions(1).length !== asked) throw new Error("a refresh was taken for a person's question");
      await editor.press("Tab");
      await editor.ghostGone();
      await editor.saved("one/grow.py", before + LONG + after);
      await editor.close();
    });
    await check(editor, "next and previous suggestion", async () => {
      const [before, after] = await put_cursor("choose.py");
      await editor.ask(SHORT.slice(0, 4));
      await until(async () => (await editor.ghost()) === SHORT.slice(4), 10000, "the first suggestion");
      await settled();
      const asked = questions(1).length;
      await editor.press("Alt+]");
      await until(() => questions(1).length > asked, 5000, "a person's question");
      await settled();
      const { result } = messages().findLast(({ asked: question }) => question?.context.triggerKind === 1);
      const texts = (Array.isArray(result) ? result : result.items).map(({ insertText }) => insertText);
      const shows = (at) => {
        const wanted = texts.at(at % texts.length);
        return until(async () => (await editor.ghost()) === wanted, 5000, async () => `${wanted} of ${texts}; shown is ${await editor.ghost()}`);
      };
      await shows(1);
      await editor.picture("candidates");
      for (let at = 2; at <= texts.length; at++) {
        await editor.press("Alt+]");
        await shows(at);
      }
      await editor.press("Alt+[");
      await shows(texts.length - 1);
      await editor.press("Tab");
      await editor.ghostGone();
      await editor.saved("one/choose.py", before + SHORT.slice(0, 4) + texts.at(-1) + after);
      await editor.close();
    });
    await check(editor, "the server hears where the cursor rests", async () => {
      const before = cursors().length;
      await put_cursor("rest.py");
      await settled();
      const heard = cursors();
      const { textDocument, position } = heard.at(-1)?.params ?? {};
      if (heard.length === before || !textDocument.uri.endsWith("/rest.py") || position.line !== 1 || position.character !== 4) {
        throw new Error(`it heard ${JSON.stringify(heard.slice(before))}`);
      }
      await editor.type("q = 1");
      await editor.press("Enter");
      await editor.press("Shift+ArrowUp");
      await settled();
      if (cursors().length !== heard.length) throw new Error(`typed and selected, it heard ${JSON.stringify(cursors().slice(heard.length))}`);
      await editor.command("taper: Pause or Resume Everywhere");
      await editor.status(/^taper: paused/);
      await editor.press("ArrowUp");
      await settled();
      if (cursors().length !== heard.length) throw new Error("paused, it heard of the cursor");
      await editor.command("taper: Pause or Resume Everywhere");
      await editor.status(/^taper: ready/);
      await editor.revert();
    });
    await check(editor, "nothing in an output pane", async () => {
      await put_cursor("log.py");
      await editor.command("taper: Show Log");
      const pane = editor.page.locator(".output-view .view-line").first();
      await pane.waitFor({ timeout: 20000 });
      await pane.click();
      await editor.silent("retu");
      await editor.command("taper: Ask for a Suggestion");
      await settled();
      await editor.picture("output");
      const told = messages().filter(({ method }) => method === "textDocument/didOpen").map(({ params }) => params.textDocument.uri);
      const other = told.filter((uri) => !/^(file|untitled|vscode-notebook-cell):/.test(uri));
      if (other.length > 0) throw new Error(`the server was told of ${other}`);
      await editor.command("View: Toggle Panel Visibility");
      await editor.revert();
    });
    await check(editor, "restricted: no program of a project's was run", () => untouched(evil));
  } finally {
    await editor.end();
  }
}

function running(number) {
  try {
    process.kill(number, 0);
    return true;
  } catch {
    return false;
  }
}

// Once the suggestion has not changed for a while: a refresh may extend it.
async function grown(editor) {
  let shown = await editor.ghost();
  for (let since = Date.now(); Date.now() - since < 700; await new Promise((done) => setTimeout(done, 50))) {
    const now = await editor.ghost();
    if (now !== shown) [shown, since] = [now, Date.now()];
  }
}

async function model() {
  const editor = await Editor.start(given, shim("model", ["--model", given.model]), { width: 900, height: 480 }, (work) => put(work, [...MODEL, ["keys.py", FILES["keys.py"]]]));
  try {
    await check(editor, "model ready", () => editor.status(/^taper: ready/, 120000));
    for (const [file, fixture, typed] of MODEL) {
      await check(editor, `model ${file}`, async () => {
        const [before, after] = await place(editor, file, fixture);
        const taken = await editor.ask(typed);
        await grown(editor);
        await editor.picture(`model-${path.basename(file, ".py")}`);
        await editor.press("Tab");
        await editor.ghostGone();
        await editor.press("Control+S");
        const saved = () => fs.readFileSync(path.join(editor.work, file), "utf8");
        const fits = () => saved().startsWith(before + typed) && saved().endsWith(after) && saved().length > (before + typed + after).length;
        await until(fits, 5000, () => `a suggestion to be saved; the file is\n${saved()}`);
        console.log(`   ${JSON.stringify(typed)} + ${JSON.stringify(saved().slice((before + typed).length, saved().length - after.length))}`);
        parses(path.join(editor.work, file));
        await editor.close();
        return taken;
      });
    }
    await check(editor, "model from key to screen", async () => {
      await place(editor, "keys.py", FILES["keys.py"]);
      const times = [];
      for (const beginning of BEGINNINGS) {
        times.push(await editor.seen(beginning));
        await editor.press("Escape");
        await editor.press("Shift+Home");
        await editor.press("Delete");
      }
      const shown = times.filter((time) => time !== undefined && time !== null).sort((one, other) => one - other);
      const at = (percent) => Math.round(shown[Math.ceil((shown.length * percent) / 100) - 1]);
      if (shown.length < BEGINNINGS.length / 2) throw new Error(`only ${shown.length} of ${BEGINNINGS.length} were answered`);
      console.log(`   ${shown.length} of ${times.length} answered with text, p50 ${at(50)} ms, p95 ${at(95)} ms`);
      fs.writeFileSync(path.join(given.out, "vscode-keys.json"), `${JSON.stringify({ times })}\n`);
      await editor.revert();
      return at(50);
    });
    await check(editor, "model explained", async () => {
      await editor.menu("Explain the last suggestion");
      await editor.dialog(/taper suggested/, "model-explained");
    });
  } finally {
    await editor.end();
  }
}

const begun = Date.now();
await scripted();
await talk();
await virtual(given, folder, check);
if (given.model) await model();
fs.rmSync(folder, { recursive: true, force: true });
console.log(`${passed} passed, ${failed} failed, ${Math.round((Date.now() - begun) / 1000)} s`);
process.exit(failed || !passed ? 1 : 0);
