r"""A page in the browser that classifies images and searches a folder.

    mmslip web CONFIG CHECKPOINT --folder photos

Needs gradio: pip install 'mmslip[web]'. The page is seen from this machine only, unless --host says
otherwise.
"""

import argparse
import re
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from mmpretrain.utils import progress

from mmslip.apis import ImageRetrievalInferencer, ZeroShotClassificationInferencer, init_model
from mmslip.cli.errors import one_line, plain_errors
from mmslip.cli.inference import (
    add_model_arguments,
    add_reading_arguments,
    default_index,
    read_small,
    split_labels,
)
from mmslip.cli.parser import CommandParser, at_least

try:
    import gradio
except ImportError:
    raise SystemExit("The web page needs gradio: pip install 'mmslip[web]'.") from None


# gradio says on its own what is too large, below a red heading "Error"; the words are enough.
_CSS = """
.toast-title, .toast-body .toast-icon { display: none !important; }
"""


def parse_args(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = CommandParser('web', description='Classify and search in the browser.')
    add_model_arguments(parser)
    parser.add_argument('--folder', type=Path, help='images to search, with those in folders below')
    parser.add_argument(
        '--index', type=Path, help='folder of the index (default: one in work_dirs/index)'
    )
    parser.add_argument('--host', default='127.0.0.1', help='address to serve at')
    parser.add_argument('--port', type=at_least(0), default=7860)
    parser.add_argument(
        '--max-upload',
        type=at_least(1),
        default=20,
        metavar='MB',
        help='of an image (default: 20 MB)',
    )
    add_reading_arguments(parser)
    return parser.parse_args(arguments)


def build_page(
    classify: ZeroShotClassificationInferencer,
    search: ImageRetrievalInferencer | None,
    max_upload: int,
) -> gradio.Blocks:
    """The page; without a folder to search it has one tab.

    Args:
        classify: For the first tab.
        search: For the second tab.
        max_upload: Size of an image in MB that the server takes, which the page only says.
    """
    with gradio.Blocks(title='mmslip', analytics_enabled=False) as page:
        gradio.Markdown(f'# mmslip\nImages may have up to {max_upload} MB.')
        with gradio.Tab('Classify'):
            _add_classify(classify)
        if search is not None:
            with gradio.Tab('Search'):
                _add_search(search)
    return page


def _add_classify(inferencer: ZeroShotClassificationInferencer) -> None:
    def classify(image: str | None, labels: str, template: str) -> dict[str, float]:
        if image is None:
            raise ValueError('Give an image.')
        names = split_labels(re.split(r'[,\n]', labels))
        if len(names) < 2:
            raise ValueError('Give two labels or more, with a comma or a new line between them.')
        if template.count('{}') != 1:
            raise ValueError("The prompt needs one {}, where the label goes: 'a photo of a {}.'")
        (result,) = inferencer(image, names, [template], topk=10)
        if 'error' in result:
            raise ValueError('The image cannot be read: it is damaged, or of an unknown format.')
        return {top['label']: top['score'] for top in result['top']}

    with gradio.Row():
        with gradio.Column():
            image = _image_file(label='Image', height=320)
            labels = gradio.Textbox(
                'cat\ndog|hound\nred heart',
                lines=6,
                label='Labels',
                info='With commas or on lines of their own; a bar joins synonyms.',
            )
            template = gradio.Textbox(
                inferencer.templates[0], label='Prompt, with {} for the label'
            )
            button = gradio.Button('Classify', variant='primary')
        with gradio.Column():
            message = _message()
            result = gradio.Label(num_top_classes=10, label='Scores')
    button.click(_told(classify), [image, labels, template], [result, message])


def _add_search(inferencer: ImageRetrievalInferencer) -> None:
    def search(text: str, image: str | None, topk: int) -> list[tuple[np.ndarray, str]]:
        if not text.strip() and image is None:
            raise ValueError('Give words or an image.')
        query = dict(texts=text) if text.strip() else dict(images=image)
        (result,) = inferencer(**query, topk=int(topk))
        if 'error' in result:
            raise ValueError('The image cannot be read: it is damaged, or of an unknown format.')
        return [
            (read_small(inferencer.folder / hit['image']), f'{hit["score"]:.3f}  {hit["image"]}')
            for hit in result['hits']
        ]

    def update() -> str:
        inferencer.update()
        return describe()

    def describe() -> str:
        return escape(f'{len(inferencer.index):,} images of {inferencer.folder}, the closest first')

    with gradio.Row():
        text = gradio.Textbox(label='Words')
        image = _image_file(label='or an image', height=160)
        topk = gradio.Slider(1, 64, value=12, step=1, label='Images')
    with gradio.Row():
        button = gradio.Button('Search', variant='primary')
        refresh = gradio.Button('Take note of changes in the folder')
    message = _message()
    state = gradio.HTML(describe)
    gallery = gradio.Gallery(columns=6, object_fit='contain', show_label=False)
    for event in (button.click, text.submit):
        event(_told(search), [text, image, topk], [gallery, message])
    refresh.click(_told(update, gradio.skip()), None, [state, message])


def _image_file(**settings: Any) -> gradio.Image:
    """An image that arrives as it was uploaded.

    gradio would save a photograph anew before the model sees it, and end what cannot be read by an
    error without a reason.
    """
    image = gradio.Image(type='filepath', **settings)
    image.preprocess = lambda payload: payload and payload.path
    return image


def _message() -> gradio.HTML:
    """The place of what :func:`_told` has to say."""
    return gradio.HTML(visible=False)


def _told(function: Callable, otherwise: Any = None) -> Callable:
    """A function of a button whose errors are told in words: its result, and the message.

    Args:
        function: Of the inputs.
        otherwise: Result in the place of that of an error; nothing, so that no older one seems to
            be the answer.
    """

    def run(*arguments: Any) -> tuple[Any, gradio.HTML]:
        try:
            return function(*arguments), gradio.HTML(visible=False)
        except Exception as error:  # the page has no other place for it
            return otherwise, gradio.HTML(escape(one_line(error)), visible=True)

    return run


@plain_errors()
def main(arguments: Sequence[str] | None = None) -> None:
    args = parse_args(arguments)
    progress.disable_progress_bar = True
    model = init_model(args.config, args.checkpoint, args.device)
    search = None
    if args.folder is not None:
        index = args.index or default_index(args.folder)
        reading = dict(batch_size=args.batch_size, num_workers=args.num_workers)
        search = ImageRetrievalInferencer(model, args.folder, index, **reading)
    page = build_page(ZeroShotClassificationInferencer(model), search, args.max_upload)
    page.launch(
        server_name=args.host,
        server_port=args.port,
        max_file_size=f'{args.max_upload}mb',
        css=_CSS,
    )
