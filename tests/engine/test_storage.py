"""Files are whole or absent, and old ones go only when new ones are whole."""

import errno
import threading
from pathlib import Path

import pytest
from mmengine.fileio import get_file_backend

from mmslip.engine.checkpointing.storage import AtomicBackend, remove_unfinished, wait_for_writes

BACKGROUND = pytest.mark.parametrize('background', [False, True])


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Writing begins, and ends when the event is set."""
    event = threading.Event()
    write = Path.write_bytes

    def wait_and_write(path: Path, content: bytes) -> None:
        write(path, content[:1])
        assert event.wait(10)
        write(path, content)

    monkeypatch.setattr(Path, 'write_bytes', wait_and_write)
    return event


@BACKGROUND
def test_what_is_put_is_there(tmp_path: Path, background: bool) -> None:
    backend = get_file_backend(backend_args=dict(backend='atomic', background=background))
    path = tmp_path / 'new' / 'a.pth'
    backend.put(b'first', str(path))
    backend.put(b'second', path)
    backend.put_text('é', path.with_suffix('.txt'))
    wait_for_writes()
    assert path.read_bytes() == b'second'
    assert path.with_suffix('.txt').read_text(encoding='utf-8') == 'é'
    assert len(list(path.parent.iterdir())) == 2


def test_training_goes_on_while_a_file_is_written(tmp_path: Path, slow: threading.Event) -> None:
    backend = AtomicBackend(background=True)
    path = tmp_path / 'a.pth'
    backend.put(b'content', path)
    # Here training would go on; a reader finds nothing yet.
    assert not path.exists()
    second = threading.Thread(target=backend.put, args=(b'more', tmp_path / 'b.pth'))
    second.start()
    second.join(0.2)
    assert second.is_alive()  # it waits for the first
    slow.set()
    second.join()
    assert backend.isfile(tmp_path / 'b.pth')  # mmengine asks before it removes a file
    assert (path.read_bytes(), (tmp_path / 'b.pth').read_bytes()) == (b'content', b'more')


@BACKGROUND
def test_a_full_disk_is_told_and_leaves_what_there_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, background: bool
) -> None:
    path = tmp_path / 'a.pth'
    backend = AtomicBackend(background)
    backend.put(b'old', path)
    backend.remove(path)  # to be replaced, as mmengine does
    wait_for_writes()

    def fail(part: Path, content: bytes) -> None:
        part.touch()
        raise OSError(errno.ENOSPC, 'No space left on device')

    with monkeypatch.context() as patch:
        patch.setattr(Path, 'write_bytes', fail)
        text = r'a\.pth could not be written \(No space left on device\); earlier .* untouched'
        if background:
            backend.put(b'new', path)
            # In the middle of training, with the next file; or when it ends.
            with pytest.raises(OSError, match=text):
                backend.put(b'newer', path)
            backend.put(b'newest', path)
            with pytest.raises(OSError, match=text):
                wait_for_writes()
        else:
            with pytest.raises(OSError, match=text):
                backend.put(b'new', path)
        assert [file.read_bytes() for file in tmp_path.iterdir()] == [b'old']
    wait_for_writes()  # told once
    backend.put(b'new', path)
    wait_for_writes()
    assert path.read_bytes() == b'new'


def test_a_run_survives_a_disk_that_was_full_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next file is written; what the lost one was to take the place of, the best one, stays."""
    backend = AtomicBackend(background=True)
    old, lost, new, next_one = (tmp_path / f'{number}.pth' for number in range(1, 5))
    backend.put(b'1', old)
    wait_for_writes()
    backend.remove(old)

    def fail(part: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, 'No space left on device')

    with monkeypatch.context() as patch:
        patch.setattr(Path, 'write_bytes', fail)
        backend.put(b'2', lost)
        assert not backend.isfile(lost)
    assert [*tmp_path.iterdir()] == [old]
    backend.put(b'3', new)
    assert sorted(tmp_path.iterdir()) == [old, new]  # not in the background, which could not raise
    backend.put(b'4', next_one)
    wait_for_writes()
    assert sorted(tmp_path.iterdir()) == [old, new, next_one]


@BACKGROUND
def test_outdated_files_go_when_the_next_one_is_whole(
    tmp_path: Path, slow: threading.Event, background: bool
) -> None:
    slow.set()
    backend = AtomicBackend(background)
    old, same, new = (tmp_path / f'{name}.pth' for name in ('old', 'same', 'new'))
    for path in (old, same):
        backend.put(b'1', path)
    wait_for_writes()
    backend.remove(old)
    assert old.exists()
    if background:
        slow.clear()
        backend.put(b'2', new)
        assert old.exists()
        slow.set()
    else:
        backend.put(b'2', new)
    wait_for_writes()
    assert sorted(tmp_path.iterdir()) == [new, same]
    # The best checkpoint may be followed by one of the same name.
    AtomicBackend().remove(same)
    AtomicBackend().put(b'2', same)
    assert same.read_bytes() == b'2'
    AtomicBackend().put(b'3', new)
    assert same.exists()


def test_what_a_killed_run_left_is_cleared_away(tmp_path: Path) -> None:
    for name in ('.epoch_3.1234.part.pth', 'epoch_3.pth', '.other', 'a.part.pth'):
        (tmp_path / name).touch()
    remove_unfinished(tmp_path)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ['.other', 'a.part.pth', 'epoch_3.pth']
