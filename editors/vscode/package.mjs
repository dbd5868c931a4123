// Packages the extension.
//
// usage: node package.mjs [--target TARGET --server FILE]
//   Without arguments: taper.vsix for every platform, without the server, under 200 KB.
//   With them: taper-TARGET.vsix for one platform (linux-x64, linux-arm64, darwin-arm64, win32-x64, …), with the
//   server's program for it inside, without its symbols and line tables where `llvm-strip` or `strip` can read it.
import { spawnSync } from "node:child_process";
import { chmodSync, copyFileSync, mkdirSync, rmSync, statSync } from "node:fs";
import { parseArgs } from "node:util";

const MOST_BYTES = 200_000;

const { target, server } = parseArgs({ options: { target: { type: "string" }, server: { type: "string" } } }).values;
if ((target === undefined) !== (server === undefined)) throw new Error("--target and --server belong together");
const out = target === undefined ? "taper.vsix" : `taper-${target}.vsix`;
rmSync("bin", { recursive: true, force: true });
if (server !== undefined) {
  mkdirSync("bin");
  const program = target.startsWith("win32") ? "bin/taper.exe" : "bin/taper";
  copyFileSync(server, program);
  chmodSync(program, 0o755);
  strip(program);
}
try {
  const platform = target === undefined ? [] : ["--target", target];
  const { status, error } = spawnSync(
    process.execPath,
    ["node_modules/@vscode/vsce/vsce", "package", "--no-dependencies", "--allow-missing-repository", "--out", out, ...platform],
    { stdio: "inherit" },
  );
  if (error) throw error;
  if (status !== 0) process.exit(status ?? 1);
} finally {
  rmSync("bin", { recursive: true, force: true });
}

/** Takes symbols and line tables out of a program. What cannot be read is packaged as it is. */
function strip(program) {
  const before = statSync(program).size;
  const stripped = ["llvm-strip", "strip"].some((tool) => spawnSync(tool, ["--strip-all", program]).status === 0);
  const how = stripped ? `stripped from ${before} to` : "not stripped: no llvm-strip or strip here reads it;";
  console.log(`${program}: ${how} ${statSync(program).size} bytes`);
}

const { size } = statSync(out);
console.log(`${out}: ${size} bytes`);
if (server === undefined && size > MOST_BYTES) {
  throw new Error(`${out} has ${size} bytes, more than ${MOST_BYTES}`);
}
