#!/usr/bin/env bash
# Measures this machine and keeps what came out: benches/runs/DATE-MACHINE/.
#
# usage: benches/run.sh [MACHINE]       MACHINE: a name for the folder; default the processor's
# Beside llama.cpp: benches/peers/run.sh. What a person who types gets: cargo run --release -p taper-eval -- replay TASKS.jsonl.
# How good the suggestions are: cargo run --release -p taper-eval -- run TASKS.jsonl, kept under benches/quality.
# TAPER_TEST_MODEL names the model's file; without it the default model, which is fetched.
set -euo pipefail
cd "$(dirname "$0")/.."
cpu=$(sed -n 's/^model name[[:space:]]*: //p' /proc/cpuinfo | head -1)
name=${1:-$(printf '%s' "$cpu" | tr 'A-Z ' 'a-z-' | tr -cd 'a-z0-9-')-$(nproc)-cores}
out=benches/runs/$(date -u +%F)-$name
mkdir -p "$out"
if [ -z "${TAPER_TEST_MODEL:-}" ]; then
  TAPER_TEST_MODEL=$(cargo run --quiet --release -- pull qwen2.5-coder-0.5b)
fi
export TAPER_TEST_MODEL
{
  echo "# $(date -u +%F), $cpu, $(nproc) cores, $(sed -n 's/^MemTotal: *//p' /proc/meminfo)"
  echo
  echo "commit $(git rev-parse --short HEAD); model $(basename "$TAPER_TEST_MODEL")"
  echo "load when it began: $(cut -d' ' -f1-3 /proc/loadavg)"
} > "$out/README.md"
for bench in engine keystroke serve; do
  case $bench in
    engine) arguments=("$TAPER_TEST_MODEL") ;;
    *) arguments=(--model "$TAPER_TEST_MODEL") ;;
  esac
  { printf '\n## cargo bench --bench %s\n\n```\n' "$bench"
    cargo bench --quiet --workspace --bench "$bench" -- "${arguments[@]}" 2>/dev/null
    printf '```\n'; } | tee -a "$out/README.md"
done
echo "kept in $out"
