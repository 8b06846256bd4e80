"""The check of every record is CRC-32 as zlib computes it, whoever computes it here."""

from __future__ import annotations

import zlib

from hypothesis import given
from hypothesis import strategies as st

from protocol.crc import crc32


def test_it_is_the_published_check_value() -> None:
    assert crc32(b"123456789") == 0xCBF43926  # "check" of CRC-32/ISO-HDLC in the catalogue of parametrised CRCs


@given(st.binary(max_size=5_000), st.integers(0, 2**32 - 1))
def test_it_is_zlibs_number_also_in_parts(data: bytes, start: int) -> None:
    assert crc32(memoryview(data)) == zlib.crc32(data)
    assert crc32(data, start) == zlib.crc32(data, start)
