#!/usr/bin/env bash
# What a machine with one GPU has to answer, in ten minutes; one JSON object a line goes to the file, in the order of
# the lines below. PEFT takes its steps in turns where the Python of its environment is given.
#
#     scripts/bench_gpu.sh RESULTS.jsonl [PEFT/bin/python]
set -uo pipefail
results=$(realpath -s "$1"); peft=${2:+--peft $(realpath -s "$2")}
cd "$(dirname "$0")"
: > "$results"
failed=0

bench() {  # seconds at most, script, arguments
    local limit=$1 script=$2 line; shift 2
    echo "$script $*" >&2
    if line=$(timeout "$limit" python "bench_$script.py" "$@" | tail -n 1); then
        echo "$line" >> "$results"
    else
        echo "{\"failed\": \"$script $*\"}" >> "$results"; failed=1
    fi
}

narrow="--json --dtype bfloat16 --inputs 512 --prompt 100 --targets 8 --steps 10"
bench 60 attention --batch 32 --lengths 312 612 1024 2048
bench 90 step --size t5_1_1_base --batch 32 $narrow $peft
bench 60 step --size t5_1_1_base --batch 32 $narrow --groups 1
bench 60 step --size t5_1_1_base --batch 32 --json --inputs 512 --prompt 100 --targets 8 --steps 10
bench 90 step --size t5_1_1_xl --batch 32 $narrow
bench 120 step --size t5_1_1_xxl --batch 16 $narrow
bench 90 members --size t5_1_1_base --batch 16 --dtype bfloat16 --json --members 4 15
exit $failed
