// Where suggestions are paused: kept here, so that a server that is started again is told.
// It knows nothing of how the server is told.

import type * as vscode from "vscode";

/** A pause as the server's commands take it. */
export type Scope =
  | { scope: "everywhere" }
  | { scope: "language"; language: string }
  | { scope: "document"; uri: string };

export class Pauses {
  private everywhere = false;
  private readonly languages = new Set<string>();
  private readonly documents = new Set<string>();

  set(scope: Scope, paused: boolean): void {
    const put = (names: Set<string>, name: string) => {
      if (paused) names.add(name);
      else names.delete(name);
    };
    if (scope.scope === "language") put(this.languages, scope.language);
    else if (scope.scope === "document") put(this.documents, scope.uri);
    else {
      this.everywhere = paused;
      // What is resumed everywhere is paused nowhere, for the server too.
      if (!paused) {
        this.languages.clear();
        this.documents.clear();
      }
    }
  }

  has(scope: Scope): boolean {
    if (scope.scope === "language") return this.languages.has(scope.language);
    if (scope.scope === "document") return this.documents.has(scope.uri);
    return this.everywhere;
  }

  /** All of them. */
  all(): Scope[] {
    return [
      ...(this.everywhere ? [{ scope: "everywhere" } as const] : []),
      ...[...this.languages].map((language) => ({ scope: "language", language }) as const),
      ...[...this.documents].map((uri) => ({ scope: "document", uri }) as const),
    ];
  }

  /** Why nothing is suggested in this document. */
  reason(document: vscode.TextDocument): string | undefined {
    if (this.everywhere) return "everywhere";
    if (this.languages.has(document.languageId)) return `in ${document.languageId}`;
    return this.documents.has(document.uri.toString()) ? "in this file" : undefined;
  }
}
