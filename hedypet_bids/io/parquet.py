"""Parquet files wherever they are: Arrow takes no path that is not UTF-8."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.dataset as ds


def parquet_dataset(path: Path, **options: Any) -> Any:
    """A Parquet file, or a folder of them, as a dataset of Arrow with its options."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        # Python opens it, which is slower. (Imported here: it is seldom needed.)
        from fsspec.implementations.dirfs import DirFileSystem
        from fsspec.implementations.local import LocalFileSystem

        options["filesystem"] = DirFileSystem(str(path.parent), LocalFileSystem())
        return ds.dataset(path.name, **options)
    return ds.dataset(path, **options)
