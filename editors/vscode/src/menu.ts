// What the user can ask for: the menu behind the status bar item, and the same as commands.
// It knows nothing of how the server is started.

import * as path from "node:path";
import * as vscode from "vscode";
import { DOCUMENTS } from "./options";
import type { Pauses, Scope } from "./pauses";
import type { Server } from "./server";
import type { Status } from "./status";

/** The server begins to load a model that was picked in this time, or does not at all. */
const BEGIN_MS = 5000;

/** What became of suggestions in some time. */
interface Counts {
  asked: number;
  shown: number;
  accepted: number;
  partlyAccepted: number;
  typedAlong: number;
  dismissed: number;
  acceptedCharacters: number;
}

interface Statistics {
  seconds: number;
  asked: number;
  shown: number;
  empty: number;
  superseded: number;
  cancelled: number;
  p50Ms: number | null;
  p95Ms: number | null;
  /** Not where counting is switched off. */
  today?: Counts;
  allTime?: Counts & { since: string | null };
}

interface Explanation {
  path: string;
  language: string;
  text: string;
  work?: {
    promptTokens: number;
    short: boolean;
    evaluated: number;
    decoded: number;
    prefillMs: number;
    decodeMs: number;
    reason: string;
  };
}

interface Explanations {
  suggestion: Explanation | null;
  /** The last answer, if it had no text. */
  silence: Explanation | null;
}

interface Model {
  name: string;
  bytes: number;
  licence: string;
  note: string;
  here: boolean;
}

export class Menu {
  constructor(
    private readonly server: Server,
    private readonly status: Status,
    private readonly pauses: Pauses,
    private readonly log: vscode.LogOutputChannel,
  ) {}

  /** Registers every command. */
  register(): vscode.Disposable[] {
    const commands: Record<string, () => unknown> = {
      menu: () => this.open(),
      pauseHere: () => this.toggleAt("document"),
      pauseLanguage: () => this.toggleAt("language"),
      pauseEverywhere: () => this.toggle({ scope: "everywhere" }),
      pickModel: () => this.pickModel(),
      showStatistics: () => this.statistics(),
      explainLastSuggestion: () => this.explain(),
      showLog: () => {
        this.log.show();
      },
      restart: () => this.server.restart(),
      openSettings: () => vscode.commands.executeCommand("workbench.action.openSettings", "@ext:taper.taper"),
      getStarted: () => vscode.commands.executeCommand("workbench.action.openWalkthrough", "taper.taper#start", false),
      trigger: () => vscode.commands.executeCommand("editor.action.inlineSuggest.trigger"),
      acceptWord: () => vscode.commands.executeCommand("editor.action.inlineSuggest.acceptNextWord"),
      acceptLine: () => vscode.commands.executeCommand("editor.action.inlineSuggest.acceptNextLine"),
      next: () => vscode.commands.executeCommand("editor.action.inlineSuggest.showNext"),
    };
    return Object.entries(commands).map(([name, work]) =>
      vscode.commands.registerCommand(`taper.${name}`, async () => {
        try {
          await work();
        } catch (error) {
          const message = error instanceof Error ? error.message : String(error);
          this.log.error(`${name}: ${message}`);
          void vscode.window.showErrorMessage(message);
        }
      }),
    );
  }

