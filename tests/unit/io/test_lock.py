"""Locks on file systems that have none."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

import pytest

from hedypet_bids.errors import TryAgainError
from hedypet_bids.io.lock import exclusive


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_is_told(
    tmp_path: Path, code: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(_handle: int, _operation: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(logging.getLogger("hedypet"), "propagate", True)
    path = tmp_path / "x.lock"
    with caplog.at_level("WARNING", "hedypet"), exclusive(path, wait=False, holder="sub-1", flock=flock):
        pass
    (said,) = {message for message in caplog.messages if str(path) in message}
    assert str(path) in said and "sub-1" in said and os.strerror(code) in said


def test_a_lock_that_another_holds_is_no_such_fault(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "x.lock"
    with exclusive(path, wait=False, holder="sub-1"), pytest.raises(TryAgainError, match="sub-1"):  # noqa: SIM117
        with exclusive(path, wait=False, holder="sub-1"):
            pass
    assert caplog.messages == []
