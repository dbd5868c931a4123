// Asks once more where the server knows more than it answered in time: the ghost text grows.
// It knows nothing of how the server is reached.

import * as vscode from "vscode";
import { DOCUMENTS } from "./options";

/** `taper/refresh`: where, and of which version of the text, the server knows more. */
export interface More {
  textDocument: { uri: string };
  position: { line: number; character: number };
  version?: number | null;
}

/** VS Code asks within this time after it was told to, or does not at all. */
const SOON_MS = 300;
/** And it shows within this time what it was given. */
const SHOWN_MS = 100;

type Items = vscode.InlineCompletionItem[] | vscode.InlineCompletionList | null | undefined;
type Ask = (context: vscode.InlineCompletionContext) => vscode.ProviderResult<Items>;

/** A question, and what came of it. */
interface Question {
  document: vscode.TextDocument;
  version: number;
  position: vscode.Position;
  /** Somebody wanted to see it. */
  person: boolean;
  /** How many texts it was answered with. */
  shown: number;
}

export class Refresh {
  /** One refresh at a time. */
  private turn: Promise<void> = Promise.resolve();
  /** VS Code is asking because it was told to here. */
  private asking = false;
  /** Called once that question is answered. */
  private answered: (() => void) | undefined;
  private last: Question | undefined;
  private marker: vscode.Disposable | undefined;

  dispose(): void {
    this.marker?.dispose();
  }

  /** Lets VS Code ask again, if the cursor is still there and the text, known to the server as `uri`, is still the same. */
  ask(more: More, uri: string): Promise<void> {
    this.turn = this.turn.then(() => this.grow(more, uri)).catch(() => undefined);
    return this.turn;
  }

  private async grow({ textDocument, position, version }: More, uri: string): Promise<void> {
    const editor = vscode.window.activeTextEditor;
    if (editor === undefined || uri !== textDocument.uri) return;
    const { document, selection } = editor;
    if (typeof version === "number" && version !== document.version) return;
    const { active } = selection;
    if (!selection.isEmpty || active.line !== position.line || active.character !== position.character) return;
    const { last } = this;
    const here = last?.document === document && last.version === document.version && last.position.isEqual(active);
    // What a person chose among several stays; one alone may be the beginning of more.
    if (here && last.person && last.shown > 1) return;
    this.asking = true;
    // The command does not wait for what it starts, and a second one in between would go on to the one after.
    const answered = new Promise<void>((resolve) => {
      const patience = setTimeout(resolve, SOON_MS);
      this.answered = () => {
        clearTimeout(patience);
        setTimeout(resolve, SHOWN_MS);
      };
    });
    try {
      this.renew();
      // VS Code goes on to show what it shows, and puts behind it what it is given when told to ask: that is the next one.
      // And there is no next one to what was dismissed.
      const command = here && last.shown > 0 ? "showNext" : "trigger";
      await vscode.commands.executeCommand(`editor.action.inlineSuggest.${command}`);
      await answered;
    } finally {
      this.asking = false;
      this.renew();
    }
  }

  /** Passes a question on; the one that `ask` brings about was asked by no person, though VS Code takes it for one. */
  async question(
    document: vscode.TextDocument,
    position: vscode.Position,
    context: vscode.InlineCompletionContext,
    next: Ask,
  ): Promise<Items> {
    const { Automatic, Invoke } = vscode.InlineCompletionTriggerKind;
    const person = context.triggerKind === Invoke && !this.asking;
    const question: Question = { document, version: document.version, position, person, shown: 0 };
    this.last = question;
    const mine = context.triggerKind === Invoke && this.asking;
    try {
      const items = await next(person ? context : { ...context, triggerKind: Automatic });
      question.shown = items == null ? 0 : (Array.isArray(items) ? items : items.items).length;
      return items;
    } finally {
      if (mine) this.answered?.();
    }
  }

  /** Where it was told to ask once, VS Code does not ask again until something changes: a second refresh would come to
   * nothing, and a person who wants to see other suggestions would be refused. Who provides them counts as something, so
   * somebody new does, nothing. */
  private renew(): void {
    this.marker?.dispose();
    this.marker = vscode.languages.registerInlineCompletionItemProvider(DOCUMENTS, {
      provideInlineCompletionItems: () => null,
    });
  }
}
