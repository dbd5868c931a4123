// One VS Code in one headless browser: keyboard and mouse input, and the visible state.

import { spawn, spawnSync } from "node:child_process";
import fs from "node:fs";
import { createRequire } from "node:module";
import net from "node:net";
import os from "node:os";
import path from "node:path";

/** Asks until the answer is true, and returns it. */
export async function until(question, milliseconds, what) {
  const end = Date.now() + milliseconds;
  for (;;) {
    const answer = await question();
    if (answer) return answer;
    if (Date.now() > end) throw new Error(`waited ${milliseconds} ms for ${typeof what === "function" ? await what() : what}`);
    await new Promise((again) => setTimeout(again, 20));
  }
}

const GHOST = '[class*="ghost-text"]';
const STATUS = '.statusbar-item [aria-label^="taper: "], .statusbar-item[aria-label^="taper: "]';
const PALETTE = ".quick-input-widget";
/** Where the cursor is in a fixture. */
export const CURSOR = "▮";

/** Puts files with a cursor into a folder. */
export function put(folder, fixtures) {
  for (const [file, fixture] of fixtures) fs.writeFileSync(path.join(folder, file), fixture.replace(CURSOR, ""));
}

export class Editor {
  /** Starts code-server with the extension installed, `server` named in the settings, and a browser that shows it. `fill`
   * puts files into the folder that is opened; all of them must fit into a window of this size. If it returns the name of a
   * workspace's file there, or the URI of another folder, that is opened instead; extensions that it puts into the second
   * folder are there from the start. `more` are settings of the user. */
  static async start(given, server, size, fill, more = {}) {
    const editor = new Editor();
    editor.out = given.out;
    editor.home = fs.mkdtempSync(path.join(os.tmpdir(), "taper-vscode-"));
    editor.work = path.join(editor.home, "work");
    fs.mkdirSync(editor.work);
    const extensions = path.join(editor.home, "extensions");
    fs.mkdirSync(extensions);
    const other = fill(editor.work, extensions) ?? editor.work;
    editor.user = path.join(editor.home, "user");
    fs.mkdirSync(path.join(editor.user, "User"), { recursive: true });
    // Settings of the machine have a file of their own where VS Code runs on a server.
    fs.mkdirSync(path.join(editor.user, "Machine"), { recursive: true });
    fs.writeFileSync(path.join(editor.user, "Machine", "settings.json"), JSON.stringify({ "taper.serverPath": server }));
    editor.basis = {
      "workbench.startupEditor": "none",
      "workbench.secondarySideBar.defaultVisibility": "hidden",
      "workbench.editor.useModal": "off",
      "security.workspace.trust.enabled": false,
      "telemetry.telemetryLevel": "off",
      "chat.disableAIFeatures": true,
      // The popup of words would take the Tab from the ghost text.
      "editor.quickSuggestions": { other: "off", comments: "off", strings: "off" },
      "editor.wordBasedSuggestions": "off",
      "editor.autoClosingBrackets": "never",
      "editor.autoClosingQuotes": "never",
      "editor.autoSurround": "never",
      "editor.autoIndent": "none",
      "editor.minimap.enabled": false,
      "files.autoSave": "off",
      "files.simpleDialog.enable": true,
      "git.enabled": false,
      "extensions.autoCheckUpdates": false,
      "window.dialogStyle": "custom",
      ...more,
    };
    fs.writeFileSync(path.join(editor.user, "User", "settings.json"), JSON.stringify(editor.basis));
    const env = { ...process.env, HOME: editor.home };
    const common = [
      path.join(given.code, "node_modules/code-server/out/node/entry.js"),
      ...["--user-data-dir", editor.user, "--extensions-dir", extensions],
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
    editor.code = spawn(
      node,
      [...common, "--auth", "none", "--bind-addr", `127.0.0.1:${port}`, "--disable-telemetry", "--disable-update-check"],
      { env, stdio: ["ignore", "pipe", "ignore"], detached: true },
    );
    try {
      await new Promise((listening, ended) => {
        editor.code.stdout.on("data", (text) => String(text).includes("HTTP server listening") && listening());
        editor.code.on("exit", () => ended(new Error("code-server ended")));
      });
      const { chromium } = createRequire(path.join(given.code, "package.json"))("playwright-core");
      editor.browser = await chromium.launchPersistentContext(path.join(editor.home, "browser"), {
        executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
        headless: true,
        viewport: size,
        args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-sync"],
      });
      editor.page = editor.browser.pages()[0] ?? (await editor.browser.newPage());
      const opened = other.endsWith(".code-workspace") ? `workspace=${path.join(editor.work, other)}` : `folder=${other}`;
      await editor.page.goto(`http://127.0.0.1:${port}/?${opened}`);
      await editor.page.waitForSelector(".monaco-workbench .statusbar", { timeout: 90000 });
    } catch (error) {
      await editor.end();
      throw error;
    }
    return editor;
  }

  async end() {
    await this.browser?.close();
    try {
      process.kill(-this.code.pid);
    } catch {
      // It has ended already.
    }
    await until(() => this.code.exitCode !== null || this.code.signalCode !== null, 20000, "code-server to end");
    fs.rmSync(this.home, { recursive: true, force: true, maxRetries: 5 });
  }

  press(key) {
    return this.page.keyboard.press(key);
  }

  type(text) {
    return this.page.keyboard.type(text);
  }

  picture(name) {
    return this.page.screenshot({ path: path.join(this.out, `vscode-${name.replaceAll(/[ ,.]+/g, "-")}.png`) });
  }

  /** After a failure: no dialogs, no editors. */
  async recover() {
    for (let presses = 0; presses < 3; presses++) await this.press("Escape");
    await this.command("View: Revert and Close Editor").catch(() => {});
    await this.command("View: Close All Editors").catch(() => {});
    const save = this.page.locator('.monaco-dialog-box .monaco-button:has-text("Don\'t Save")');
    if ((await save.count()) > 0) await save.first().click();
  }

  // Not quick open: its search needs a native program that the npm package lacks.
  doubleClick(file) {
    return this.page.dblclick(`.explorer-folders-view .monaco-list-row:has-text("${file}")`, { timeout: 20000 });
  }

  /** Opens the folders of the workspace until the file is in sight. */
  async expand(file) {
    const sought = this.page.locator(".explorer-folders-view .monaco-list-row", { hasText: file });
    const closed = this.page.locator('.explorer-folders-view .monaco-list-row[aria-level="1"][aria-expanded="false"]');
    await until(
      async () => {
        if ((await sought.count()) > 0) return true;
        if ((await closed.count()) > 0) await closed.first().click();
        return false;
      },
      20000,
      `${file} in the explorer`,
    );
  }

  async open(file) {
    await this.doubleClick(file);
    await this.page.waitForSelector(`.tab.active[data-resource-name="${file}"]`, { timeout: 20000 });
    await this.focused();
  }

  async focused() {
    await this.page.waitForSelector(".monaco-editor.focused", { timeout: 20000 });
  }

  /** Puts the cursor between the two texts. */
  async goTo(before, after) {
    const lines = before.split(/\r?\n/);
    await this.press("Control+G");
    await this.page.waitForSelector(".quick-input-widget input:focus");
    await this.type(`${lines.length}:${lines.at(-1).length + 1}`);
    await this.press("Enter");
    await this.page.waitForSelector(`.statusbar :text("Ln ${lines.length}, Col")`, { timeout: 20000 });
    await this.focused();
    // The status bar counts wide characters in its own way; the end of the line is the end of the line.
    if (/^\r?\n/.test(after)) await this.press("End");
  }

  /** Opens a file with the cursor in its place; what stands before and after it. */
  async place(file, fixture) {
    const [before, after] = fixture.split(CURSOR);
    await this.open(file);
    await this.goTo(before, after);
    return [before, after];
  }

  /** The URI of the document that is edited, as the editor itself has it. */
  uri() {
    return this.page.locator(".monaco-editor.focused").getAttribute("data-uri", { timeout: 5000 });
  }

  /** The text that is on the screen, without what is only suggested. */
  async text() {
    const lines = await this.page.evaluate(() =>
      [...document.querySelectorAll(".monaco-editor.focused .view-lines .view-line")]
        .sort((one, other) => parseFloat(one.style.top) - parseFloat(other.style.top))
        .map((line) => {
          const copy = line.cloneNode(true);
          for (const ghost of copy.querySelectorAll('[class*="ghost-text"]')) ghost.remove();
          return copy.textContent;
        }),
    );
    return lines.map((line) => line.replaceAll("\u00a0", " ").replaceAll(/[\u200b\u200c]/g, "").trimEnd()).join("\n");
  }

  /** Waits until the text on the screen has this. */
  async has(pattern) {
    await until(async () => pattern.test(await this.text()), 10000, async () => `the text to have ${pattern}; it is\n${await this.text()}`);
  }

  /** What is suggested now, its first line. */
  async ghost() {
    const parts = await this.page.locator(`.view-line ${GHOST}`).allTextContents();
    return parts.join("").replaceAll("\u00a0", " ").replaceAll("\u200b", "").replaceAll("\u200c", "");
  }

  async ghostShown() {
    await this.page.waitForSelector(GHOST, { timeout: 10000, state: "attached" });
  }

  async ghostGone() {
    await until(async () => (await this.page.$(GHOST)) === null, 10000, "the suggestion to go");
  }

  /** Types, and waits for a suggestion; types the last key anew as long as there is none: neither the extension nor the
   * model need be there yet. Milliseconds from the last key. With `again`, only types the last key again. */
  async ask(text, again = false) {
    if (again) await this.press("Backspace");
    await this.type(again ? text.at(-1) : text);
    let start = performance.now();
    for (let asked = 1; ; asked++) {
      const shown = await this.page.waitForSelector(GHOST, { timeout: 2000, state: "attached" }).catch(() => undefined);
      if (shown) return performance.now() - start;
      if (asked === 45) throw new Error("no suggestion");
      await this.press("Backspace");
      await this.type(text.at(-1));
      start = performance.now();
    }
  }

  /** Types, and returns the milliseconds from the last key, as the page hears of it, to the frame that shows a suggestion;
   * nothing if none comes within a second. */
  async seen(text) {
    await this.type(text.slice(0, -1));
    await this.press("Escape");
    await this.ghostGone();
    await this.page.evaluate((ghost) => {
      window.taperSeen = new Promise((seen) => {
        let pressed;
        const hear = () => (pressed = performance.now());
        const watch = new MutationObserver(() => {
          if (pressed === undefined || !document.querySelector(ghost)) return;
          end();
          requestAnimationFrame(() => seen(performance.now() - pressed));
        });
        const end = () => {
          watch.disconnect();
          removeEventListener("keydown", hear, true);
        };
        addEventListener("keydown", hear, true);
        watch.observe(document.body, { subtree: true, childList: true, attributes: true });
        setTimeout(() => (end(), seen(undefined)), 1000);
      });
    }, GHOST);
    await this.type(text.at(-1));
    return this.page.evaluate(() => window.taperSeen);
  }

  /** Begins to keep what every frame shows: the suggestion, its first line. */
  async film() {
    await this.page.evaluate((ghost) => {
      const plain = (text) => text.replaceAll("\u00a0", " ").replaceAll(/[\u200b\u200c]/g, "");
      const frames = [];
      const shot = () => {
        if (window.taperFilm !== frames) return;
        const line = document.querySelector(`.view-line:has(${ghost})`);
        const shown = line ? [...line.querySelectorAll(ghost)].map((part) => plain(part.textContent)).join("") : "";
        if (shown !== frames.at(-1)) frames.push(shown);
        requestAnimationFrame(shot);
      };
      window.taperFilm = frames;
      shot();
    }, GHOST);
  }

  /** What the frames showed, each that was other than the one before; ends the film. */
  async filmed() {
    return this.page.evaluate(() => {
      const frames = window.taperFilm;
      window.taperFilm = undefined;
      return frames;
    });
  }

  /** Types, and fails if anything is suggested within a second: any suggestion here comes sooner. */
  async silent(text) {
    await this.type(text);
    const shown = await this.page.waitForSelector(GHOST, { timeout: 1000, state: "attached" }).catch(() => undefined);
    if (shown) throw new Error(`something is suggested: ${await this.ghost()}`);
  }

  /** Saves; with `wanted`, waits until that is what the file has. */
  async saved(file, wanted) {
    await this.press("Control+S");
    const text = () => fs.readFileSync(path.join(this.work, file), "utf8");
    if (wanted === undefined) return;
    await until(() => text() === wanted, 10000, () => `the saved file to be\n${JSON.stringify(wanted)}\nbut it is\n${JSON.stringify(text())}`);
  }

  /** Closes the active editor. */
  async close() {
    await this.command("View: Close Editor");
  }

  /** Closes the active editor without saving. */
  revert() {
    return this.command("View: Revert and Close Editor");
  }

  /**
   * Runs a command by its title; `then` is picked in what it asks. A page that opens meanwhile takes the focus, and the
   * palette closes without having run anything: it is opened again then.
   */
  async command(title, then) {
    const input = this.page.locator(`${PALETTE} input:focus`);
    const chosen = async () => {
      await this.press("F1");
      await until(async () => (await input.count()) > 0 && (await input.inputValue()) === ">", 5000, "the command palette");
      await this.page.keyboard.insertText(title);
      await this.choose(title, 3000);
    };
    for (let left = 4; ; left -= 1) {
      try {
        await chosen();
        break;
      } catch (error) {
        if (left === 0 || (await input.count()) > 0) throw error;
      }
    }
    if (then === undefined) return this.picked(title);
    await this.pick(then);
  }

  /** Clicks the entry of a quick pick, and waits until it has gone. */
  async pick(label) {
    await this.choose(label, 10000);
    await this.picked(label);
  }

  /** Clicks the entry of a quick pick. */
  async choose(label, timeout) {
    const row = this.entry(label);
    await row.waitFor({ timeout });
    await row.click({ timeout });
  }

  /** Waits until the entry of a quick pick has gone. */
  async picked(label) {
    const gone = (timeout) => this.entry(label).waitFor({ state: "hidden", timeout });
    // A hint that opens over the row takes the click; the row is chosen all the same.
    await gone(5000).catch(async () => {
      await this.press("Enter");
      await gone(10000);
    });
  }

  entry(label) {
    return this.page.locator(`${PALETTE} .monaco-list-row`, { hasText: label }).first();
  }

  /** Opens the menu behind the status bar item and picks an entry. */
  async menu(label, picture) {
    await this.page.locator(STATUS).first().click();
    await this.page.waitForSelector(".quick-input-widget input:focus", { timeout: 10000 });
    if (picture !== undefined) await this.picture(picture);
    await this.pick(label);
  }

  /** Waits until the status bar says this of taper. */
  async status(pattern, milliseconds = 10000) {
    const said = async () => (await this.page.locator(STATUS).first().getAttribute("aria-label", { timeout: 1000 }).catch(() => "")) ?? "";
    await until(async () => pattern.test(await said()), milliseconds, async () => `the status to be ${pattern}, it is ${JSON.stringify(await said())}`);
  }

  /** Waits for a modal dialog with this text, and closes it. */
  async dialog(pattern, picture) {
    const box = this.page.locator(".monaco-dialog-box");
    await box.waitFor({ timeout: 10000 });
    const text = await box.innerText();
    if (picture !== undefined) await this.picture(picture);
    await this.press("Escape");
    await box.waitFor({ state: "detached", timeout: 10000 });
    if (!pattern.test(text)) throw new Error(`the dialog should have ${pattern}, and has ${text}`);
  }

  /** Waits for a notification with this text, and presses its button, or dismisses it. */
  async notification(pattern, picture, button) {
    const toast = this.page.locator(".notification-toast", { hasText: pattern }).first();
    await toast.waitFor({ timeout: 10000 });
    await toast.locator(".notification-list-item-message").first().click({ trial: true });
    await this.picture(picture);
    if (button !== undefined) await toast.locator(`.monaco-button:has-text("${button}")`).click();
    else await this.command("Notifications: Clear All Notifications");
  }

  /** Sets settings of the user, beside those that this needs itself, as a user does; `typed` there first must suggest
   * nothing. */
  settings(more, typed) {
    return this.write("Preferences: Open User Settings (JSON)", "User", { ...this.basis, ...more }, typed);
  }

  /** Sets the program of the server, a setting of the machine. */
  server(file) {
    return this.write("Preferences: Open Remote Settings (JSON)", "Machine", { "taper.serverPath": file });
  }

  async write(command, folder, settings, typed) {
    await this.command(command);
    await this.page.waitForSelector('.tab.active[data-resource-name="settings.json"]', { timeout: 20000 });
    await this.focused();
    await this.press("Control+A");
    await this.press("Delete");
    if (typed !== undefined) {
      await this.silent(typed);
      await this.press("Control+A");
      await this.press("Delete");
    }
    const wanted = JSON.stringify(settings);
    await this.page.keyboard.insertText(wanted);
    await this.press("Control+S");
    const saved = () => fs.readFileSync(path.join(this.user, folder, "settings.json"), "utf8");
    const same = () => saved().replaceAll(/\s/g, "") === wanted.replaceAll(/\s/g, "");
    await until(same, 10000, () => `the settings to be\n${wanted}\nthey are\n${saved()}`);
    await this.close();
  }
}
