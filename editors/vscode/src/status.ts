// The state of taper in the status bar.
// It knows nothing of how the server is reached or what the menu behind the item does.

import * as vscode from "vscode";
import { DOCUMENTS, type Places } from "./options";
import type { Pauses } from "./pauses";

/** What the server says of itself: `taper/status`. */
export interface ServerStatus {
  state: "loading" | "ready" | "thinking" | "paused" | "error";
  message?: string;
  percent?: number;
  model?: string;
  device?: string;
  kernel?: string;
}

export class Status {
  private readonly item = vscode.window.createStatusBarItem("taper.status", vscode.StatusBarAlignment.Right, 90);
  private server: ServerStatus = { state: "loading", message: "starting" };
  private readonly changes = new vscode.EventEmitter<ServerStatus>();
  /** Fires with what the server says whenever that changes. */
  readonly onChange = this.changes.event;

  constructor(
    private readonly pauses: Pauses,
    private readonly places: Places,
  ) {
    this.item.name = "taper";
    this.item.command = "taper.menu";
    this.show();
    this.item.show();
  }

  dispose(): void {
    this.item.dispose();
    this.changes.dispose();
  }

  get now(): ServerStatus {
    return this.server;
  }

  set(status: ServerStatus): void {
    this.server = status;
    this.show();
    this.changes.fire(status);
  }

  /** Draws what is true now of the server and of the document that is edited. */
  show(): void {
    const { state, message, percent } = this.server;
    const why = this.silent();
    const lasting = state === "ready" || state === "thinking";
    const shown = lasting && why !== undefined ? "paused" : state;
    const icon = { loading: "loading~spin", ready: "check", thinking: "sync~spin", paused: "debug-pause", error: "error" };
    this.item.text = `$(${icon[shown]}) taper${shown === "loading" && percent !== undefined ? ` ${String(percent)} %` : ""}`;
    const details = [this.server.model, this.server.device, this.server.kernel].filter((part) => part !== undefined);
    const said = (lasting ? why : undefined) ?? message;
    const lines = [said === undefined ? shown : `${shown}: ${said}`, ...details];
    this.item.tooltip = `taper is ${lines.join("\n")}`;
    this.item.accessibilityInformation = { label: `taper: ${lines.join(", ")}`, role: "button" };
    this.item.backgroundColor =
      shown === "error" ? new vscode.ThemeColor("statusBarItem.errorBackground") : undefined;
  }

  /** Why nothing is suggested in the document that is edited, though the server is ready. */
  private silent(): string | undefined {
    const document = vscode.window.activeTextEditor?.document;
    if (document === undefined) return undefined;
    if (vscode.languages.match(DOCUMENTS, document) === 0) return undefined;
    return this.places.reason(document) ?? this.pauses.reason(document);
  }
}
