// Virtual files, like those of GitHub Repositories and Live Share: a small extension made here keeps them in memory.

import fs from "node:fs";
import path from "node:path";
import { CURSOR, Editor } from "./vscode_page.mjs";
import { script, shim, trap, untouched } from "./vscode_server.mjs";

const FOLDER = "vscode-vfs://github/ada/tools";
const ADD = "def add(a, b):\n    ▮\n\n\nprint(add(1, 2))\n";
const SUM = "return a + b";
const SHOW = "def show(n):\n    ▮\n";
const LOOP = "for x in range(n):\n        print(x)";
const SHARED = "vsls:/~0/shared.py";
const FILES = { "sum.py": ADD, "pause.py": ADD, "compare.py": ADD, "lines.py": SHOW };

// Runs in VS Code. What is saved is written to a disk too, elsewhere, where the test reads it.
const PROVIDER = `
const vscode = require("vscode");
const fs = require("fs");
const { files, saves } = require("./files.json");
const texts = new Map(Object.entries(files).map(([name, text]) => [name, Buffer.from(text)]));
const { File, Directory } = vscode.FileType;
const missing = (uri) => vscode.FileSystemError.FileNotFound(uri);
const changes = new vscode.EventEmitter();
let time = 1;
const provider = {
  onDidChangeFile: changes.event,
  watch: () => ({ dispose() {} }),
  stat(uri) {
    const text = texts.get(uri.path);
    if (text) return { type: File, ctime: 0, mtime: time, size: text.length };
    if ([...texts.keys()].some((name) => name.startsWith(uri.path.replace(/\\/?$/, "/")))) return { type: Directory, ctime: 0, mtime: 0, size: 0 };
    throw missing(uri);
  },
  readDirectory(uri) {
    const inside = uri.path.replace(/\\/?$/, "/");
    const below = [...texts.keys()].filter((name) => name.startsWith(inside)).map((name) => name.slice(inside.length).split("/"));
    return [...new Map(below.map(([name, more]) => [name, more === undefined ? File : Directory]))];
  },
  readFile(uri) {
    if (!texts.has(uri.path)) throw missing(uri);
    return texts.get(uri.path);
  },
  writeFile(uri, text) {
    time += 1;
    texts.set(uri.path, Buffer.from(text));
    fs.writeFileSync(saves + "/" + uri.path.split("/").pop(), text);
    changes.fire([{ type: vscode.FileChangeType.Changed, uri }]);
  },
  createDirectory(uri) { throw missing(uri); },
  delete(uri) { throw missing(uri); },
  rename(uri) { throw missing(uri); },
};
exports.activate = ({ subscriptions }) => {
  for (const scheme of ["vscode-vfs", "vsls"]) subscriptions.push(vscode.workspace.registerFileSystemProvider(scheme, provider));
  const shared = () => vscode.window.showTextDocument(vscode.Uri.parse("${SHARED}"));
  subscriptions.push(vscode.commands.registerCommand("memory.shared", shared));
};
`;

/** Puts an extension there that has these files, and writes what is saved into `saves`. */
function provide(extensions, files, saves) {
  const at = path.join(extensions, "taper-test.memory-1.0.0");
  fs.mkdirSync(at);
  const manifest = {
    ...{ name: "memory", publisher: "taper-test", version: "1.0.0", engines: { vscode: "^1.91.0" }, main: "./main.js" },
    activationEvents: ["onFileSystem:vscode-vfs"],
    contributes: { commands: [{ command: "memory.shared", title: "Memory: Open the Shared File" }] },
    capabilities: { virtualWorkspaces: true, untrustedWorkspaces: { supported: true } },
  };
  fs.writeFileSync(path.join(at, "package.json"), JSON.stringify(manifest));
  fs.writeFileSync(path.join(at, "files.json"), JSON.stringify({ files, saves }));
  fs.writeFileSync(path.join(at, "main.js"), PROVIDER);
}

