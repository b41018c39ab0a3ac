"""The dataset that benchmarks of images use: the one that is given, else a phantom of clinical voxel size."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from hedypet_bids.phantom import hedypet_frames, merged_frames, truth_folder, write_phantom


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Let a dataset and its truth be given."""
    parser.add_argument("dataset", type=Path, nargs="?", help="raw BIDS dataset (default: a small phantom)")
    parser.add_argument("truth", type=Path, nargs="?", help="JSON with mr2ct_head and mr2ct_body")


@contextmanager
def dataset_and_truth(args: argparse.Namespace) -> Iterator[tuple[Path, Path]]:
    """The dataset and the truth of its participant 001; a phantom is removed afterwards."""
    if args.dataset is not None and args.truth is not None:
        yield args.dataset, args.truth
        return
    with TemporaryDirectory() as folder:
        bids = write_phantom(
            Path(folder) / "bids",
            participants=1,
            seed=1,
            size="small",
            frames=merged_frames(hedypet_frames(), 3),
        )
        yield bids, truth_folder(bids) / "sub-001.json"
