"""The report shows what the work folders hold, once, the same in every format, and safely."""

import base64
import csv
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config

from mmslip.analysis.report import charts, read_runs, runs, write_report
from mmslip.analysis.report.tables import figure_rows
from mmslip.cli import report
from mmslip.datasets.tasks import list_tasks, load_task

ROOT = Path(__file__).parents[2]

EVIL = '<script>alert("x")</script> & \'|'
PUBLISHED = ['clip_vit-b16_yfcc15m', 'slip_vit-b16_yfcc15m']
CONFIG = """
model = dict(type='mmslip.SLIP', ssl=dict(type='mmslip.SimCLR'), ssl_weight=0.5,
             text_backbone=dict(type='mmslip.TextTransformer'),
             backbone=dict(type='mmslip.VisionTransformer', arch='b'))
train_dataloader = dict(batch_size=96, dataset=dict(type='mmslip.ImageTextDataset', ann_file='a<b'))
optim_wrapper = dict(optimizer=dict(type='AdamW', lr=0.003, weight_decay=0.1))
train_cfg = dict(max_epochs=25)
randomness = dict(seed=7)
"""


def figure(task: str | None, metric: str, value: float | None, **fields: object) -> dict:
    record = dict(
        protocol='zero_shot', task=task, metric=metric, value=value, low=None, high=None,
        official=True, samples=10, mode='test', epoch=2, iter=20, checkpoint='a/epoch_2.pth',
        time='2026-01-02T03:04:05+00:00', experiment='job_20260102_030405',
    )  # fmt: skip
    return record | fields


def add_results(folder: Path, *records: dict) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / 'results.jsonl').open('a', encoding='utf-8') as file:
        file.writelines(json.dumps(record) + '\n' for record in records)


def add_log(folder: Path, name: str, lines: list[dict], config: str = CONFIG) -> None:
    vis_data = folder / name / 'vis_data'
    vis_data.mkdir(parents=True)
    (vis_data / 'config.py').write_text(config, encoding='utf-8')
    text = ''.join(json.dumps(line) + '\n' for line in lines)
    (vis_data / 'scalars.json').write_text(text, encoding='utf-8')


def add_showcase(folder: Path, task: str, text: str) -> bytes:
    """One picture in every place; returns its file."""
    target = folder / 'evaluation' / task
    target.mkdir(parents=True)
    content = cv2.imencode('.jpg', np.full((8, 8, 3), 90, np.uint8))[1].tobytes()
    (target / '5.jpg').write_bytes(content)
    example = dict(image='5.jpg', taken_for=text)
    worst = dict(
        name=text, samples=4, accuracy=25.0, taken_for=[dict(name=text, share=75.0)],
        examples=[example],
    )  # fmt: skip
    hits = [
        dict(image='5.jpg', score=0.5, right=True),
        dict(image='5.jpg', score=None, right=False),
    ]
    showcase = dict(
        task=task, samples=1234, classes=2, mode='test', epoch=2, checkpoint='a/epoch_2.pth',
        worst=[worst], retrieval=[dict(text=text, images=hits)],
        similarity=dict(texts=[text, 'b'], images=['5.jpg'] * 2, cosines=[[0.5, None], [0.1, 0.3]]),
    )  # fmt: skip
    (target / 'showcase.json').write_text(json.dumps(showcase), encoding='utf-8')
    return content


def steps(*values: float, key: str = 'loss') -> list[dict]:
    return [
        {key: value, 'lr': 0.1, 'time': 1, 'iter': number, 'step': number, 'epoch': 1}
        for number, value in enumerate(values, 1)
    ]


@pytest.fixture
def two_runs(tmp_path: Path) -> list[Path]:
    """One with everything, one with less."""
    full, other = tmp_path / 'full', tmp_path / 'other'
    add_log(full, '20260101_000000', steps(3.0, 2.0, 1.5))
    add_results(
        full,
        figure('pets', 'mean_per_class', 30.25, low=28.0, high=32.5),
        figure('pets', 'top1', 29.5, official=False),
        figure('food101', 'top1', 61.0, low=60.0, high=62.0),
        figure(EVIL, 'top1', 12.0),
        figure(None, 'mean', 45.6, official=False),
        dict(task='cars', skipped='there is no folder data/cars', mode='test'),
    )
    add_showcase(full, 'pets', EVIL)
    add_results(other, figure('pets', 'mean_per_class', 31.0, low=29.0, high=33.0))
    return [full, other]


