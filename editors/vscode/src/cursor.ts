// Sees where the cursor rests although nothing was typed: a file was opened, the cursor jumped, somebody clicked.
// It knows nothing of servers.

import * as vscode from "vscode";

/** So long it has to rest. */
const REST_MS = 100;

export class Cursor {
  private readonly listening: vscode.Disposable;
  private timer: NodeJS.Timeout | undefined;
  /** The text, and its version, in which the cursor was seen last. A version that is another was typed. */
  private last: { document: vscode.TextDocument; version: number } | undefined;

  constructor(private readonly rests: (editor: vscode.TextEditor) => unknown) {
    this.listening = vscode.Disposable.from(
      vscode.window.onDidChangeTextEditorSelection(({ textEditor }) => {
        if (textEditor === vscode.window.activeTextEditor) this.moved(textEditor);
      }),
      vscode.window.onDidChangeActiveTextEditor((editor) => {
        this.last = undefined;
        this.moved(editor);
      }),
      vscode.workspace.onDidChangeTextDocument(({ document }) => {
        // Typed before it rested: the question that comes with the key says more.
        if (document === this.last?.document) clearTimeout(this.timer);
      }),
    );
  }

  dispose(): void {
    clearTimeout(this.timer);
    this.listening.dispose();
  }

  /** The cursor is somewhere else, or somebody new wants to know where it is. */
  moved(editor: vscode.TextEditor | undefined): void {
    clearTimeout(this.timer);
    if (editor === undefined) return;
    const { document, selection } = editor;
    const { version } = document;
    const typed = this.last?.document === document && this.last.version !== version;
    this.last = { document, version };
    if (typed || !selection.isEmpty) return;
    this.timer = setTimeout(() => {
      const still = editor === vscode.window.activeTextEditor && editor.selection.isEqual(selection);
      if (still && document.version === version) this.rests(editor);
    }, REST_MS);
  }
}