  private async open(): Promise<void> {
    const { state, message, model, device } = this.status.now;
    const item = (label: string, command: string, description = "") => ({ label, description, command });
    const document = edited();
    const paused = (scope: Scope) => (this.pauses.has(scope) ? "$(debug-start) Resume" : "$(debug-pause) Pause");
    const items: (vscode.QuickPickItem & { command?: string })[] = [];
    if (state === "error" && message !== undefined) {
      items.push(item(`$(error) ${message}`, "showLog"), item("$(debug-restart) Try again", "restart"));
    }
    if (document !== undefined) {
      const { languageId } = document;
      const file = path.posix.basename(document.uri.path);
      items.push(
        item(`${paused(scopeOf(document, "document"))} here`, "pauseHere", file),
        item(`${paused(scopeOf(document, "language"))} in ${languageId}`, "pauseLanguage"),
      );
    }
    items.push(
      item(`${paused({ scope: "everywhere" })} everywhere`, "pauseEverywhere"),
      item("$(package) Pick a model…", "pickModel", [model, device].filter((part) => part !== undefined).join(", ")),
      item("$(question) Explain the last suggestion", "explainLastSuggestion"),
      item("$(graph) Show statistics", "showStatistics"),
      item("$(output) Show the log", "showLog"),
      item("$(gear) Open the settings", "openSettings"),
      item("$(debug-restart) Restart the server", "restart"),
    );
    const picked = await vscode.window.showQuickPick(items, { title: "taper", placeHolder: "What now?" });
    if (picked?.command === undefined) return;
    await vscode.commands.executeCommand(`taper.${picked.command}`);
    // The click took the focus away from the text.
    if (picked.command.startsWith("pause")) await vscode.commands.executeCommand("workbench.action.focusActiveEditorGroup");
  }

  private async toggleAt(kind: "document" | "language"): Promise<void> {
    const document = edited();
    if (document === undefined) throw new Error("No document is edited that taper could be paused in.");
    await this.toggle(scopeOf(document, kind));
  }

  private async toggle(scope: Scope): Promise<void> {
    const paused = !this.pauses.has(scope);
    this.pauses.set(scope, paused);
    this.status.show();
    if (paused) await vscode.commands.executeCommand("editor.action.inlineSuggest.hide");
    // A server that does not run is told when it does.
    if (this.server.running) await this.server.run(paused ? "taper.pause" : "taper.resume", scope);
  }

  private async pickModel(): Promise<void> {
    const models = await this.server.run<Model[]>("taper.models");
    const file = { label: "$(folder-opened) A GGUF file…", value: "" };
    const items = [
      { label: "auto", value: "auto", description: "the largest that this machine answers with in time" },
      ...models.map(({ name, bytes, licence, note, here }) => ({
        label: name,
        value: name,
        description: `${size(bytes)}, ${licence}, ${here ? "here" : "will be downloaded"}`,
        detail: note,
      })),
      file,
    ];
    const picked = await vscode.window.showQuickPick(items, {
      title: "taper: the model",
      placeHolder: `now: ${this.status.now.model ?? "none"}`,
      matchOnDescription: true,
    });
    if (picked === undefined) return;
    let { value } = picked;
    if (picked === file) {
      const [chosen] = (await vscode.window.showOpenDialog({ filters: { Models: ["gguf"] } })) ?? [];
      if (chosen === undefined) return;
      value = chosen.fsPath;
    }
    const settings = vscode.workspace.getConfiguration("taper");
    if (settings.inspect("model")?.globalValue === value) return;
    const loaded = this.loaded(value);
    await settings.update("model", value, vscode.ConfigurationTarget.Global);
    await loaded;
  }

  /** Shows how far the loading of a model is, from the moment that it begins to its end. */
  private loaded(model: string): Thenable<void> {
    const options = { location: vscode.ProgressLocation.Notification, title: `taper: ${model}` };
    return vscode.window.withProgress(options, (progress) => {
      let done = 0;
      return new Promise<void>((resolve) => {
        const end = () => {
          clearTimeout(patience);
          listening.dispose();
          resolve();
        };
        // The arguments of the server may name another model: then nothing is loaded.
        const patience = setTimeout(() => {
          end();
        }, BEGIN_MS);
        const listening = this.status.onChange(({ state, message, percent }) => {
          clearTimeout(patience);
          if (state !== "loading") {
            end();
            return;
          }
          const increment = Math.max(0, (percent ?? done) - done);
          done += increment;
          progress.report({ increment, ...(message === undefined ? {} : { message }) });
        });
      });
    });
  }

