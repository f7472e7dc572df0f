"""The erasure code of docs/spec/parity.md §1 once more, from its text and as slow as it reads.

Products are carry-less multiplications that are reduced bit by bit, inverses are searched for, matrices inverted by
elimination. Nothing here comes from the compiled code.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

POLYNOMIAL = 0x11D
SYMBOLS_MAX = 32


@cache
def mul(a: int, b: int) -> int:
    product = 0
    for bit in range(8):
        if b >> bit & 1:
            product ^= a << bit
    for bit in range(14, 7, -1):
        if product >> bit & 1:
            product ^= POLYNOMIAL << bit - 8
    return product


@cache
def inv(a: int) -> int:
    return next(b for b in range(1, 256) if mul(a, b) == 1)


@cache
def table(c: int) -> bytes:
    """c times each byte, for ``bytes.translate``."""
    return bytes(mul(c, x) for x in range(256))


def xor(a: bytes, b: bytes) -> bytes:
    assert len(a) == len(b)
    return (int.from_bytes(a) ^ int.from_bytes(b)).to_bytes(len(a))


def coefficient(j: int, i: int) -> int:
    def x(j: int) -> int:
        return 32 + j

    def y(i: int) -> int:
        return i

    return mul(mul(x(0) ^ y(i), x(j) ^ y(0)), inv(mul(x(j) ^ y(i), x(0) ^ y(0))))


def parity(data: bytes, m: int, size: int) -> list[bytes]:
    """The m parity symbols of ``size`` bytes over data; the last symbol of data may be short."""
    out = [bytes(size)] * m
    for i, at in enumerate(range(0, len(data), size)):
        symbol = data[at : at + size].ljust(size, b"\0")
        out = [xor(row, symbol.translate(table(coefficient(j, i)))) for j, row in enumerate(out)]
    return out


def inverse(matrix: Sequence[Sequence[int]]) -> list[list[int]]:
    """By elimination; StopIteration if there is none."""
    n = len(matrix)
    rows = [[*row, *(int(r == c) for c in range(n))] for r, row in enumerate(matrix)]
    for column in range(n):
        pivot = next(r for r in range(column, n) if rows[r][column])
        rows[column], rows[pivot] = rows[pivot], rows[column]
        scale = inv(rows[column][column])
        rows[column] = [mul(scale, v) for v in rows[column]]
        for r in range(n):
            if r != column and rows[r][column]:
                factor = rows[r][column]
                rows[r] = [v ^ mul(factor, w) for v, w in zip(rows[r], rows[column], strict=True)]
    return [row[n:] for row in rows]
