// Starts `taper serve --stdio` and shows what it suggests; the language client turns suggestions into ghost text.
// It knows nothing of models or of how a suggestion comes about.

import { accessSync, constants, statSync } from "node:fs";
import { homedir } from "node:os";
import * as path from "node:path";
import * as vscode from "vscode";
import {
  DidChangeConfigurationNotification,
  LanguageClient,
  State,
  type Executable,
  type LanguageClientOptions,
} from "vscode-languageclient/node";

/** The settings that are options of the server; the others are about starting it. */
const OPTIONS = ["enable", "disabledLanguages", "suggest", "latencyBudgetMs", "model"];

/** Starts of a server that keeps ending, before it is left alone. */
const MAX_RESTARTS = 4;

let log: vscode.LogOutputChannel;
let status: vscode.LanguageStatusItem;
let client: LanguageClient | undefined;
/** Starting and stopping take turns: each waits for the one before. */
let turn: Promise<void> = Promise.resolve();

export async function activate(context: vscode.ExtensionContext): Promise<void> {
  log = vscode.window.createOutputChannel("taper", { log: true });
  status = vscode.languages.createLanguageStatusItem("taper", [{ scheme: "file" }, { scheme: "untitled" }]);
  status.name = "taper";
  status.command = { command: "taper.showLog", title: "Show Log" };
  context.subscriptions.push(
    log,
    status,
    vscode.commands.registerCommand("taper.restart", restart),
    vscode.commands.registerCommand("taper.showLog", () => {
      log.show();
    }),
    vscode.workspace.onDidChangeConfiguration((change) => {
      const changed = (key: string) => change.affectsConfiguration(`taper.${key}`);
      if (["serverPath", "serverArguments"].some(changed)) void restart();
      else if (OPTIONS.some(changed)) void inTurn(tell);
    }),
  );
  await restart();
}

export async function deactivate(): Promise<void> {
  await inTurn(stop);
}

function restart(): Promise<void> {
  return inTurn(async () => {
    await stop();
    await start();
  });
}

function inTurn(work: () => Promise<void>): Promise<void> {
  turn = turn.then(work).catch((error: unknown) => {
    log.error(String(error));
  });
  return turn;
}

async function stop(): Promise<void> {
  const old = client;
  client = undefined;
  // A server that never came up, or has crashed, cannot be asked to stop.
  if (old?.state === State.Running) await old.stop(2000);
  await old?.dispose();
}

/** What the user has set, and nothing else: a default of VS Code must not hide what taper's own file says. */
function serverOptions(): Record<string, unknown> {
  const settings = vscode.workspace.getConfiguration("taper");
  return Object.fromEntries(
    OPTIONS.map((key): [string, unknown] => {
      const set = settings.inspect(key);
      const value = set?.workspaceFolderValue ?? set?.workspaceValue ?? set?.globalValue;
      return [key, key === "model" && typeof value === "string" ? expandHome(value.trim()) : value];
    }).filter(([, value]) => value !== undefined),
  );
}

/** Tells the server what is set now. */
async function tell(): Promise<void> {
  if (client?.state !== State.Running) return;
  await client.sendNotification(DidChangeConfigurationNotification.type, { settings: { taper: serverOptions() } });
}

async function start(): Promise<void> {
  const settings = vscode.workspace.getConfiguration("taper");
  const named = settings.get<string>("serverPath", "").trim();
  const command = findServer(named);
  if (command === undefined) {
    // Not awaited: the message may stay for hours, and nothing else shall wait for it.
    void explainMissing(named);
    return;
  }
  const server: Executable = {
    command,
    args: ["serve", "--stdio", ...settings.get<string[]>("serverArguments", [])],
  };
  const options: LanguageClientOptions = {
    documentSelector: [{ scheme: "file" }, { scheme: "untitled" }],
    outputChannel: log,
    traceOutputChannel: log,
    initializationOptions: serverOptions(),
    middleware: {
      workspace: {
        configuration: ({ items }) => items.map(({ section }) => (section === "taper" ? serverOptions() : null)),
        didChangeConfiguration: tell,
      },
    },
    connectionOptions: { maxRestartCount: MAX_RESTARTS },
  };
  log.info(`starting ${command} ${(server.args ?? []).join(" ")}`);
  const fresh = new LanguageClient("taper", "taper", server, options);
  fresh.onDidChangeState(({ newState }) => {
    if (fresh !== client) return;
    if (newState === State.Running) say("running", vscode.LanguageStatusSeverity.Information);
    if (newState === State.Stopped) say("stopped", vscode.LanguageStatusSeverity.Warning);
  });
  client = fresh;
  try {
    await fresh.start();
  } catch (error) {
    log.error(String(error));
    say("did not start", vscode.LanguageStatusSeverity.Error);
    void explainFailure();
  }
}

function say(text: string, severity: vscode.LanguageStatusSeverity): void {
  status.text = `taper: ${text}`;
  status.severity = severity;
}

/** The server's program: the one that the user named, else the first on the PATH, else cargo's. */
function findServer(named: string): string | undefined {
  if (named !== "") {
    const wanted = expandHome(named);
    return isProgram(wanted) ? wanted : undefined;
  }
  const name = process.platform === "win32" ? "taper.exe" : "taper";
  const folders = (process.env.PATH ?? "").split(path.delimiter).filter((folder) => path.isAbsolute(folder));
  // An editor that was not started from a shell often lacks cargo's folder in its PATH.
  return [...folders, path.join(homedir(), ".cargo", "bin")].map((folder) => path.join(folder, name)).find(isProgram);
}

function isProgram(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return statSync(file).isFile();
  } catch {
    return false;
  }
}

function expandHome(file: string): string {
  return file.replace(/^~(?=$|[\\/])/, () => homedir());
}

async function explainMissing(named: string): Promise<void> {
  const what =
    named === ""
      ? "The program taper is neither on the PATH nor in ~/.cargo/bin. Install it with `cargo install --path .` in " +
        "a copy of taper's sources, or name it in the setting taper.serverPath."
      : `The setting taper.serverPath names ${named}, which is not a program.`;
  log.error(what);
  say("not installed", vscode.LanguageStatusSeverity.Error);
  const picked = await vscode.window.showErrorMessage(what, "Open Settings", "Try Again");
  if (picked === "Open Settings") {
    await vscode.commands.executeCommand("workbench.action.openSettings", "taper.serverPath");
  } else if (picked === "Try Again") {
    await restart();
  }
}

async function explainFailure(): Promise<void> {
  const picked = await vscode.window.showErrorMessage("taper did not start; the log says why.", "Show Log", "Try Again");
  if (picked === "Show Log") log.show();
  else if (picked === "Try Again") await restart();
}
