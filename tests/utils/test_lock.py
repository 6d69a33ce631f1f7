"""One holder at a time, whoever dies."""

import json
import multiprocessing
import os
import signal
import socket
from pathlib import Path

import pytest

from mmslip.utils import FileLock

FORK = multiprocessing.get_context('fork')


def hold(path: Path, child) -> None:
    """Hold the lock until killed, with a child that outlives this process."""
    lock = FileLock(path, 'at work')
    lock.acquire()
    process = FORK.Process(target=signal.pause)
    process.start()
    child.send(process.pid)
    signal.pause()


def test_a_lock_lasts_as_long_as_its_process(tmp_path: Path) -> None:
    receiver, sender = FORK.Pipe(duplex=False)
    process = FORK.Process(target=hold, args=(tmp_path / 'new' / 'lock', sender))
    process.start()
    child = receiver.recv()
    lock = FileLock(tmp_path / 'new' / 'lock', 'at work')
    who = rf'Another process is at work \(process {process.pid} of {socket.gethostname()}, since 2'
    try:
        with pytest.raises(RuntimeError, match=who):
            lock.acquire()
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert lock.acquire()
    finally:
        os.kill(child, signal.SIGKILL)
    assert json.loads(lock.path.read_text())['pid'] == os.getpid()
    with pytest.raises(RuntimeError, match='Another process'), FileLock(lock.path, 'there'):
        pass
    lock.release()
    with FileLock(lock.path, 'there'):
        pass


def test_a_holder_that_has_not_said_its_name(tmp_path: Path) -> None:
    with FileLock(tmp_path / 'lock', 'at work') as lock:
        lock.path.write_text('')
        with pytest.raises(RuntimeError, match='it has not said which'):
            FileLock(lock.path, 'at work').acquire()


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise OSError(95, 'Operation not supported')

    monkeypatch.setattr('fcntl.flock', fail)
    assert FileLock(tmp_path / 'lock', 'at work').acquire() is False
