"""Every decoder, given anything: a value or the error it names, in bounded memory."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.hostile.conftest import less_memory
from tests.hostile.decoders import DECODERS, Decoder
from tests.hostile.fuzz import is_installed
from tests.hostile.mutation import KINDS, LENGTHS, Step, mutate, random_steps
from tests.lab.effort import Effort

ROOM = 2**20  # bytes that a decoder may need for anything small
PER_BYTE = 100  # times the input: a list of the smallest objects

EACH = settings(max_examples=settings().max_examples // 10)  # the storm below goes further for less

steps: st.SearchStrategy[list[Step]] = st.lists(
    st.tuples(st.integers(0, KINDS - 1), st.integers(0, 2**12), st.integers(0, 2**64 - 1)), max_size=6
)
every_decoder = pytest.mark.parametrize("decoder", DECODERS.values(), ids=DECODERS.keys())


@pytest.fixture(scope="module", autouse=True)
def _limited() -> Iterator[None]:
    with less_memory():
        yield


@every_decoder
def test_what_is_valid_is_read(decoder: Decoder, lab: Effort) -> None:
    """Else the tests below would mutate what is refused anyway."""
    for sample in decoder.samples:
        assert decoder.mend(sample) == sample
    assert "read" in [decoder.outcome(sample) for sample in decoder.samples]


@every_decoder
@EACH
@given(data=st.binary(max_size=300))
def test_any_bytes_are_read_or_refused_by_name(decoder: Decoder, data: bytes) -> None:
    decoder.outcome(data)
    decoder.outcome(decoder.mend(data))


@every_decoder
@EACH
@given(data=st.data())
def test_what_is_nearly_right_is_read_or_refused_by_name(decoder: Decoder, data: st.DataObject) -> None:
    whole, other = (data.draw(st.sampled_from(decoder.samples)) for _ in range(2))
    nearly = mutate(whole, data.draw(steps), other)
    decoder.outcome(nearly)
    decoder.outcome(decoder.mend(nearly))


@every_decoder
def test_a_storm_of_mutations_is_read_or_refused_by_name(decoder: Decoder, lab: Effort) -> None:
    chance = lab.chance()
    outcomes = {"read": 0, "refused": 0}
    for _ in range(lab.pick(30, 5_000)):
        nearly = mutate(chance.choice(decoder.samples), random_steps(chance), chance.choice(decoder.samples))
        for data in (nearly, decoder.mend(nearly)):
            outcomes[decoder.outcome(data)] += 1
    lab.count("mutated inputs", sum(outcomes.values()))
    if decoder.errors:
        assert outcomes["refused"], "nothing was refused: the mutations do not reach this decoder's checks"


@pytest.mark.parametrize("name", ["delta", "records", "identity", "map-file", "store"])
def test_a_flipped_bit_under_a_checksum_is_never_read_as_another_value(name: str, lab: Effort) -> None:
    decoder, chance = DECODERS[name], lab.chance()
    for sample in decoder.samples:
        value = decoder.run(sample)
        for at in range(len(sample)):
            flipped = bytearray(sample)
            flipped[at] ^= 1 << chance.randrange(8)
            if decoder.outcome(bytes(flipped)) == "read":
                assert decoder.run(bytes(flipped)) == value, f"byte {at} changed, and nobody noticed"
            lab.count("flipped bits")


NESTED = [
    b"\x91" * 10_000, b"\x81\xa1x" * 5_000, b"[" * 10_000, b'{"x":' * 5_000, b"a=" + b"[" * 10_000, b"(" * 10_000,
    b"\x80\x05" + b"]" * 10_000 + b"a" * 9_999 + b".", b"a = " + b"9" * 10_000, b"9" * 10_000,
]  # fmt: skip


@every_decoder
def test_what_is_nested_without_end_is_read_or_refused_by_name(decoder: Decoder, lab: Effort) -> None:
    for nested in NESTED:
        sample = decoder.samples[0]
        for data in (nested, sample + nested, sample[: len(sample) // 2] + nested):
            decoder.outcome(decoder.mend(data))
            lab.count("nested inputs")


@contextmanager
def traced() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


def memory_of(decoder: Decoder, data: bytes) -> int:
    """Bytes that decoding needed at its peak."""
    before = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    decoder.outcome(data)
    return tracemalloc.get_traced_memory()[1] - before


def claims(sample: bytes, stride: int) -> Iterator[bytes]:
    """`sample` with each place in it once claiming each length, in each width and byte order."""
    for at in range(0, len(sample), stride):
        for length in LENGTHS[5:]:
            for width, order in ((4, "little"), (4, "big"), (8, "little"), (8, "big")):
                field = (length % 2 ** (8 * width)).to_bytes(width, order)  # type: ignore[arg-type]
                yield sample[:at] + field + sample[at + width :]


TEXTS = {"endpoint", "endpoint-file", "notify-variable", "global", "client-list", "client-key", "server-key", "config",
         "command", "answer", "words"}  # fmt: skip
"""No length is claimed in these; and what Python's own unpickler does with one is Python's."""

with_lengths = [pytest.param(one, id=name) for name, one in DECODERS.items() if name not in TEXTS and not one.unpickles]


@pytest.mark.parametrize("decoder", with_lengths)
def test_no_length_that_is_claimed_is_believed(decoder: Decoder, lab: Effort) -> None:
    """A field may say 2**62: what is allocated follows from the bytes that are there."""
    sample = max(decoder.samples, key=len)
    decoder.outcome(sample)
    stride = max(1, len(sample) // lab.pick(2, 120))
    with traced():
        for data in claims(sample, stride):
            for given_ in (data, decoder.mend(data)):
                needed = memory_of(decoder, given_)
                assert needed < ROOM + PER_BYTE * len(given_), f"{needed} bytes for {len(given_)}: {given_[:80]!r}"
                lab.count("claimed lengths")


def test_the_fuzzer_runs_or_says_why_it_can_not(lab: Effort) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.hostile.fuzz", "request", "-runs=200"], capture_output=True, text=True, timeout=60
    )
    if is_installed():
        assert done.returncode == 0, done.stderr
    else:
        assert done.returncode == 2
        assert "atheris is not installed" in done.stderr
