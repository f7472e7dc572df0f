/* libFuzzer entry for one target: NC_FUZZ_MODULE and NC_FUZZ_TARGET are given by build.sh.
 *
 * The interpreter is started once, the instrumented extension module imported, and the target's C function taken out of
 * its __pyx_capi__; the GIL is then released for good: targets are nogil functions. A target that returns non-zero has
 * found a difference to its oracle: print the number of the check and abort, which libFuzzer reports as a crash. */
#include <Python.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

typedef int (*target_fn)(const uint8_t *, size_t);

static target_fn target;

static void die(const char *what) {
    if (PyErr_Occurred()) PyErr_Print();
    fprintf(stderr, "harness: %s (%s.%s)\n", what, NC_FUZZ_MODULE, NC_FUZZ_TARGET);
    _Exit(3);
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    PyObject *mod, *capi, *cap;
    (void)argc;
    (void)argv;
    Py_InitializeEx(0); /* no signal handlers: they are the fuzzer's */
    mod = PyImport_ImportModule(NC_FUZZ_MODULE);
    if (mod == NULL) die("cannot import the module");
    capi = PyObject_GetAttrString(mod, "__pyx_capi__");
    cap = capi ? PyDict_GetItemString(capi, NC_FUZZ_TARGET) : NULL;
    if (cap == NULL) die("no such target");
    target = (target_fn)PyCapsule_GetPointer(cap, PyCapsule_GetName(cap));
    if (target == NULL) die("no pointer in the capsule");
    PyEval_SaveThread();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    int failed = target(data, size);
    if (failed) {
        fprintf(stderr, "%s: check %d does not hold\n", NC_FUZZ_TARGET, failed);
        abort();
    }
    return 0;
}
