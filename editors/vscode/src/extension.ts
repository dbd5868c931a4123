// Starts `taper serve --stdio` and shows what it suggests; the language client turns suggestions into ghost text.
// It knows nothing of models or of how a suggestion comes about.

import * as vscode from "vscode";
import { Menu } from "./menu";
import { Options, Places } from "./options";
import { Pauses } from "./pauses";
import { Server } from "./server";
import { Status } from "./status";

let server: Server | undefined;

export async function activate(context: vscode.ExtensionContext): Promise<void> {
  const log = vscode.window.createOutputChannel("taper", { log: true });
  const options = new Options(context.extension.packageJSON);
  const pauses = new Pauses();
  const places = new Places(context.globalStorageUri);
  const status = new Status(pauses, places);
  const started = new Server(context.extensionPath, log, options, places, pauses, {
    status: (now) => {
      status.set(now);
    },
    missing: (named) => {
      const what =
        named === ""
          ? "The program taper is not on this machine yet, or not on the PATH."
          : `The setting taper.serverPath names ${named}, which is not the full path of a program.`;
      log.error(what);
      status.set({ state: "error", message: what });
      // Not awaited: the message may stay for hours, and nothing else shall wait for it.
      void explainMissing(what);
    },
    failed: (message) => {
      log.error(message);
      status.set({ state: "error", message });
      void explainFailure(message);
    },
  });
  server = started;
  context.subscriptions.push(
    log,
    status,
    ...new Menu(started, status, pauses, log).register(),
    vscode.window.onDidChangeActiveTextEditor(() => {
      status.show();
    }),
    vscode.window.tabGroups.onDidChangeTabs(() => {
      status.show();
    }),
    vscode.workspace.onDidChangeConfiguration((change) => {
      if (["serverPath", "serverArguments"].some((key) => change.affectsConfiguration(`taper.${key}`))) {
        void started.restart();
      } else if (options.concerned(change)) void started.tell();
      status.show();
    }),
  );
  await started.restart();
}

export async function deactivate(): Promise<void> {
  await server?.stop();
}

async function explainMissing(what: string): Promise<void> {
  const picked = await vscode.window.showErrorMessage(what, "How to Get It", "Open Settings", "Try Again");
  if (picked === "How to Get It") await vscode.commands.executeCommand("taper.getStarted");
  else if (picked === "Open Settings") {
    await vscode.commands.executeCommand("workbench.action.openSettings", "taper.serverPath");
  } else if (picked === "Try Again") await server?.restart();
}

async function explainFailure(message: string): Promise<void> {
  const picked = await vscode.window.showErrorMessage(message, "Show Log", "Try Again");
  if (picked === "Show Log") await vscode.commands.executeCommand("taper.showLog");
  else if (picked === "Try Again") await server?.restart();
}
