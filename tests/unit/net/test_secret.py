"""Buffers that overwrite themselves (spec handshake §10)."""

from __future__ import annotations

import ctypes
import pickle

import pytest

from netchan.net.secret import SecureBytes, hkdf_expand, wipe


class TestSecureBytes:
    def test_wipe_leaves_zeros_of_the_same_length(self) -> None:
        secret = SecureBytes(b"0123456789")
        view = memoryview(secret)
        secret.wipe()
        assert bytes(view) == bytes(10)
        secret.wipe()

    def test_with_block_wipes_also_on_error(self) -> None:
        secret = SecureBytes(b"abc")
        with pytest.raises(KeyError), secret:
            raise KeyError
        assert secret == bytes(3)

    def test_collected_secret_is_overwritten(self) -> None:
        secret = SecureBytes(b"gone")
        place, size = (ctypes.c_char * 4).from_buffer(secret), len(secret)
        address = ctypes.addressof(place)
        del place
        # a second reference to the memory itself, not to the object: what the finaliser leaves behind is looked at
        # by calling it, before the memory is given back
        secret.__del__()
        assert ctypes.string_at(address, size) == bytes(4)

    def test_representation_shows_no_content(self) -> None:
        assert "abc" not in f"{SecureBytes(b'abc')!r} {SecureBytes(b'abc')}"

    def test_comparison_and_pickle(self) -> None:
        assert SecureBytes(b"a") == b"a"
        assert SecureBytes(b"a") != b"b"
        assert SecureBytes(b"a") != "a"
        with pytest.raises(TypeError):
            pickle.dumps(SecureBytes(b"a"))

    def test_wipe_function_skips_none(self) -> None:
        buffer = bytearray(b"xyz")
        wipe(None, buffer)
        assert buffer == bytes(3)

    @pytest.mark.parametrize("length", [0, -1, 8161])
    def test_hkdf_length_out_of_range_raises(self, length: int) -> None:
        with pytest.raises(ValueError, match="HKDF"):
            hkdf_expand(bytes(32), b"", length)
