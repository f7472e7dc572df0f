#!/bin/sh
# Runs tsan_threads.py (leaf lock, pool, rings from several threads) under gcc's thread sanitizer.
#   tests/fuzz/tsan.sh                   needs gcc with libtsan, and setarch where address randomisation upsets it
# First it shows that the sanitizer sees races at all: a planted one must be reported.
# Environment: PYTHON, JOBS (see instrument.sh), CC (default gcc). Exit: 0 clean, 1 a race, or a tool that does not work.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
python=${PYTHON:-python3}
gcc=${CC:-gcc}
out="$root/build/tsan"
"$here/instrument.sh" tsan "$gcc" -fsanitize=thread -Wno-tsan
LIBTSAN=$("$gcc" -print-file-name=libtsan.so)
run() { # run <log> <arguments of tsan_threads.py>
    log=$1
    shift
    LD_PRELOAD="$LIBTSAN" PYTHONPATH="$out/lib" TSAN_OPTIONS="halt_on_error=0:exitcode=66" \
        setarch -R "$python" "$here/tsan_threads.py" "$@" >"$log" 2>&1
}
rc=0
run "$out/planted.log" planted || rc=$?
if [ "$rc" -ne 66 ] || ! grep -q 'WARNING: ThreadSanitizer: data race' "$out/planted.log"; then
    tail -20 "$out/planted.log" >&2
    echo "tsan.sh: the planted race was not reported (exit $rc): the sanitizer does not work here" >&2
    exit 1
fi
rc=0
run "$out/run.log" all || rc=$?
if [ "$rc" -ne 0 ] || grep -q 'WARNING: ThreadSanitizer' "$out/run.log"; then
    head -80 "$out/run.log" >&2
    echo "tsan.sh: exit $rc" >&2
    exit 1
fi
cat "$out/run.log"
