r"""Count the multiplications of a model's forward pass, tower by tower, by mmengine's analysis.

    python tools/analysis/get_flops.py configs/clip/clip_vit-b16_yfcc15m.py

One image and one caption of full length; a multiplication with its addition counts once. A step of
training takes three times as much, and SLIP sees two views more.
"""

import argparse

import torch
from mmengine.analysis import ActivationAnalyzer, FlopAnalyzer
from mmengine.analysis.print_helper import complexity_stats_table
from rich.console import Console

from mmslip.apis import init_model


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Count parameters and multiplications.')
    parser.add_argument('config', help='config file, or a name of mmslip.list_models()')
    parser.add_argument('--size', type=int, default=224, help='side of the image (default: 224)')
    parser.add_argument('--depth', type=int, default=2, help='levels of modules (default: 2)')
    return parser.parse_args()


def attention_flops(inputs: list, outputs: list) -> int:
    """Multiplications of fused attention, which mmengine 0.10 does not know.

    ``(..., T, d) x (..., d, S)`` for the weights, and as many for their sums.
    """
    query, key = (value.type().sizes() for value in inputs[:2])
    return 2 * key[-2] * torch.Size(query).numel()


def main() -> None:
    args = parse_args()
    model = init_model(args.config, device='cpu')
    inputs = dict(image=torch.zeros(1, 3, args.size, args.size))
    if model.with_text:
        inputs['text'] = torch.ones(1, model.text_backbone.context_length, dtype=torch.long)
    flops = FlopAnalyzer(model, (inputs,)).unsupported_ops_warnings(False)
    flops.uncalled_modules_warnings(False).set_op_handle(
        'aten::scaled_dot_product_attention', attention_flops
    )
    activations = ActivationAnalyzer(model, (inputs,)).unsupported_ops_warnings(False)
    activations.uncalled_modules_warnings(False)
    table = complexity_stats_table(
        flops=flops, activations=activations, max_depth=args.depth, show_param_shapes=False
    )
    Console().print(table)
    print(f'{flops.total() / 1e9:.4g} G multiplications')


if __name__ == '__main__':
    main()
