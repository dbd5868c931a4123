#!/usr/bin/env bash
# taper beside llama.cpp on this machine: engine rates and typing, interleaved in one run, kept with the other runs.
#
# usage: LLAMA_BIN=FOLDER benches/peers/run.sh --model MODEL.gguf [--model OTHER.gguf] [--tasks TASKS.jsonl] [--limit N]
# Other options: benches/peers/peers.py --help. Needs Rust and Python 3.9 or newer; without llama.cpp it says how to get
# it, and ends well.
set -euo pipefail
cd "$(dirname "$0")/../.."
cpu=$(sed -n 's/^model name[[:space:]]*: //p' /proc/cpuinfo | head -1)
name=$(printf '%s' "$cpu" | tr 'A-Z ' 'a-z-' | tr -cd 'a-z0-9-')-$(nproc)-cores
exec python3 benches/peers/peers.py --out "benches/runs/$(date -u +%F)-$name/peers.md" "$@"