  private async statistics(): Promise<void> {
    const { seconds, asked, shown, empty, superseded, cancelled, p50Ms, p95Ms, today, allTime } =
      await this.server.run<Statistics>("taper.statistics");
    const times = p50Ms === null ? "no answers yet" : `half within ${String(p50Ms)} ms, 95 of 100 within ${String(p95Ms)} ms`;
    await inform("What became of suggestions", [
      ...became("Today", today),
      ...became(`Since ${allTime?.since ?? "the beginning"}`, allTime),
      `Since the server's start, ${plural(Math.round(seconds / 60), "minute")} ago`,
      `${plural(asked, "question")}: ${String(shown)} answered with text, ${String(empty)} with nothing, ` +
        `${String(superseded)} superseded, ${String(cancelled)} cancelled`,
      `answers: ${times}`,
      "",
      "Counted on this machine, sent nowhere. `taper stats` shows more.",
    ]);
  }

  private async explain(): Promise<void> {
    const { suggestion, silence } = await this.server.run<Explanations>("taper.explainLast");
    const since = silence === null ? [] : ["", "Since then, nothing:", silence.path, ...how(silence)];
    if (suggestion === null) {
      await inform("taper has not suggested anything yet", since.slice(2));
      return;
    }
    const { path: file, language, text } = suggestion;
    const lines = text.split(/\r\n|[\r\n]/);
    await inform(`taper suggested ${plural(lines.length, "line")}`, [
      [file, language].filter((part) => part !== "").join(", "),
      `“${lines[0] ?? ""}”${lines.length > 1 ? " …" : ""}`,
      ...how(suggestion),
      [this.status.now.model, this.status.now.device].filter((part) => part !== undefined).join(", "),
      ...since,
    ]);
  }
}

/** What became of suggestions, in lines. */
function became(when: string, counts: Counts | undefined): string[] {
  if (counts === undefined || counts.asked === 0) return [];
  const { shown, accepted, partlyAccepted, typedAlong, dismissed, acceptedCharacters } = counts;
  const part = (of: number) => `${String(of)}${shown === 0 ? "" : ` (${String(Math.round((of * 100) / shown))} %)`}`;
  return [
    `${when}: ${plural(shown, "suggestion")} shown`,
    `accepted ${part(accepted)}, in part ${part(partlyAccepted)}, typed along ${part(typedAlong)}, dismissed ${part(dismissed)}`,
    `${plural(acceptedCharacters, "character")} accepted`,
    "",
  ];
}

/** How an answer came about, in sentences. */
function how({ text, work }: Explanation): string[] {
  if (work === undefined) {
    const known = "It was known already that the model has nothing for this place.";
    return [text === "" ? known : "It was there already: typed along an earlier suggestion, or worked out ahead."];
  }
  const { promptTokens, short, evaluated, prefillMs, decoded, decodeMs, reason } = work;
  return [
    `The model was shown ${plural(promptTokens, "token")}${short ? " (fewer than set, to be in time)" : ""}, ` +
      `${String(evaluated)} of them new to it.`,
    `It read for ${String(prefillMs)} ms and wrote ${plural(decoded, "token")} in ${String(decodeMs)} ms.`,
    ...(reason === "" ? [] : [`How it ended: ${reason}.`]),
  ];
}

/** The document that is edited, if it is one for taper. */
function edited(): vscode.TextDocument | undefined {
  const document = vscode.window.activeTextEditor?.document;
  return document !== undefined && vscode.languages.match(DOCUMENTS, document) > 0 ? document : undefined;
}

function scopeOf(document: vscode.TextDocument, kind: "document" | "language"): Scope {
  if (kind === "language") return { scope: "language", language: document.languageId };
  return { scope: "document", uri: document.uri.toString() };
}

async function inform(message: string, lines: string[]): Promise<void> {
  await vscode.window.showInformationMessage(message, { modal: true, detail: lines.join("\n") });
}

function plural(count: number, noun: string): string {
  return `${String(count)} ${noun}${count === 1 ? "" : "s"}`;
}

function size(bytes: number): string {
  return bytes < 1e9 ? `${(bytes / 1e6).toFixed(0)} MB` : `${(bytes / 1e9).toFixed(1)} GB`;
}
