#!/bin/sh
# Builds the core with clang's fuzzer, address and undefined-behaviour instrumentation, and one binary per target.
#   tests/fuzz/build.sh [target...]      no target: all. Result: build/fuzz/bin/fuzz_<target>
# Environment: PYTHON, JOBS (see instrument.sh), CLANG (default clang-14). Exit: 0 all built, 1 anything failed.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
python=${PYTHON:-python3}
clang=${CLANG:-clang-14}
out="$root/build/fuzz"
checks="address,undefined"
cd "$root"
"$here/instrument.sh" fuzz "$clang" "-fsanitize=fuzzer-no-link,$checks" -fno-sanitize-recover=undefined
mkdir -p "$out/bin"

# "target module" for each declared target
for pxd in netchan/_core/_fuzz*.pxd; do
    module=netchan._core.$(basename "$pxd" .pxd)
    sed -n 's/^cdef int fuzz_\([a-z0-9_]*\)(.*/\1/p' "$pxd" | while read -r name; do echo "$name $module"; done
done >"$out/targets"
twice=$(cut -d' ' -f1 "$out/targets" | sort | uniq -d)
[ -z "$twice" ] || { echo "build.sh: declared twice: $twice" >&2; exit 1; }
for name in "$@"; do
    grep -q "^$name " "$out/targets" || { echo "build.sh: no target '$name'" >&2; exit 1; }
done

flags=$("$python" - <<'PY'
import sysconfig
v = sysconfig.get_config_var
print(f"-I{sysconfig.get_paths()['include']} -L{v('LIBDIR')} -Wl,-rpath,{v('LIBDIR')} -lpython{v('LDVERSION')}")
PY
)
while read -r name module; do
    [ $# -eq 0 ] || case " $* " in *" $name "*) ;; *) continue ;; esac
    # shellcheck disable=SC2086
    "$clang" -O1 -g "-fsanitize=fuzzer,$checks" -rdynamic \
        "-DNC_FUZZ_MODULE=\"$module\"" "-DNC_FUZZ_TARGET=\"fuzz_$name\"" \
        "$here/harness.c" -o "$out/bin/fuzz_$name" $flags
done <"$out/targets"