/** The checks in that folder. `folder` is for what they need, `check` runs and reports one. */
export async function virtual(given, folder, check) {
  const goals = path.join(folder, "virtual-goals");
  script(goals, [SUM, LOOP]);
  const server = shim(given, folder, "virtual", ["--engine", `scripted:${goals}`]);
  const evil = trap(folder, "evil-virtual");
  const editor = await Editor.start(given, server, { width: 1000, height: 900 }, (work, extensions) => {
    const written = Object.entries(FILES).map(([name, fixture]) => [`/ada/tools/src/${name}`, fixture.replace(CURSOR, "")]);
    const settings = { "taper.serverPath": evil, "taper.maxLines": 1 };
    const others = { "/ada/tools/.vscode/settings.json": JSON.stringify(settings), "/~0/shared.py": ADD.replace(CURSOR, "") };
    provide(extensions, { ...Object.fromEntries(written), ...others }, work);
    // The test may look before anything was saved.
    for (const name of [...Object.keys(FILES), "shared.py"]) fs.writeFileSync(path.join(work, name), "");
    return FOLDER;
  });
  const place = async (file) => {
    await editor.expand(file);
    return editor.place(file, FILES[file]);
  };
  const from = async (wanted) => {
    const uri = await editor.uri();
    if (uri !== wanted) throw new Error(`it is ${uri}, not ${wanted}`);
  };
  const accepted = async (file, typed, wanted, [before, after]) => {
    await editor.ask(typed);
    await editor.press("Tab");
    await editor.ghostGone();
    await editor.saved(file, before + wanted + after);
    await editor.close();
  };
  try {
    await check(editor, "virtual: ready", () => editor.status(/^taper: ready/, 60000));
    await check(editor, "virtual: suggests, and the file's keeper gets what was accepted", async () => {
      const around = await place("sum.py");
      await from(`${FOLDER}/src/sum.py`);
      await accepted("sum.py", "retu", SUM, around);
    });
    await check(editor, "virtual: the model is shown the path in the folder", async () => {
      await editor.menu("Explain the last suggestion");
      await editor.dialog(/^src\/sum\.py, python$/m);
    });
    await check(editor, "virtual: the folder's harmless settings hold", async () => {
      const around = await place("lines.py");
      await accepted("lines.py", "for x in", LOOP.split("\n")[0], around);
    });
    await check(editor, "virtual: a shared file", async () => {
      await editor.command("Memory: Open the Shared File");
      await editor.page.waitForSelector('.tab.active[data-resource-name="shared.py"]', { timeout: 20000 });
      await editor.focused();
      const [before, after] = ADD.split(CURSOR);
      await editor.goTo(before, after);
      await from(SHARED);
      await accepted("shared.py", "retu", SUM, [before, after]);
    });
    await check(editor, "virtual: paused in a file", async () => {
      await place("pause.py");
      await editor.menu("Pause here");
      await editor.status(/^taper: paused: in this file/);
      await editor.silent("retu");
      await editor.menu("Resume here");
      await editor.status(/^taper: ready/);
      await editor.ask("retu", true);
      await editor.revert();
    });
    await check(editor, "virtual: nothing in a comparison or in settings", async () => {
      await place("compare.py");
      await editor.type("q = 1");
      await editor.command("File: Compare Active File with Saved");
      await editor.page.waitForSelector(".monaco-diff-editor .modified .view-lines", { timeout: 20000 });
      await editor.page.locator(".monaco-diff-editor .editor.modified .view-line").first().click();
      await editor.press("Control+Home");
      await editor.silent("retu");
      await editor.close();
      await editor.revert();
      await editor.expand("settings.json");
      await editor.open("settings.json");
      await editor.press("Control+Home");
      await editor.silent("retu");
      await editor.revert();
    });
    await check(editor, "virtual: no program of a project's was run", () => untouched(evil));
  } finally {
    await editor.end();
  }
}
