"""`--resume` finds the newest checkpoint that is whole."""

import os
import time
from pathlib import Path

import pytest
import torch

from mmslip.engine import AutoResumeHook
from mmslip.engine.checkpointing.find import newest_checkpoint, next_session, whole_checkpoints
from tests.crashing import ITER_LOOP, make_runner, start, trace
from tests.distributed import pool
from tests.engine.test_checkpoint import PAYLOADS


def save(
    path: Path, saved_at: object = None, step: int = 1, session: object = None, **more: object
) -> Path:
    notes = dict(saved_at=saved_at, session=session)
    notes = {key: value for key, value in notes.items() if value is not None}
    meta = dict(epoch=0, iter=step, **notes)
    weights = dict(w=torch.arange(10_000.0))
    torch.save(dict(meta=meta, state_dict=weights, message_hub={}, **more), path)
    return path


def damage(path: Path, place: float, length: int | None = None) -> None:
    """Turn the bits of a few bytes, or cut the file there."""
    content = bytearray(path.read_bytes())
    begin = int(place * len(content))
    if length is None:
        del content[begin:]
    for index in range(begin, begin + (length or 0)):
        content[index] ^= 255
    path.write_bytes(content)


def names(folder: Path) -> list[str]:
    return [path.name for path in whole_checkpoints([folder])]


def test_newest_by_what_the_files_say(tmp_path: Path) -> None:
    for name, moment in (('epoch_1', 30), ('iter_9', 20), ('iter_100', 10)):
        save(tmp_path / f'{name}.pth', 1e9 + moment)
    os.utime(tmp_path / 'iter_9.pth', (2e9, 2e9))  # copied last
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'iter_9.pth'))
    save(tmp_path / 'best_score_epoch_9.pth', 1e9 + 99)
    save(tmp_path / '.iter_10.77.part.pth', 1e9 + 99)
    assert names(tmp_path) == ['epoch_1.pth', 'iter_9.pth', 'iter_100.pth']
    assert newest_checkpoint([tmp_path]) == tmp_path / 'epoch_1.pth'


def test_without_a_note_the_date_of_the_file_counts(tmp_path: Path) -> None:
    for name, moment in (('a', 2e9), ('b', 1e9)):
        os.utime(save(tmp_path / f'{name}.pth'), (moment, moment))
    save(tmp_path / 'c.pth', 1.5e9)
    assert names(tmp_path) == ['a.pth', 'c.pth', 'b.pth']


@pytest.mark.parametrize('clock', [4e9, 1e300, float('inf'), float('nan'), 'noon', [1], True])
def test_no_clock_chooses_another_step(tmp_path: Path, clock: object) -> None:
    save(tmp_path / 'a.pth', clock, step=5)
    save(tmp_path / 'b.pth', 1e9, step=10)
    assert names(tmp_path) == ['b.pth', 'a.pth']
    # Nor the time of the same step: the file's date stands in.
    os.utime(save(tmp_path / 'c.pth', clock, step=10), (9e8, 9e8))
    if clock is not True:
        assert names(tmp_path) == ['b.pth', 'c.pth', 'a.pth']


def test_later_starts_come_before_later_steps(tmp_path: Path) -> None:
    """A run has gone back to step 10 by its name, and was killed at 15."""
    save(tmp_path / 'iter_10.pth', step=10, session=1)
    save(tmp_path / 'iter_20.pth', 2e9, step=20, session=1)
    save(tmp_path / 'iter_15.pth', 1e9, step=15, session=2)
    save(tmp_path / 'odd.pth', 1e9, step=99, session='last')
    assert names(tmp_path) == ['iter_15.pth', 'iter_20.pth', 'iter_10.pth', 'odd.pth']
    assert next_session([tmp_path]) == 3


def test_going_back_by_name_and_on(tmp_path: Path) -> None:
    loop = dict(by_epoch=False, max_iters=8)
    make_runner(tmp_path, loop, interval=1).train()
    torch.save(torch.load(tmp_path / 'iter_8.pth', weights_only=True), tmp_path / 'abandoned.pth')
    path = tmp_path / 'somewhere.pth'
    checkpoint = torch.load(tmp_path / 'iter_8.pth', weights_only=True)
    assert checkpoint['meta']['session'] == 1
    checkpoint['meta'].update(iter=2)
    torch.save(checkpoint, path)
    loop['max_iters'] = 4
    make_runner(tmp_path, loop, interval=1, resume=True, load_from=str(path)).train()
    assert newest_checkpoint([tmp_path]).name in ('iter_4.pth', 'epoch_1.pth')
    assert torch.load(tmp_path / 'iter_4.pth', weights_only=True)['meta']['session'] == 2