class Page(HTMLParser):
    """Elements, texts and table cells of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.text, self.rows, self._cell = '', [], None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == 'tr':
            self.rows.append([])
        if tag in ('td', 'th'):
            self.rows[-1].append([dict(attrs), ''])
            self._cell = self.rows[-1][-1]

    def handle_endtag(self, tag: str) -> None:
        if tag in ('td', 'th'):
            self._cell = None

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._cell:
            self._cell[1] += data

    def of(self, tag: str) -> list[dict]:
        return [attrs for name, attrs in self.elements if name == tag]

    def table(self) -> dict[tuple[str, ...], list[str]]:
        """Cells behind set, protocol and metric."""
        rows = [[' '.join(text.split()) for _, text in row] for row in self.rows]
        return {tuple(row[:3]): row[3:] for row in rows}


def written(paths: list[Path], out: Path, **options: object) -> tuple[Page, dict, list[dict], str]:
    """The four files: parsed HTML, JSON, rows of the CSV, Markdown."""
    html, data, table, text = write_report(read_runs(paths), out, **options)
    assert [path.suffix for path in (html, data, table, text)] == ['.html', '.json', '.csv', '.md']
    rows = list(csv.DictReader(io.StringIO(table.read_text(encoding='utf-8'))))
    content = json.loads(data.read_text(encoding='utf-8'))
    page = html.read_text(encoding='utf-8')
    return Page(page), content, rows, text.read_text(encoding='utf-8')


def test_all_formats_hold_the_same_figures(two_runs: list[Path], tmp_path: Path) -> None:
    page, content, rows, text = written(two_runs, tmp_path / 'new' / 'report.html')
    got = {(row['run'], row['task'], row['metric']): row for row in content['results']}
    entry = got['full', 'pets', 'mean_per_class']
    assert (entry['value'], entry['low'], entry['high']) == (30.25, 28.0, 32.5)
    assert (entry['mode'], entry['epoch'], entry['samples']) == ('test', 2, 10)
    assert got['other', 'pets', 'mean_per_class']['value'] == 31.0
    published = got['slip_vit-b16_yfcc15m', 'pets', 'mean_per_class']
    assert (published['value'], published['mode'], published['epoch']) == (31.1, 'published', 25)
    assert got['clip_vit-b16_yfcc15m', 'food101', 'top1']['value'] == 50.6

    assert len(rows) == len(content['results']) == 6 + 4
    for row, entry in zip(rows, content['results'], strict=True):
        assert row == {key: '' if value is None else str(value) for key, value in entry.items()}

    cells = page.table()
    assert cells['Oxford Pets', 'zero-shot', 'mean per class'] == [
        '30.25 28.00 to 32.50', '31.00 29.00 to 33.00', '28.5', '31.1',
    ]  # fmt: skip
    pets = '| Oxford Pets | zero_shot | mean_per_class | 30.25 (28.00 to 32.50) | **31.00** (2'
    assert pets in text
    assert '| Food-101 | zero_shot | top1 | 61.00 (60.00 to 62.00) |  | 50.6 | 59.5 |' in text
    assert cells['Food-101', 'zero-shot', 'top1'] == ['61.00 60.00 to 62.00', '', '50.6', '59.5']
    # The published mean is of 26 sets.
    assert cells['mean of 3 sets', 'zero-shot', 'mean'] == ['45.60', '', '', '']
    # The mean first, then sets in the paper's order, then others.
    assert [row[0][1].strip() for row in page.rows[1:]] == [
        'mean of 3 sets', 'Food-101', 'Oxford Pets', 'Oxford Pets', EVIL,
    ]  # fmt: skip
    best = [
        cell[1].split()[0]
        for row in page.rows
        for cell in row
        if 'best' in cell[0].get('class', '')
    ]
    assert best == ['31.00']
    assert 'cars' in text
    assert content['runs'][0]['skipped'] == {'cars': 'there is no folder data/cars'}
    assert 'cars skipped: there is no folder data/cars' in page.text


def test_the_page_needs_nothing_else(two_runs: list[Path], tmp_path: Path) -> None:
    page, *_ = written(two_runs, tmp_path / 'report.html')
    text = (tmp_path / 'report.html').read_text(encoding='utf-8')
    assert not re.search(r'https?:|//[a-z]+\.|@import|url\(', text)
    assert {name for name, _ in page.elements}.isdisjoint({'link', 'iframe', 'object', 'base'})
    images = [attrs['src'] for attrs in page.of('img')]
    file = (two_runs[0] / 'evaluation' / 'pets' / '5.jpg').read_bytes()
    assert images == ['data:image/jpeg;base64,' + base64.b64encode(file).decode()] * 5
    targets = [attrs['href'] for attrs in page.of('a')]
    places = {attrs.get('id') for _, attrs in page.elements}
    assert targets == ['#results', '#curves', '#task-1']
    assert {target[1:] for target in targets} <= places


def test_texts_are_escaped(two_runs: list[Path], tmp_path: Path) -> None:
    page, *_ = written(two_runs, tmp_path / 'report.html')
    assert len(page.of('script')) == 1  # the page's own
    text = (tmp_path / 'report.html').read_text(encoding='utf-8')
    assert '<script>alert' not in text
    # Table and bars; name, rivals, caption of the worst class; retrieval; similarity.
    assert page.text.count(EVIL) == 7
    (head,) = (
        path for path in (tmp_path / 'report.md').read_text().splitlines() if 'alert' in path
    )
    assert head.startswith('| <script>alert("x")</script> & \'\\| | zero_shot |')


def test_pictures_show_what_was_recorded(two_runs: list[Path], tmp_path: Path) -> None:
    page, *_ = written(two_runs, tmp_path / 'report.html')
    assert '25.0 % of 4 right' in page.text
    assert '(75 %)' in page.text
    marks = [(attrs.get('class'), attrs['alt']) for attrs in page.of('img')][1:3]
    assert marks == [('right', 'right'), (None, 'wrong')]
    shades = [attrs['style'] for attrs in page.of('i') if '--s' in attrs.get('style', '')]
    assert shades == ['--s:0', '--s:1', '--s:1.0', '--s:0.0', '--s:0.0', '--s:0.5']
    assert 'From  0.10 to  0.50' in page.text.replace('\n', ' ')
    assert 'test, epoch_2.pth, epoch 2, 1,234 images' in page.text


def test_settings_are_those_of_the_training(two_runs: list[Path], tmp_path: Path) -> None:
    # A later test in the same folder knows less, or other things.
    later = 'randomness = dict(seed=3)\ntrain_cfg = dict(max_epochs=99)\nmodel = dict()'
    add_log(two_runs[0], '20260109_000000', [], later)
    page, content, *_ = written(two_runs, tmp_path / 'report.html')
    settings = content['runs'][0]['settings']
    assert list(settings)[0::7] == ['method', 'seed']
    assert settings == {
        'method': 'SLIP',
        'image tower': 'VisionTransformer, b',
        'self-supervised': 'SimCLR, weight 0.5',
        'data': 'ImageTextDataset, a<b',
        'batch': '96, a process',
        'optimiser': 'AdamW, lr 0.003, wd 0.1',
        'length': '25 epochs',
        'seed': '7',
    }
    assert 'ImageTextDataset, a<b' in page.text
    assert content['runs'][1]['settings'] == {}
    assert any('No config' in note for note in content['runs'][1]['notes'])


def test_curves_of_a_resumed_run(tmp_path: Path) -> None:
    add_log(tmp_path, '20260101_000000', steps(5.0, 4.0, 3.0, 9.0, 9.5))
    again = [dict(line, iter=line['iter'] + 2) for line in steps(2.5, 2.0)]
    add_log(tmp_path, '20260102_000000', [*again, {'zero_shot/val_top1': 3.0, 'step': 1}])
    add_results(
        tmp_path,
        figure('val', 'top1', 10.0, mode='val', iter=2),
        figure('val', 'top1', 20.0, mode='val', iter=4),
        figure('val', 'top5', 50.0, mode='val', iter=4, official=False),
        figure('val', 'top1', 20.5),
    )
    (run,) = read_runs([tmp_path])
    assert run.curves['loss'] == [(1, 5.0), (2, 4.0), (3, 2.5), (4, 2.0)]
    assert run.curves['zero_shot/val_top1'] == [(2, 10.0), (4, 20.0)]
    assert set(run.curves) == {'loss', 'lr', 'zero_shot/val_top1'}


def test_a_test_counts_before_validations_and_the_last_before_others(tmp_path: Path) -> None:
    add_results(
        tmp_path,
        figure('val', 'top1', 10.0, mode='val'),
        figure('val', 'top1', 30.0),
        figure('val', 'top1', 20.0),
        figure('val', 'top1', 40.0, mode='val'),
        figure('new', 'top1', 1.0, mode='val'),
        figure('new', 'top1', 2.0, mode='val'),
        dict(task='val', skipped='was not there once', mode='test'),
    )
    (run,) = read_runs([tmp_path])
    values = {key[1]: record['value'] for key, record in run.figures.items()}
    assert values == dict(val=20.0, new=2.0)
    assert run.skipped == {}


def test_published_models_by_name_and_by_choice(tmp_path: Path) -> None:
    add_results(
        tmp_path,
        figure('imagenet', 'top1', 40.0, experiment='slip_vit-s16_yfcc15m_50e_20260102_030405'),
        figure('imagenet', 'top1', 60.0, protocol='linear'),
    )
    runs = read_runs([tmp_path])
    zero_shot, linear = figure_rows(runs)
    own = 'slip_vit-s16_yfcc15m_50e'
    assert zero_shot.published == {own: 39.3, PUBLISHED[0]: 37.6, PUBLISHED[1]: 42.8}
    assert linear.published == {own: 67.6, PUBLISHED[0]: 66.5, PUBLISHED[1]: 72.1}
    (chosen, *_) = figure_rows(runs, ['simclr_vit-l16_yfcc15m', 'clip_vit-l16_yfcc15m'])
    assert chosen.published == {'clip_vit-l16_yfcc15m': 40.4}
    assert figure_rows(runs, [])[0].published == {}
    with pytest.raises(ValueError, match='called nonsense: choose among clip_vit-s16_yfcc15m'):
        figure_rows(runs, ['nonsense'])


def test_exact_and_sgd_probes_stand_apart(tmp_path: Path) -> None:
    exact, sgd, both = tmp_path / 'exact', tmp_path / 'sgd', tmp_path / 'both'
    probe = dict(protocol='linear', time='2026-01-02T03:04:06+00:00')
    strength = figure('imagenet', 'l2', 1e-4, official=False, **probe)
    add_results(exact, figure('imagenet', 'top1', 60.0, **probe), strength)
    add_results(sgd, figure('imagenet', 'top1', 65.0, protocol='linear'))
    add_results(both, figure('imagenet', 'top1', 61.0, protocol='linear'))
    add_results(both, figure('imagenet', 'top1', 62.0, **probe), strength)
    rows = {row.key: row for row in figure_rows(read_runs([exact, sgd, both]))}
    values = {
        key: {run: record['value'] for run, record in row.records.items()}
        for key, row in rows.items()
    }
    assert values == {
        ('linear', 'imagenet', 'top1'): dict(sgd=65.0, both=61.0),
        ('linear_exact', 'imagenet', 'top1'): dict(exact=60.0, both=62.0),
        ('linear_exact', 'imagenet', 'l2'): dict(exact=1e-4, both=1e-4),
    }
    published = {key[0]: row.published for key, row in rows.items() if key[2] == 'top1'}
    assert published['linear'] == {PUBLISHED[0]: 66.5, PUBLISHED[1]: 72.1}
    assert published['linear_exact'] == {}


def mean_row(*paths: Path) -> object:
    return next((row for row in figure_rows(read_runs(paths)) if row.key[1] is None), None)


def test_a_mean_stands_beside_those_of_the_same_sets(tmp_path: Path) -> None:
    whole, two, one = tmp_path / 'whole', tmp_path / 'two', tmp_path / 'one'
    mean = figure(None, 'mean', 40.0, official=False)
    metrics = {task: load_task(task).metric for task in list_tasks()}
    add_results(whole, *(figure(task, metrics[task], 40.0) for task in metrics), mean)
    add_results(two, figure('pets', 'mean_per_class', 50.0), figure('mine', 'top1', 60.0), mean)
    add_results(one, figure('mine', 'top1', 40.0), mean)
    assert mean_row(one) is None
    assert (mean_row(two).title, mean_row(two).published) == ('mean of 2 sets', {})
    assert mean_row(whole).published == {PUBLISHED[0]: 34.2, PUBLISHED[1]: 38.0}
    together = mean_row(whole, two)
    assert (together.title, together.published) == ("mean of each run's own sets", {})
    assert together.best == ()
    assert set(mean_row(whole, one).records) == {'whole'}


@pytest.mark.parametrize(
    ('config', 'method'),
    [
        (dict(text_backbone={'type': 'a'}, ssl=dict(type='mmslip.SimCLR')), 'SLIP'),
        (dict(text_backbone={'type': 'a'}, ssl=None), 'CLIP'),
        (dict(text_backbone={'type': 'a'}, head=dict(type='mmslip.SigLIPHead')), 'SigLIP'),
        (dict(ssl=dict(type='mmslip.MoCoV3')), 'MoCoV3'),
    ],
)
def test_a_method_has_its_own_name(config: dict, method: str, tmp_path: Path) -> None:
    config.setdefault('type', 'mmslip.SLIP')
    text = f'model = {config}\ntrain_dataloader = dict(batch_size=8)'
    add_log(tmp_path / 'run', '20260101_000000', steps(1.0), text)
    assert read_runs([tmp_path / 'run'])[0].settings['method'] == method
    # A test leaves the self-supervised half out, whatever the training had.
    test = f'model = {dict(config, ssl=None)}'
    add_log(tmp_path / 'test', '20260101_000000', [], test)
    add_results(tmp_path / 'test', figure('x', 'top1', 1.0))
    assert 'method' not in read_runs([tmp_path / 'test'])[0].settings


def test_steps_are_told_where_no_epochs_were_counted(tmp_path: Path) -> None:
    add_results(
        tmp_path,
        figure('pets', 'mean_per_class', 1.0, epoch=0, iter=12000, checkpoint='a/iter_12000.pth'),
        figure('dtd', 'top1', 1.0, epoch=0, iter=0, mode='val', checkpoint=None),
    )
    page, content, *_ = written([tmp_path], tmp_path / 'report.html')
    titles = [attrs['title'] for attrs in page.of('td') if 'title' in attrs]
    assert titles == ['val, epoch 0', 'test, iter_12000.pth, step 12,000']
    epochs = {row['task']: row['epoch'] for row in content['results'] if row['mode'] == 'test'}
    assert epochs == {'pets': None}


def test_bars_have_the_length_of_their_values(two_runs: list[Path]) -> None:
    runs = read_runs(two_runs)
    (group,) = charts.bar_groups(figure_rows(runs), runs)
    assert group['protocol'] == 'zero_shot'
    assert group['scale'] == 100  # beyond the 62 of an interval
    pets = next(entry for entry in group['sets'] if 'Pets' in entry['title'])
    assert [bar['length'] for bar in pets['bars']] == [30.25, 31.0]
    assert [bar['ends'] for bar in pets['bars']] == [[28.0, 32.5], [29.0, 33.0]]
    assert [mark['at'] for mark in pets['published']] == [28.5, 31.1]
    # The mean and what sets are judged by, no more.
    assert [entry['metric'] for entry in group['sets']] == [
        'mean',
        'top1',
        'mean_per_class',
        'top1',
    ]


def test_lines_go_through_their_points() -> None:
    points = [(10, 1.0), (20, 3.0), (30, 2.0)]
    svg = str(charts.line_chart([(9, 'a', points), (1, EVIL, [(20, 1.0)])]))
    (chart,) = Page(svg).of('svg')
    first, second = json.loads(chart['data-curves'])['curves']
    assert (first['color'], first['steps'], first['values']) == (1, [10, 20, 30], [1.0, 3.0, 2.0])
    assert second['name'] == EVIL
    (x0, y0), (x1, y1), (x2, y2) = first['at']
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert y0 - y1 == pytest.approx(2 * (y0 - y2), abs=0.2)  # upwards on the screen is less
    assert second['at'] == [[x1, y0]]
    # The line that is drawn goes where the script finds its points.
    paths = [path for path in Page(svg).of('path') if 'style' in path]
    line, _ = (path['d'] for path in paths if 'none; stroke: var(--c1)' in path['style'])
    drawn = [float(number) for number in re.findall(r'[\d.]+', line)]
    assert drawn == pytest.approx([x0, y0, x1, y1, x2, y2], abs=0.06)


def test_long_curves_are_thinned_to_means() -> None:
    points = [(step, float(step % 2)) for step in range(3000)]
    thinned = charts.thin(points)
    assert len(thinned) == 300
    assert {value for _, value in thinned} == {0.5}
    assert charts.thin(points[:300]) == points[:300]


def test_what_is_missing_is_said(tmp_path: Path, capsys, monkeypatch) -> None:
    curves, figures, empty = tmp_path / 'curves', tmp_path / 'figures', tmp_path / 'empty'
    add_log(curves, '20260101_000000', steps(1.0, float('nan')), 'raise OSError("no")')
    with next(curves.glob('*/vis_data/scalars.json')).open('a') as file:
        file.write('{"loss": 0.5, "it')
    add_results(figures, figure('x', 'top1', None), dict(protocol='knn', value=1))
    add_showcase(figures, 'x', 'a')
    (figures / 'evaluation' / 'x' / '5.jpg').unlink()
    empty.mkdir()
    report.main([*map(str, (curves, figures, empty, curves))])
    printed = capsys.readouterr().out
    assert '1 broken lines of 20260101_000000/vis_data/scalars.json are left out' in printed
    assert 'curves: 20260101_000000/vis_data/config.py cannot be read' in printed
    assert 'curves: No results.jsonl' in printed
    assert 'figures: No training curves' in printed
    assert "figures: A line of results.jsonl is left out: it has no 'task'" in printed
    assert 'figures: evaluation/x/showcase.json cannot be used: FileNotFoundError' in printed
    assert 'empty: No results.jsonl' in printed
    assert f'wrote {curves / "report.html"}' in printed
    page = Page((curves / 'report.html').read_text(encoding='utf-8'))
    assert page.table()['x', 'zero-shot', 'top1'] == ['', 'not finite', '']
    assert len(page.of('svg')) == 2  # loss and lr, once
    assert 'No training curves' in page.text


@pytest.mark.parametrize('name', ['slip/slip_vit-b16_yfcc15m', 'benchmarks/finetune/vit-b16_in1k'])
def test_a_config_of_mmengine_is_read_as_data(name: str) -> None:
    cfg = Config.fromfile(ROOT / 'configs' / f'{name}.py', import_custom_modules=False)
    plain = json.loads(json.dumps(cfg.to_dict()))  # with lists for tuples
    assert runs._read_config(cfg.pretty_text) == plain


@pytest.mark.parametrize(
    'code',
    [
        'open({!r}, "w")',
        'model = dict(type=open({!r}, "w"))',
        'model = dict([open({!r}, "w")])',
        'model = [0 for _ in [open({!r}, "w")]]',
    ],
)
def test_a_config_is_not_executed(code: str, tmp_path: Path) -> None:
    mark = tmp_path / 'executed'
    add_log(tmp_path / 'run', '20260101_000000', steps(1.0), code.format(str(mark)))
    (run,) = read_runs([tmp_path / 'run'])
    assert not mark.exists()
    assert run.settings == {}
    assert run.notes[0].startswith('20260101_000000/vis_data/config.py cannot be read: ValueError')


def test_runs_of_the_same_name_are_told_apart(tmp_path: Path) -> None:
    for parent in ('a', 'b'):
        add_results(tmp_path / parent / 'run', figure('x', 'top1', 1.0))
    runs = read_runs(
        [tmp_path / 'a' / 'run', tmp_path / 'b' / 'run', tmp_path / 'a' / '..' / 'a/run']
    )
    assert [run.name for run in runs] == ['a/run', 'b/run']


@pytest.mark.parametrize('kind', ['missing', 'empty'])
def test_nothing_to_report(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / kind
    if kind == 'empty':
        folder.mkdir()
    message = 'There is no work folder' if kind == 'missing' else 'Nothing to report in .*work_dir'
    with pytest.raises(SystemExit, match=message):
        report.main([str(folder)])
    assert not (folder / 'report.html').exists()


def test_only_curves(tmp_path: Path) -> None:
    add_log(tmp_path, '20260101_000000', steps(1.0))
    page, content, rows, _ = written([tmp_path], tmp_path / 'report.html')
    assert content['results'] == rows == []
    assert 'There are no figures' in page.text
    assert len(page.of('svg')) == 2
