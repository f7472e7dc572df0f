"""Layer 1: the compiled, sans-IO protocol core (no socket, no clock, no thread of its own)."""

from importlib.util import find_spec

_spec = find_spec("netchan._core.errors")
if _spec is None or not str(_spec.origin).endswith((".so", ".pyd")):
    raise ImportError(
        "netchan's compiled core is not built in this source tree; "
        "run `make build` (or `python setup.py build_ext --inplace`), or install the package with `pip install .`"
    )
