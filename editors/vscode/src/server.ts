// The server's process and the connection to it: started, told of settings, started again when it ends.
// It knows nothing of the status bar or of menus; it says what happens to those who listen.

import { homedir } from "node:os";
import * as vscode from "vscode";
import {
  CloseAction,
  DidChangeConfigurationNotification,
  ErrorAction,
  ExecuteCommandRequest,
  LanguageClient,
  State,
  type ClientCapabilities,
  type ErrorHandler,
  type Executable,
  type LanguageClientOptions,
} from "vscode-languageclient/node";
import { Cursor } from "./cursor";
import { DOCUMENTS, type Options, type Places } from "./options";
import type { Pauses } from "./pauses";
import { findProgram } from "./program";
import { Refresh, type More } from "./refresh";
import type { ServerStatus } from "./status";

/** A server that keeps ending is started again so many times in so many milliseconds, and then left alone. */
const RESTARTS = 5;
const RESTARTS_WITHIN_MS = 3 * 60 * 1000;

/** Who hears of what happens. */
export interface Listener {
  status(status: ServerStatus): void;
  /** There is no program; `named` is what the settings name. */
  missing(named: string): void;
  /** The server does not run, and is not started again. */
  failed(message: string): void;
}

/** Its own boxes about a server that ended would cover ours, which say what to do; all is in the log. */
class QuietClient extends LanguageClient {
  override error(message: string, data?: unknown): void {
    super.error(message, data, false);
  }
}

export class Server {
  private client: LanguageClient | undefined;
  /** Starting and stopping take turns: each waits for the one before. */
  private turn: Promise<void> = Promise.resolve();
  /** When the server ended by itself. */
  private ends: number[] = [];
  /** What the server was told when it began. */
  private begun: Record<string, unknown> = {};
  private readonly refresh = new Refresh();
  private readonly cursor: Cursor;

  constructor(
    private readonly extension: string,
    private readonly log: vscode.LogOutputChannel,
    private readonly options: Options,
    private readonly places: Places,
    private readonly pauses: Pauses,
    private readonly listener: Listener,
  ) {
    this.cursor = new Cursor((editor) => this.rests(editor));
  }

  restart(): Promise<void> {
    this.ends = [];
    return this.inTurn(async () => {
      await this.halt();
      await this.start();
    });
  }

  stop(): Promise<void> {
    this.cursor.dispose();
    this.refresh.dispose();
    return this.inTurn(() => this.halt());
  }

  /** Tells the server what is set now. */
  async tell(): Promise<void> {
    if (this.client?.state !== State.Running) return;
    const set = this.options.read();
    // What was said at the start holds until something else is said: to take it back, begin anew.
    if (Object.keys(this.begun).some((name) => !(name in set))) return this.restart();
    try {
      await this.client.sendNotification(DidChangeConfigurationNotification.type, { settings: { taper: set } });
    } catch (error) {
      // It has just ended; the next one reads the settings when it starts.
      this.log.warn(String(error));
    }
  }

  /** Runs one of the server's commands. */
  run<T>(command: string, ...parameters: unknown[]): Promise<T> {
    if (this.client?.state !== State.Running) return Promise.reject(new Error("taper's server does not run"));
    return this.client.sendRequest(ExecuteCommandRequest.type, { command, arguments: parameters }) as Promise<T>;
  }

  get running(): boolean {
    return this.client?.state === State.Running;
  }

  private inTurn(work: () => Promise<void>): Promise<void> {
    this.turn = this.turn.then(work).catch((error: unknown) => {
      this.log.error(String(error));
    });
    return this.turn;
  }

  private async halt(): Promise<void> {
    const old = this.client;
    this.client = undefined;
    // A server that never came up, or has crashed, cannot be asked to stop.
    try {
      if (old?.state === State.Running) await old.stop(2000);
      await old?.dispose();
    } catch (error) {
      // It did not end in time, or had just ended; a new one starts all the same.
      this.log.warn(String(error));
    }
  }

