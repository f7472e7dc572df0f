#!/bin/sh
# Builds every netchan/_core/*.pyx as an instrumented extension, apart from the source tree and from its own build.
#   tests/fuzz/instrument.sh <name> <compiler> <flag>...     result: build/<name>/lib/netchan/_core/*.so
# Debug profile (NETCHAN_DEBUG=1, Cython's checks on). Only _core is there, under an empty package netchan: nothing above
# takes part. C files are made anew in build/<name>/c whenever any .pyx or .pxd is newer than the last good build.
# Environment: PYTHON (default python3; needs Cython and setuptools), JOBS (default 2), MODULES (only these are
# built, always, beside what is there: "frame _fuzz"). Exit: 0 built, 1 failed.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
python=${PYTHON:-python3}
out="$root/build/$1"
compiler=$2
shift 2
cd "$root"
command -v "$compiler" >/dev/null || { echo "instrument.sh: $compiler not found" >&2; exit 1; }
mkdir -p "$out/lib/netchan/_core" "$out/c"
: >"$out/lib/netchan/__init__.py"
cp netchan/_core/__init__.py "$out/lib/netchan/_core/"
echo "$compiler $*" >"$out/flags.new"
if [ -z "${MODULES:-}" ] && [ -f "$out/stamp" ] && cmp -s "$out/flags" "$out/flags.new" &&
    [ -z "$(find netchan/_core -name '*.p[yx][xd]' -newer "$out/stamp")" ] &&
    [ -z "$(find netchan/_core -name 'k_*.[ch]' -newer "$out/stamp")" ]; then
    exit 0
fi
rm -f "$out/stamp"
[ -n "${MODULES:-}" ] || rm -f "$out"/lib/netchan/_core/*.so
mv "$out/flags.new" "$out/flags"
touch "$out/stamp.new"
ext=$("$python" -c 'import sysconfig; print(sysconfig.get_config_var("EXT_SUFFIX"))')
inc=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["include"])')
export out compiler ext inc python
# shellcheck disable=SC2016
one='m=$(basename "$1" .pyx); shift
    "$python" -m cython -3 -X boundscheck=True -X wraparound=False -X cdivision=True -X initializedcheck=True \
        -X auto_pickle=False -X binding=True --module-name "netchan._core.$m" -o "$out/c/$m.c" "netchan/_core/$m.pyx" &&
    "$compiler" -std=gnu11 -O1 -g -fPIC -shared -fno-omit-frame-pointer -Wno-unused -DNETCHAN_DEBUG=1 "$@" \
        "-I$inc" -Inetchan/_core "$out/c/$m.c" $(find netchan/_core -name "k_$m.c" -o -name "k_${m}_*.c") -o "$out/lib/netchan/_core/$m$ext" -lpthread -ldl'
sources=netchan/_core/*.pyx
[ -z "${MODULES:-}" ] || sources=$(printf 'netchan/_core/%s.pyx ' $MODULES)
# shellcheck disable=SC2086
printf '%s\n' $sources | xargs -P "${JOBS:-2}" -I{} sh -c "$one" sh {} "$@" >"$out/build.log" 2>&1 ||
    { cat "$out/build.log" >&2; exit 1; }
mv "$out/stamp.new" "$out/stamp"
