// Finds the server's program.
// It knows nothing of what the program does.

import { accessSync, chmodSync, constants, statSync } from "node:fs";
import { homedir } from "node:os";
import * as path from "node:path";

/** The program: the one that the user named, else the one packaged beside the extension, else the first on the PATH,
 * else cargo's. */
export function findProgram(named: string, extension: string): string | undefined {
  if (named !== "") {
    const wanted = expandHome(named);
    // A relative path would mean whatever folder the editor happens to stand in.
    return path.isAbsolute(wanted) && isProgram(wanted) ? wanted : undefined;
  }
  const name = process.platform === "win32" ? "taper.exe" : "taper";
  const packaged = path.join(extension, "bin", name);
  permit(packaged);
  const folders = (process.env.PATH ?? "").split(path.delimiter).filter((folder) => path.isAbsolute(folder));
  // An editor that was not started from a shell often lacks cargo's folder in its PATH.
  const other = [...folders, path.join(homedir(), ".cargo", "bin")].map((folder) => path.join(folder, name));
  return [packaged, ...other].find(isProgram);
}

export function expandHome(file: string): string {
  return file.replace(/^~(?=$|[\\/])/, () => homedir());
}

function isProgram(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return statSync(file).isFile();
  } catch {
    return false;
  }
}

/** Some ways of installing an extension lose the permission to run what is packaged with it. */
function permit(file: string): void {
  try {
    if (statSync(file).isFile() && !isProgram(file)) chmodSync(file, 0o755);
  } catch {
    // There is none, or it is not ours to change: then it is not found.
  }
}
