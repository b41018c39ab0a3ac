"""Fuzz one reader, guided by the branches that its inputs reach: fuzzing.py --reader NAME [--minutes 10].

Needs atheris (pip install atheris: Linux). Inputs that reached new branches stay in the folder, and the next
run begins with them. Exit status 0 when no input crashed the reader, took 5 s, or took its process above
300 MB; such an input is written into the folder as crash-*, timeout-* or oom-*.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

MOST_SECONDS, MOST_MB, LONGEST_INPUT = 5, 300, 1 << 16
# Whose branches guide: what the readers are made of, without their numerics.
GUIDING = [
    "hedypet_bids",
    "nibabel.nifti1",
    "nibabel.nifti2",
    "nibabel.volumeutils",
    "json",
    "csv",
    "xml.etree",
]
# What text readers stumble over, to be put in beside the words of the seeds.
ODD_VALUES: list[Any] = [
    None,
    True,
    "",
    "n/a",
    "-",
    0,
    -1,
    1e-320,
    1e308,
    10**400,
    float("nan"),
    [],
    {},
    "\ud800",
]
ODD_WORDS = [b"NaN", b"-Infinity", b"1e400", b"1e-320", b"-1", b"9" * 40, b"null", b"n/a", b"[]", b"{}", b'"']


def _words(seeds: Iterable[bytes]) -> list[bytes]:
    found = {word for seed in seeds for word in re.findall(rb"[A-Za-z_][\w/-]+|\d[\d.:]*", seed)}
    return sorted({*found, *ODD_WORDS})


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


def _mutated(content: bytes, longest: int, seed: int) -> bytes:
    """Other entries of an object, as bytes changed at random are seldom JSON; sometimes other bytes."""
    random = Random(seed)
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not found or random.random() < 0.2:
        start = random.randint(0, len(content))
        end = start + random.choice([0, 0, 1, 9])
        return (content[:start] + random.choice([*ODD_WORDS, random.randbytes(2)]) + content[end:])[:longest]
    for _ in range(random.randint(1, 3)):
        key = random.choice(sorted(found))
        found[key] = _other(found[key], random, [*ODD_VALUES, *found.values()])
    return json.dumps(found).encode()[:longest]


def _other(value: object, random: Random, values: list[Any]) -> object:
    if isinstance(value, list) and value and random.random() < 0.7:
        at = random.randrange(len(value))
        return [*value[:at], _other(value[at], random, values), *value[at + 1 :]]
    if isinstance(value, dict) and value and random.random() < 0.7:
        key = random.choice(sorted(value))
        return {**value, key: _other(value[key], random, values)}
    if isinstance(value, int | float) and abs(value) < 1e30 and random.random() < 0.5:
        return value * random.choice([-1, 0.001, 0.5, 0.999, 1.001, 2, 60, 1000, 1e6])
    return random.choice(values)


def main() -> None:
    """Read the command line and fuzz; the process ends with the fuzzer's status."""
    import atheris

    with atheris.instrument_imports(include=GUIDING, enable_loader_override=False):
        from readers import READERS

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reader", choices=READERS, required=True)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--folder", type=Path, default=Path("build/fuzzing"), help="where inputs are kept")
    asked = parser.parse_args()
    reader, kept = READERS[asked.reader], asked.folder / asked.reader
    kept.mkdir(parents=True, exist_ok=True)
    for at, seed in enumerate(reader.seeds):
        (kept / f"seed-{at}").write_bytes(seed)
    limits = (
        f"-max_total_time={asked.minutes * 60:.0f}",
        f"-timeout={MOST_SECONDS}",
        f"-rss_limit_mb={MOST_MB}",
        f"-max_len={LONGEST_INPUT}",
    )
    with TemporaryDirectory() as folder:
        words = Path(folder) / "words.txt"
        words.write_text("".join(f'"{_escaped(word)}"\n' for word in _words(reader.seeds)))
        how = (f"-dict={words}", f"-artifact_prefix={kept}/", "-print_final_stats=1")
        atheris.Setup(
            [sys.argv[0], *limits, *how, str(kept)],
            lambda content: reader.try_on(content, Path(folder)),
            custom_mutator=_mutated if reader.name.endswith(".json") else None,
        )
        atheris.Fuzz()


if __name__ == "__main__":
    main()