  private async start(): Promise<void> {
    const settings = vscode.workspace.getConfiguration("taper");
    // Only from the user's own settings: a project names no programs.
    const own = <T>(name: string, otherwise: T) => settings.inspect<T>(name)?.globalValue ?? otherwise;
    const named = own("serverPath", "").trim();
    const command = findProgram(named, this.extension);
    if (command === undefined) {
      this.listener.missing(named);
      return;
    }
    const args = ["serve", "--stdio", ...own<string[]>("serverArguments", [])];
    // Not in the folder of a project: what the server starts must not find a project's files in its own folder.
    const server: Executable = { command, args, options: { cwd: homedir() } };
    this.log.info(`starting ${command} ${args.join(" ")}`);
    this.listener.status({ state: "loading", message: "starting" });
    const fresh: LanguageClient = new QuietClient("taper", "taper", server, this.clientOptions(() => fresh === this.client));
    fresh.registerFeature({
      fillClientCapabilities: (capabilities: ClientCapabilities) => {
        capabilities.experimental = { taper: { status: true, accepted: true, refresh: true } };
      },
      initialize: () => undefined,
      getState: () => ({ kind: "static" }),
      clear: () => undefined,
    });
    fresh.onNotification("taper/status", (status: ServerStatus) => {
      if (fresh === this.client) this.listener.status(status);
    });
    fresh.onNotification("taper/refresh", async (more: More) => {
      const document = vscode.window.activeTextEditor?.document;
      if (fresh !== this.client || document === undefined || this.silent(document)) return;
      await this.refresh.ask(more, fresh.code2ProtocolConverter.asUri(document.uri));
    });
    fresh.onDidChangeState(({ newState }) => {
      if (fresh !== this.client || newState !== State.Running) return;
      void this.resumePauses();
      this.cursor.moved(vscode.window.activeTextEditor);
    });
    this.client = fresh;
    try {
      await fresh.start();
    } catch (error) {
      this.log.error(String(error));
      // A server that ended while it started is started again by then, or was told of.
      if (fresh.state === State.StartFailed && this.ends.length === 0) {
        this.listener.failed("taper did not start; the log says why.");
      }
    }
  }

  private clientOptions(current: () => boolean): LanguageClientOptions {
    const errorHandler: ErrorHandler = {
      error: () => ({ action: ErrorAction.Continue, handled: true }),
      closed: () => {
        if (!current()) return { action: CloseAction.DoNotRestart, handled: true };
        const now = Date.now();
        this.ends = [...this.ends.filter((end) => now - end < RESTARTS_WITHIN_MS), now];
        if (this.ends.length <= RESTARTS) {
          this.listener.status({ state: "loading", message: "the server ended and is started again" });
          return { action: CloseAction.Restart, handled: true, message: "the server ended; it is started again" };
        }
        const message = `taper's server ended ${String(this.ends.length)} times in three minutes and is left alone. The log says why.`;
        this.listener.failed(message);
        return { action: CloseAction.DoNotRestart, handled: true, message };
      },
    };
    return {
      documentSelector: DOCUMENTS,
      outputChannel: this.log,
      traceOutputChannel: this.log,
      initializationOptions: () => (this.begun = this.options.read()),
      errorHandler,
      initializationFailedHandler: (error) => {
        this.log.error(String(error));
        return false;
      },
      middleware: {
        provideInlineCompletionItems: (document, position, context, token, next) => {
          if (this.places.reason(document) !== undefined) return null;
          return this.refresh.question(document, position, context, (asked) => next(document, position, asked, token));
        },
        workspace: {
          configuration: ({ items }) => items.map(({ section }) => (section === "taper" ? this.options.read() : null)),
          didChangeConfiguration: () => this.tell(),
        },
      },
    };
  }

  /** Whether nothing is suggested in a document. */
  private silent(document: vscode.TextDocument): boolean {
    return this.places.reason(document) !== undefined || this.pauses.reason(document) !== undefined;
  }

  /** Tells the server that the cursor rests, if it wants to know. */
  private async rests({ document, selection }: vscode.TextEditor): Promise<void> {
    const { client } = this;
    if (client?.state !== State.Running || vscode.languages.match(DOCUMENTS, document) === 0 || this.silent(document)) return;
    const offered = client.initializeResult?.capabilities.experimental as { taper?: { cursor?: boolean } } | undefined;
    if (offered?.taper?.cursor !== true) return;
    try {
      await client.sendNotification("taper/cursor", {
        textDocument: client.code2ProtocolConverter.asTextDocumentIdentifier(document),
        position: client.code2ProtocolConverter.asPosition(selection.active),
      });
    } catch (error) {
      // It has just ended; the next one is told anew.
      this.log.warn(String(error));
    }
  }

  /** A new server knows nothing of what was paused. */
  private async resumePauses(): Promise<void> {
    try {
      for (const scope of this.pauses.all()) await this.run("taper.pause", scope);
    } catch (error) {
      this.log.warn(String(error));
    }
  }
}
