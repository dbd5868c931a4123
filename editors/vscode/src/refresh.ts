// Asks once more where the server knows more than it answered in time: the ghost text grows.
// It knows nothing of how the server is reached.

import * as vscode from "vscode";

/** VS Code asks within this time after it was told to, or does not at all. */
const SOON_MS = 1000;

/** `taper/refresh`: where, and of which version of the text, the server knows more. */
export interface More {
  textDocument: { uri: string };
  position: { line: number; character: number };
  version?: number | null;
}

export class Refresh {
  /** The question that is on its way. */
  private expected: { document: string; version: number; position: vscode.Position; until: number } | undefined;

  /** Lets VS Code ask again, if the cursor is still there and the text, known to the server as `uri`, is still the same. */
  async ask({ textDocument, position, version }: More, uri: string): Promise<void> {
    const editor = vscode.window.activeTextEditor;
    if (editor === undefined || uri !== textDocument.uri) return;
    const { document, selection } = editor;
    if (typeof version === "number" && version !== document.version) return;
    const { line, character } = selection.active;
    if (!selection.isEmpty || line !== position.line || character !== position.character) return;
    this.expected = {
      document: document.uri.toString(),
      version: document.version,
      position: selection.active,
      until: Date.now() + SOON_MS,
    };
    await vscode.commands.executeCommand("editor.action.inlineSuggest.trigger");
  }

  /** The context of a question: the one that `ask` brings about was asked by no person, though VS Code takes it for one. */
  context(
    document: vscode.TextDocument,
    position: vscode.Position,
    context: vscode.InlineCompletionContext,
  ): vscode.InlineCompletionContext {
    const { expected } = this;
    if (expected === undefined || context.triggerKind !== vscode.InlineCompletionTriggerKind.Invoke) return context;
    this.expected = undefined;
    const same =
      Date.now() < expected.until &&
      expected.document === document.uri.toString() &&
      expected.version === document.version &&
      expected.position.isEqual(position);
    return same ? { ...context, triggerKind: vscode.InlineCompletionTriggerKind.Automatic } : context;
  }
}
