#!/bin/sh
# Builds and runs fuzz targets from their stored corpus.
#   tests/fuzz/run.sh [seconds] [target...]      default 30 seconds each, all targets
# New inputs go to build/fuzz/corpus/<target>, findings to build/fuzz/findings/; the stored corpus is only read.
#   MERGE=1 tests/fuzz/run.sh ...                afterwards adds what covers more to tests/fuzz/corpus/<target>
# Environment: as build.sh. Exit: 0 nothing found, 1 a finding, or a target that did not build or run.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
python=${PYTHON:-python3}
out="$root/build/fuzz"
seconds=30
case "${1:-}" in '' | *[!0-9]*) ;; *) seconds=$1; shift ;; esac
"$here/build.sh" "$@"
[ $# -gt 0 ] || set -- $(cut -d' ' -f1 "$out/targets")
PYTHONHOME=$("$python" -c 'import sys; print(sys.base_prefix)')
export PYTHONHOME PYTHONPATH="$out/lib" PYTHONMALLOC=malloc PYTHONDONTWRITEBYTECODE=1
# The interpreter keeps its memory to the end: leaks are looked for by the leak tests, not here.
export ASAN_OPTIONS="detect_leaks=0:abort_on_error=1:${ASAN_OPTIONS:-}" UBSAN_OPTIONS="print_stacktrace=1:${UBSAN_OPTIONS:-}"
mkdir -p "$out/findings"
failed=0
for name in "$@"; do
    mkdir -p "$out/corpus/$name" "$here/corpus/$name"
    echo "== fuzz_$name: $seconds s"
    if "$out/bin/fuzz_$name" -max_total_time="$seconds" -max_len=${MAX_LEN:-512} -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
        -artifact_prefix="$out/findings/$name-" "$out/corpus/$name" "$here/corpus/$name" >"$out/$name.log" 2>&1; then
        grep -E 'stat::(number_of_executed_units|average_exec_per_sec)' "$out/$name.log"
        [ "${MERGE:-0}" = 1 ] && "$out/bin/fuzz_$name" -merge=1 -use_counters=0 "$here/corpus/$name" "$out/corpus/$name" 2>&1 | grep 'MERGE-OUTER' | tail -1
    else
        tail -40 "$out/$name.log"
        echo "== fuzz_$name: FINDING, see $out/findings" >&2
        failed=1
    fi
done
exit $failed