def test_one_run_in_a_folder(tmp_path: Path) -> None:
    """A second one leaves it as it is; the first one's end, or death, lets it in."""
    process = start(tmp_path, act=lambda runner: time.sleep(60))
    while not (tmp_path / 'trace').exists():
        time.sleep(0.01)
    part = tmp_path / '.iter_2.1234.part.pth'
    part.touch()  # the first one is writing it
    for resume in (False, True):
        with pytest.raises(
            RuntimeError, match=rf'training in {tmp_path} .process {process.pid} of'
        ):
            make_runner(tmp_path, resume=resume).train()
    assert part.exists()
    process.kill()
    process.join()
    make_runner(tmp_path, dict(by_epoch=False, max_iters=1), resume=True).train()
    assert not part.exists()
    make_runner(tmp_path, dict(by_epoch=False, max_iters=2), resume=True).train()


def test_a_run_that_failed_lets_the_next_of_its_process_in(tmp_path: Path) -> None:
    def fail(runner) -> None:
        raise ZeroDivisionError

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            make_runner(tmp_path, act=fail).train()


def test_of_the_same_moment_the_later_step(tmp_path: Path) -> None:
    for step in (9, 10):
        save(tmp_path / f'iter_{step}.pth', 1e9, step)
    assert names(tmp_path) == ['iter_10.pth', 'iter_9.pth']


