"""Compare the speed of `CLIPTokenizer` with the SimpleTokenizer of open_clip.

Both encode the same generated captions in alternating repeats of one run, so that a change in
the machine's load meets both. Without open_clip the reference is a loop of our own single calls.

    python tools/benchmarks/tokenizer.py --captions 4000 --repeats 7
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable

from mmslip.datasets.text.tokenizer import CLIPTokenizer

try:
    from open_clip.tokenizer import SimpleTokenizer
except ImportError:
    SimpleTokenizer = None

WORDS = (
    'a the of in on with and photo picture cat dog car sandwich automobile mountain lake sunset '
    'woman man child running sitting beautiful old red green black vintage wedding kitchen 2012 '
    "don't o'clock skateboarding refrigerator , . ! -"
).split()
# Web captions also hold text that is not ASCII, which takes the slow way through the cleaning.
RARE_WORDS = ['café', 'naïve', 'itâ€™s', '日本', '😀', 'R&amp;B']


def make_captions(count: int, rare_share: float, seed: int) -> list[str]:
    """Draw `count` captions of 5 to 20 words; a share of them holds one word beyond ASCII."""
    rng = random.Random(seed)
    captions = []
    for _ in range(count):
        words = rng.choices(WORDS, k=rng.randint(5, 20))
        if rng.random() < rare_share:
            words.append(rng.choice(RARE_WORDS))
        captions.append(' '.join(words))
    return captions


def make_runs(batch_size: int) -> dict[str, Callable[[list[str]], None]]:
    """Return the ways to encode all captions by name, the reference first."""
    ours = CLIPTokenizer()

    def single(encode: Callable, captions: list[str]) -> None:
        for caption in captions:
            encode(caption)

    def batched(encode: Callable, captions: list[str]) -> None:
        for begin in range(0, len(captions), batch_size):
            encode(captions[begin : begin + batch_size])

    runs: dict[str, Callable[[list[str]], None]] = {}
    if SimpleTokenizer is not None:
        theirs = SimpleTokenizer()
        runs['open_clip, single'] = lambda captions: single(theirs, captions)
        runs['open_clip, batch'] = lambda captions: batched(theirs, captions)
    runs['ours, single'] = lambda captions: single(ours, captions)
    runs['ours, batch'] = lambda captions: batched(ours, captions)
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--captions', type=int, default=4000, help='captions per repeat')
    parser.add_argument('--batch-size', type=int, default=512, help='captions per batch call')
    parser.add_argument('--repeats', type=int, default=7, help='timed repeats of each way')
    parser.add_argument('--rare-share', type=float, default=0.1, help='captions beyond ASCII')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()

    captions = make_captions(args.captions, args.rare_share, args.seed)
    runs = make_runs(args.batch_size)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(args.repeats + 1):
        for name, run in runs.items():
            begin = time.perf_counter()
            run(captions)
            if repeat:  # the first round fills the word caches of both
                seconds[name].append(time.perf_counter() - begin)

    if SimpleTokenizer is None:
        print('open_clip is not installed: the reference is a loop of our own single calls')
    reference = {
        way: seconds.get(f'open_clip, {way}', seconds['ours, single'])
        for way in ('single', 'batch')
    }
    for name, times in seconds.items():
        base = reference[name.rsplit(', ', 1)[1]]
        ratios = [b / t for b, t in zip(base, times, strict=True)]
        print(
            f'{name:18s} {len(captions) / statistics.median(times):9.0f} captions/s   '
            f'x{statistics.median(ratios):.2f} of the reference '
            f'({min(ratios):.2f} to {max(ratios):.2f})'
        )


if __name__ == '__main__':
    main()
