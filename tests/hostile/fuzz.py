"""Coverage-guided fuzzing of one decoder, where atheris is installed (`pip install atheris`).

    python -m tests.hostile.fuzz DECODER [libFuzzer's options, for instance -max_total_time=600 or a corpus folder]

It runs the same table as the tests (`tests.hostile.decoders`); a crash is an error that the decoder does not name.
"""

from __future__ import annotations

import importlib.util
import random
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

MEMORY_LIMIT = "-rss_limit_mb=2048"
INSTRUMENTED = ("protocol", "persistence_proc", "strategy_proc", "supervisor")


def is_installed() -> bool:
    return importlib.util.find_spec("atheris") is not None


def main(arguments: list[str]) -> None:
    """Fuzz the decoder named first. Ends the process, as atheris does."""
    if not is_installed():
        _leave("atheris is not installed here: pip install atheris")
    import atheris

    with atheris.instrument_imports(include=list(INSTRUMENTED)):
        from tests.hostile.decoders import DECODERS
    from tests.hostile.mutation import mutate, random_steps

    if not arguments or arguments[0] not in DECODERS:
        _leave(f"which decoder? {', '.join(DECODERS)}")
    decoder = DECODERS[arguments[0]]

    def target(data: bytes) -> None:
        decoder.outcome(data)
        decoder.outcome(decoder.mend(data))

    def mutation(data: bytes, most: int, seed: int) -> bytes:
        """Half the time ours, which knows what lengths look like."""
        chance = random.Random(seed)
        if chance.random() < 0.5:
            return bytes(atheris.Mutate(data, most))
        return mutate(data, random_steps(chance), chance.choice(decoder.samples))[:most]

    with tempfile.TemporaryDirectory(prefix="ol-corpus-") as corpus:
        for number, sample in enumerate(decoder.samples):
            Path(corpus, str(number)).write_bytes(sample)
        options = [sys.argv[0], MEMORY_LIMIT, *arguments[1:], corpus]
        atheris.Setup(options, target, custom_mutator=mutation)
        atheris.Fuzz()


def _leave(message: str) -> NoReturn:
    print(message, file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main(sys.argv[1:])
