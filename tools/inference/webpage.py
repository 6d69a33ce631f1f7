r"""A page in the browser that classifies images and searches a folder.

    python tools/inference/webpage.py CONFIG CHECKPOINT --folder photos

Needs gradio: pip install 'mmslip[web]'. The page is seen from this machine only, unless --host says
otherwise.
"""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from mmpretrain.utils import progress

from mmslip.apis import ImageRetrievalInferencer, ZeroShotClassificationInferencer, init_model
from mmslip.apis.command_line import (
    add_model_arguments,
    add_reading_arguments,
    default_index,
    plain_errors,
    read_small,
)

try:
    import gradio
except ImportError:
    raise SystemExit("The web page needs gradio: pip install 'mmslip[web]'.") from None


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Classify and search in the browser.')
    add_model_arguments(parser)
    parser.add_argument('--folder', type=Path, help='images to search, with those in folders below')
    parser.add_argument(
        '--index', type=Path, help='folder of the index (default: work_dirs/index/NAME OF FOLDER)'
    )
    parser.add_argument('--host', default='127.0.0.1', help='address to serve at')
    parser.add_argument('--port', type=int, default=7860)
    add_reading_arguments(parser)
    return parser.parse_args()


def build_page(
    classify: ZeroShotClassificationInferencer, search: ImageRetrievalInferencer | None
) -> gradio.Blocks:
    """The page; without a folder to search it has one tab."""
    with gradio.Blocks(title='mmslip', analytics_enabled=False) as page:
        gradio.Markdown('# mmslip')
        with gradio.Tab('Classify'):
            _add_classify(classify)
        if search is not None:
            with gradio.Tab('Search'):
                _add_search(search)
    return page


def _add_classify(inferencer: ZeroShotClassificationInferencer) -> None:
    def classify(image: str | None, labels: str, template: str) -> dict[str, float]:
        names = [line.split('|') for line in labels.splitlines() if line.strip()]
        if image is None:
            raise gradio.Error('Give an image.')
        with _shown_errors():
            (result,) = inferencer(image, names, [template], topk=10)
        if 'error' in result:
            raise gradio.Error(result['error'])
        return {top['label']: top['score'] for top in result['top']}

    with gradio.Row():
        with gradio.Column():
            image = gradio.Image(type='filepath', label='Image', height=320)
            labels = gradio.Textbox(
                'cat\ndog|hound\nred heart', lines=6, label='Labels, one a line'
            )
            template = gradio.Textbox(
                inferencer.templates[0], label='Prompt, with {} for the label'
            )
            button = gradio.Button('Classify', variant='primary')
        result = gradio.Label(num_top_classes=10, label='Labels')
    button.click(classify, [image, labels, template], result)


def _add_search(inferencer: ImageRetrievalInferencer) -> None:
    def search(text: str, image: str | None, topk: int) -> list[tuple[np.ndarray, str]]:
        if not text.strip() and image is None:
            raise gradio.Error('Give words or an image.')
        with _shown_errors():
            query = dict(texts=text) if text.strip() else dict(images=image)
            (result,) = inferencer(**query, topk=int(topk))
        if 'error' in result:
            raise gradio.Error(result['error'])
        return [
            (read_small(inferencer.folder / hit['image']), f'{hit["score"]:.3f}  {hit["image"]}')
            for hit in result['hits']
        ]

    def update() -> str:
        with _shown_errors():
            inferencer.update()
        return describe()

    def describe() -> str:
        return f'{len(inferencer.index):,} images of {inferencer.folder}'

    with gradio.Row():
        text = gradio.Textbox(label='Words')
        image = gradio.Image(type='filepath', label='or an image', height=160)
        topk = gradio.Slider(1, 64, value=12, step=1, label='Images')
    with gradio.Row():
        button = gradio.Button('Search', variant='primary')
        refresh = gradio.Button('Take note of changes in the folder')
    state = gradio.Markdown(describe())
    gallery = gradio.Gallery(columns=6, object_fit='contain', label='Closest first')
    for event in (button.click, text.submit):
        event(search, [text, image, topk], gallery)
    refresh.click(update, None, state)


@contextmanager
def _shown_errors() -> Iterator[None]:
    """Show errors that their text explains on the page."""
    try:
        yield
    except (ValueError, OSError, RuntimeError) as error:
        raise gradio.Error(str(error)) from error


def main() -> None:
    args = parse_args()
    progress.disable_progress_bar = True
    with plain_errors():
        model = init_model(args.config, args.checkpoint, args.device)
        search = None
        if args.folder is not None:
            index = args.index or default_index(args.folder)
            reading = dict(batch_size=args.batch_size, num_workers=args.num_workers)
            search = ImageRetrievalInferencer(model, args.folder, index, **reading)
        page = build_page(ZeroShotClassificationInferencer(model), search)
    page.launch(server_name=args.host, server_port=args.port)


if __name__ == '__main__':
    main()
