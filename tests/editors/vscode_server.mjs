// Started by VS Code in place of `taper`: the built server with an engine, a model or a listener of the test's choice.

import fs from "node:fs";
import os from "node:os";
import path from "node:path";

/** The scripted engine's file: behind every beginning of a goal, the rest of it is the answer. A goal of several texts has the
 * later ones as alternatives, where they begin alike. */
export function script(file, goals, decode = 0) {
  const written = (text) => text.replaceAll("\\", "\\\\").replaceAll("\n", "\\n").replace(/ $/, "\\s");
  const rules = goals.flatMap((texts) => {
    const [goal, ...others] = [texts].flat();
    const first = [...goal.split("\n")[0]];
    return first
      .map((_, length) => first.slice(0, length).join(""))
      .filter((before) => before.length > 1)
      .reverse()
      .map((before) => {
        const alike = others.filter((other) => other.startsWith(before));
        const or = alike.map((other) => `or ${written(other.slice(before.length))}\n`).join("");
        return `when ${written(before)}<|fim_suffix|>\nanswer ${written(goal.slice(before.length))}\n${or}`;
      });
  });
  fs.writeFileSync(file, [`decode-ms ${decode}\n`, ...rules].join(""));
}

/** A program in `folder` that a project names and that must never run. */
export function trap(folder, name) {
  const file = path.join(folder, name);
  fs.writeFileSync(file, `#!/bin/sh\ntouch '${file}.ran'\n`, { mode: 0o755 });
  return file;
}

/** Fails if a trap was run. */
export function untouched(file) {
  if (fs.existsSync(`${file}.ran`)) throw new Error(`${file} was run`);
}

/** A `taper` in `folder`, with an engine or a model named, run by the extension unchanged; it writes down its process' id. With
 * `between`, its messages and the extension's are recorded there. */
export function shim(given, folder, name, extra, between) {
  const file = path.join(folder, name, "taper");
  fs.mkdirSync(path.dirname(file));
  const quoted = extra.map((part) => `'${part}'`).join(" ");
  const log = path.join(given.out, `vscode-${name}.log`);
  const listener = between === undefined ? "" : `python3 '${path.join(import.meta.dirname, "between.py")}' '${between}' `;
  fs.writeFileSync(
    file,
    `#!/bin/sh\necho $$ > '${file}.pid'\nexport HOME='${os.homedir()}' XDG_CONFIG_HOME='${folder}/none'\nexec ${listener}'${given.taper}' "$@" ${quoted} 2>>'${log}'\n`,
    { mode: 0o755 },
  );
  return file;
}
