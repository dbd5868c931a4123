// The settings of VS Code as options of the server.
// It knows nothing of what they do: package.json lists them, written from the server's own table.

import * as vscode from "vscode";
import { expandHome } from "./program";

interface Property {
  scope?: string;
}

interface Manifest {
  contributes: { configuration: { title: string; properties: Record<string, Property> }[] };
}

/** Options of the server, by name without `taper.`, and whether a project may set them. */
export class Options {
  private readonly names: { name: string; personal: boolean }[];

  constructor(manifest: unknown) {
    const { configuration } = (manifest as Manifest).contributes;
    const written = configuration.find(({ title }) => title === "Server options")?.properties ?? {};
    this.names = Object.entries(written)
      .map(([key, { scope }]) => ({ name: key.replace(/^taper\./, ""), personal: scope === "machine" }))
      // Can be set for a language or a folder: asked here, for each document.
      .filter(({ name }) => name !== "enable");
  }

  /** What the user has set, and nothing else: a default of VS Code must not hide what taper's own file says. */
  read(): Record<string, unknown> {
    const settings = vscode.workspace.getConfiguration("taper");
    const set = this.names.map(({ name, personal }): [string, unknown] => {
      const found = settings.inspect(name);
      // What can run a program, read a file or open a connection is never taken from a project.
      const value = personal ? found?.globalValue : (found?.workspaceValue ?? found?.globalValue);
      return [name, name === "model" && typeof value === "string" ? expandHome(value.trim()) : value];
    });
    return Object.fromEntries(set.filter(([, value]) => value !== undefined));
  }

  /** Whether a change of the settings concerns the server. */
  concerned(change: vscode.ConfigurationChangeEvent): boolean {
    return this.names.some(({ name }) => change.affectsConfiguration(`taper.${name}`));
  }
}

/** Documents that taper is told of: files here or on the machine that VS Code is connected to, new files, cells of
 * notebooks, files of virtual folders (GitHub Repositories, Live Share), whose text comes from VS Code alone. Not output
 * panes, commit messages or what git had before (`git:`), which have other schemes. */
export const DOCUMENTS = ["file", "untitled", "vscode-notebook-cell", "vscode-vfs", "vsls"].map((scheme) => ({ scheme }));

/** In which documents taper suggests. */
export class Places {
  /** Where VS Code keeps the user's own settings: files too, where it runs on another machine. */
  private readonly user: string;

  constructor(storage: vscode.Uri) {
    // …/User/globalStorage/taper.taper
    this.user = vscode.Uri.joinPath(storage, "..", "..").path;
  }

  /** Why nothing is suggested in a document. */
  reason(document: vscode.TextDocument): string | undefined {
    const { path } = document.uri;
    if (path.startsWith(`${this.user}/`) || path.endsWith("/.vscode/settings.json")) return "in settings";
    // May differ by folder and language, so it is asked here and not told to the server.
    if (!vscode.workspace.getConfiguration("taper", document).get<boolean>("enable", true)) {
      return "the setting taper.enable is off here";
    }
    return compared(document) ? "in comparisons" : undefined;
  }
}

/** Whether a document is shown as one side of a comparison just now. */
function compared(document: vscode.TextDocument): boolean {
  const input = vscode.window.tabGroups.activeTabGroup.activeTab?.input;
  if (!(input instanceof vscode.TabInputTextDiff)) return false;
  return [input.original, input.modified].some((side) => side.toString() === document.uri.toString());
}
