"""Layer 1: the compiled, sans-IO protocol core (no socket, no clock, no thread of its own)."""

from importlib.util import find_spec

if find_spec("netchan._core.errors") is None or not str(find_spec("netchan._core.errors").origin).endswith((".so", ".pyd")):  # type: ignore[union-attr]
    raise ImportError(
        "netchan's compiled core is not built in this source tree; "
        "run `make build` (or `python setup.py build_ext --inplace`), or install the package with `pip install .`"
    )
