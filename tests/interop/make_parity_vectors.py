"""Write tests/interop/vectors/parity.json with the slow model of the code (run from the root of the repository).

    python -m tests.interop.make_parity_vectors          # write the file again
    python -m tests.interop.make_parity_vectors --check  # exit 1 if the file differs from what would be written

Data are SHA-256 of their own names, so the file is a function of this program. A change of the file is a change of the
protocol: it belongs in the same commit as the page that demands it (docs/spec/parity.md).

Layout: `coefficients`, hex, row j of them as bytes i = 0, 1, …; a list of groups, each with k, m, symbol size, data
and the m parity symbols. Where data are shorter than k symbols the rest is zero.
"""

import json
import sys
from hashlib import sha256
from pathlib import Path

from tests.unit.core import parity_model as model

FILE = Path(__file__).resolve().parent / "vectors" / "parity.json"
GROUPS = [(1, 3, 5, 5), (4, 1, 20, 80), (4, 2, 33, 132), (8, 3, 16, 101), (5, 27, 3, 15), (30, 2, 4, 120)]


def made(name: str, size: int) -> bytes:
    """Bytes that are a function of their name."""
    return b"".join(sha256(f"{name} {i}".encode()).digest() for i in range(size // 32 + 1))[:size]


def build() -> str:
    """The text of the file."""
    groups = []
    for k, m, size, length in GROUPS:
        data = made(f"parity {k} {m}", length)
        parity = [symbol.hex() for symbol in model.parity(data, m, size)]
        groups.append({"k": k, "m": m, "symbol_bytes": size, "data": data.hex(), "parity": parity})
    indices = range(model.SYMBOLS_MAX - 1)
    rows = [bytes(model.coefficient(j, i) for i in indices).hex() for j in indices]
    whole = {"page": "docs/spec/parity.md", "version": 1, "coefficients": rows, "groups": groups}
    return json.dumps(whole, indent=1) + "\n"


if __name__ == "__main__":
    text = build()
    if "--check" in sys.argv[1:]:
        sys.exit(0 if FILE.exists() and FILE.read_text() == text else f"{FILE.name} is not what this program writes")
    FILE.write_text(text)
