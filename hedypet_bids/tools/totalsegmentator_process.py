"""The process in which TotalSegmentator runs: ``python -m ...totalsegmentator_process REQUEST.json``."""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any


def main() -> None:
    """Do what the request asks for, and write what it was done with."""
    request: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    # TotalSegmentator reads its folders from the environment, which the parent process has set.
    import torch
    from totalsegmentator.python_api import totalsegmentator

    torch.set_num_threads(request["threads"])
    device = _device(request["device"], torch.cuda.is_available())
    if device != "cpu" and not torch.cuda.is_available():
        raise SystemExit(f"A GPU was asked for ({device}), but CUDA shows none.")
    totalsegmentator(
        Path(request["input"]),
        Path(request["output"]),
        task=request["task"],
        ml=True,
        fast=request["fast"],
        roi_subset=request["roi_subset"],
        device=device,
        nr_thr_resamp=request["threads"],
        nr_thr_saving=1,
    )
    used = "cpu" if device == "cpu" else torch.cuda.get_device_name(int(device.partition(":")[2] or 0))
    answer = {"version": version("TotalSegmentator"), "device": used}
    Path(request["answer"]).write_text(json.dumps(answer), "utf-8")


def _device(wanted: str, has_gpu: bool) -> str:
    if wanted == "auto":
        return "gpu" if has_gpu else "cpu"
    return wanted


if __name__ == "__main__":
    main()
