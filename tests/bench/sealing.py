"""This job with open pairs, beside the same with pairs that are sealed for two recipients. Flat out, the ledger in a file."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pyrage

from tests.bench.contenders import CONTENDERS
from tests.bench.scenarios import QUICK, flat_out

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.bench.scenarios import Figures, Sizes

OPEN, SEALED = "open pairs", "sealed pairs"
_OURS = CONTENDERS[0]


def play_sealing(seed: int, sizes: Sizes = QUICK) -> Iterator[tuple[str, Figures]]:
    """One round: the figures of both."""
    recipients = [str(pyrage.x25519.Identity.generate().to_public()) for _ in range(2)]
    for name, keys in {OPEN: [], SEALED: recipients}.items():
        contender = replace(_OURS, settings={"RECOVERY_SEAL__RECIPIENTS": json.dumps(keys)})
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            figures = flat_out(contender, Path(folder), sizes, seed)
            results = Path(folder) / contender.results
            yield name, figures | {"results.csv: KB an install": results.stat().st_size / sizes.flat_out / 1000}