@pytest.mark.parametrize('fault', ['cut', 'empty', 'bits', 'code', 'weights', 'tensor', 'text'])
def test_what_is_not_whole_is_passed_by_and_told(
    tmp_path: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []
    monkeypatch.setattr(
        'mmslip.engine.checkpointing.find.print_log', lambda text, *_, **__: told.append(text)
    )
    save(tmp_path / 'good.pth', 1e9)
    bad, mark = tmp_path / 'bad.pth', tmp_path / 'executed'
    save(bad, 2e9, **(dict(extra=PAYLOADS['os.mkdir'](str(mark))) if fault == 'code' else {}))
    if fault == 'cut':
        damage(bad, 0.7)
    elif fault == 'empty':
        bad.write_bytes(b'')
    elif fault == 'bits':
        damage(bad, 0.5, 4)
        torch.load(bad, weights_only=True)  # does not notice
    elif fault == 'weights':
        torch.save(dict(state_dict={}, meta={}), bad)
    elif fault == 'tensor':
        torch.save(torch.ones(3), bad)
    elif fault == 'text':
        bad.write_text('version https://git-lfs.github.com/spec/v1')
    assert newest_checkpoint([tmp_path]) == tmp_path / 'good.pth'
    assert len(told) == 1
    assert told[0].startswith(f'Not resumed from: {bad}')
    assert not mark.exists()
    (tmp_path / 'good.pth').unlink()
    with pytest.raises(RuntimeError, match=r'No checkpoint in .* is whole \(bad.pth\).*--resume'):
        newest_checkpoint([tmp_path])


def test_files_of_the_older_format(tmp_path: Path) -> None:
    meta = dict(epoch=0, iter=1, saved_at=2e9)
    content = dict(meta=meta, state_dict={}, message_hub={})
    torch.save(content, tmp_path / 'old.pth', _use_new_zipfile_serialization=False)
    save(tmp_path / 'new.pth', 1e9)
    assert names(tmp_path) == ['old.pth', 'new.pth']


def test_no_checkpoint(tmp_path: Path) -> None:
    assert newest_checkpoint([tmp_path]) is None
    save(tmp_path / 'best_score.pth')
    assert newest_checkpoint([tmp_path, tmp_path / 'none']) is None


def test_a_run_starts_anew_where_there_is_none(tmp_path: Path, capsys) -> None:
    # mmengine would try to load this, and fail.
    tmp_path.joinpath('last_checkpoint').write_text(str(tmp_path / 'iter_3.pth'))
    runner = make_runner(tmp_path, dict(by_epoch=False, max_iters=1), resume=True)
    runner.train()
    assert 'training starts anew' in capsys.readouterr().out
    assert [step for step, _ in trace(tmp_path)] == [0]


def test_a_run_goes_on_from_the_newest_whole_one(tmp_path: Path) -> None:
    make_runner(tmp_path, dict(by_epoch=False, max_iters=4)).train()
    assert sorted(path.name for path in tmp_path.glob('*.pth')) == ['epoch_1.pth', 'iter_4.pth']
    for name in ('iter_4', 'epoch_1'):
        path = tmp_path / f'{name}.pth'
        path.rename(tmp_path / f'kept_{name}')
    damage(save(tmp_path / 'iter_9.pth', 4e9), 0.5, 4)
    (tmp_path / 'kept_iter_4').rename(tmp_path / 'somewhere.pth')
    runner = make_runner(tmp_path, dict(by_epoch=False, max_iters=6), resume=True)
    runner.train()
    assert [step for step, _ in trace(tmp_path)] == list(range(6))


def test_checkpoints_in_another_folder(tmp_path: Path) -> None:
    """`out_dir` of CheckpointHook; `last_checkpoint` tells where."""
    elsewhere = tmp_path / 'elsewhere' / 'run'
    elsewhere.mkdir(parents=True)
    save(elsewhere / 'iter_5.pth', 1e9)
    work_dir = tmp_path / 'run'
    work_dir.mkdir()
    (work_dir / 'last_checkpoint').write_text(str(elsewhere / 'iter_4.pth'))  # which has gone
    runner = make_runner(work_dir, resume=True)
    AutoResumeHook().before_run(runner)
    assert runner._load_from == str(elsewhere / 'iter_5.pth')
    # A file that was being written says nothing, above all not where this process runs.
    (work_dir / 'last_checkpoint').write_text('')
    runner = make_runner(work_dir, resume=True)
    AutoResumeHook().before_run(runner)
    assert (runner._load_from, runner._resume) == (None, False)
    # A store is left to mmengine.
    (work_dir / 'last_checkpoint').write_text('s3://bucket/run/iter_4.pth')
    runner = make_runner(work_dir, resume=True)
    AutoResumeHook().before_run(runner)
    assert (runner._load_from, runner._resume) == (None, True)


def test_a_named_checkpoint_is_taken_as_it_is(tmp_path: Path) -> None:
    save(tmp_path / 'iter_5.pth', 1e9)
    runner = make_runner(tmp_path, resume=True, load_from='other.pth')
    AutoResumeHook().before_run(runner)
    assert runner._load_from == 'other.pth'


def test_each_hook_keeps_its_own_files(tmp_path: Path) -> None:
    """By step and by epoch, before and after a resume; mmengine has one list for both."""
    make_runner(tmp_path, dict(by_epoch=True, max_epochs=2)).train()

    def kept() -> list[str]:
        return sorted(path.name for path in tmp_path.glob('*.pth'))

    assert kept() == ['epoch_1.pth', 'epoch_2.pth', 'iter_10.pth']
    torch.save(torch.load(tmp_path / 'iter_10.pth'), tmp_path / 'iter_8.pth')  # left by a kill
    make_runner(tmp_path, dict(by_epoch=True, max_epochs=5), resume=True).train()
    assert kept() == ['epoch_3.pth', 'epoch_4.pth', 'epoch_5.pth', 'iter_24.pth']


def _choose(rank: int, world_size: int, folder: str) -> list[object]:
    """Checkpoint that each rank goes on from; the second sees files of its own."""
    found = []
    for part in ('whole', 'damaged', 'none'):
        work_dir = Path(folder, part, str(rank))
        runner = make_runner(work_dir, resume=True)
        try:
            AutoResumeHook().before_run(runner)
            found.append((runner._load_from, runner._resume))
        except RuntimeError as error:
            found.append(str(error))
    return found


@pytest.mark.dist
def test_all_processes_go_on_from_the_same(tmp_path: Path) -> None:
    for part in ('whole', 'damaged', 'none'):
        for rank in range(2):
            tmp_path.joinpath(part, str(rank)).mkdir(parents=True)
    chosen = save(tmp_path / 'whole' / '0' / 'a.pth', 1e9)
    save(tmp_path / 'whole' / '1' / 'b.pth', 2e9)
    (tmp_path / 'damaged' / '0' / 'a.pth').touch()
    save(tmp_path / 'none' / '1' / 'b.pth', 2e9)
    first, second = pool.run(_choose, 2, str(tmp_path))
    assert first == second
    assert tuple(first[0]) == (str(chosen), True)
    assert 'No checkpoint' in first[1]
    assert tuple(first[2]) == (None, False)


def test_iteration_loops_too(tmp_path: Path) -> None:
    make_runner(tmp_path, {**ITER_LOOP, 'max_iters': 3}).train()
    make_runner(tmp_path, {**ITER_LOOP, 'max_iters': 5}, resume=True).train()
    assert [step for step, _ in trace(tmp_path)] == list(range(5))
