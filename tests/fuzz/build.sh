#!/bin/sh
# Builds the core with clang's fuzzer, address and undefined-behaviour instrumentation, and one binary per target.
#   tests/fuzz/build.sh [target...]      no target: all. Result: build/fuzz/bin/fuzz_<target>
# Environment: PYTHON (default python3; needs Cython and setuptools), CLANG (default clang-14).
# Exit: 0 all built, 1 anything failed.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
python=${PYTHON:-python3}
clang=${CLANG:-clang-14}
out="$root/build/fuzz"
checks="address,undefined"
cd "$root"
command -v "$clang" >/dev/null || { echo "build.sh: $clang not found" >&2; exit 1; }

# Only _core goes into the instrumented tree, under an empty package: nothing above it takes part.
mkdir -p "$out/lib/netchan/_core" "$out/bin"
: >"$out/lib/netchan/__init__.py"
cp netchan/_core/__init__.py "$out/lib/netchan/_core/"
NETCHAN_DEBUG=1 CC="$clang" LDSHARED="$clang -shared" \
    CFLAGS="-g -fno-omit-frame-pointer -fsanitize=fuzzer-no-link,$checks -fno-sanitize-recover=undefined -Wno-unused" \
    LDFLAGS="-fsanitize=fuzzer-no-link,$checks" \
    "$python" setup.py -q build_ext --build-lib "$out/lib" --build-temp "$out/tmp" >"$out/build.log" 2>&1 ||
    { cat "$out/build.log" >&2; exit 1; }

# "target module" per declared target
sed -n 's/^cdef int \(fuzz_[a-z0-9_]*\)(.*/\1/p' netchan/_core/_fuzz*.pxd | sort | uniq -d | grep . >&2 &&
    { echo "build.sh: target declared twice" >&2; exit 1; }
for pxd in netchan/_core/_fuzz*.pxd; do
    module=netchan._core.$(basename "$pxd" .pxd)
    sed -n 's/^cdef int fuzz_\([a-z0-9_]*\)(.*/\1/p' "$pxd" | while read -r name; do echo "$name $module"; done
done >"$out/targets"

flags=$("$python" - <<'PY'
import sysconfig
v = sysconfig.get_config_var
print(f"-I{sysconfig.get_paths()['include']} -L{v('LIBDIR')} -Wl,-rpath,{v('LIBDIR')} -lpython{v('LDVERSION')}")
PY
)
wanted=" $* "
while read -r name module; do
    [ $# -eq 0 ] || case "$wanted" in *" $name "*) ;; *) continue ;; esac
    # shellcheck disable=SC2086
    "$clang" -O1 -g "-fsanitize=fuzzer,$checks" -rdynamic \
        "-DNC_FUZZ_MODULE=\"$module\"" "-DNC_FUZZ_TARGET=\"fuzz_$name\"" \
        "$here/harness.c" -o "$out/bin/fuzz_$name" $flags
done <"$out/targets"
for name in "$@"; do
    grep -q "^$name " "$out/targets" || { echo "build.sh: no target '$name'" >&2; exit 1; }
done
