"""The main job in ten languages at once: each visit of a drawing draws one of them for its caption.

The vocabulary was trained on the captions (tools/dataset_converters/emoji_languages.py). Each
language is an evaluation task of its own: `val_en` has the English names of the unseen vendor's
drawings, `val_th` the Thai ones.
"""

_base_ = ['slip_tiny_emoji.py']

languages = ['en', 'de', 'fr', 'es', 'ru', 'ar', 'hi', 'zh', 'ja', 'th']
tokenizer = dict(
    type='mmslip.CLIPTokenizer',
    context_length=24,  # 1 % of the captions are longer, in Hindi 3 %
    merges_file='mmslip::emoji/languages_merges.txt.gz',
)
model = dict(text_backbone=dict(vocab_size=16514, context_length=24))  # 514 + 16,000 merges

pipeline = _base_.train_dataloader.dataset.pipeline
pipeline[1].tokenizer = tokenizer
train_dataloader = dict(dataset=dict(languages=languages, pipeline=pipeline))
evaluated = dict(
    type='mmslip.EmojiDataset', split='val', pipeline=_base_.test_pipeline, test_mode=True
)
val_dataloader = dict(
    dataset=dict(datasets=[dict(evaluated, languages=[language]) for language in languages])
)
test_dataloader = val_dataloader

custom_hooks = [hook for hook in _base_.custom_hooks if hook.type != 'mmslip.PixelBaselineHook']
for hook in custom_hooks:
    if hook.type == 'mmslip.ZeroShotHook':
        hook.tokenizer = tokenizer
    elif hook.type == 'mmslip.RetrievalPictureHook':
        hook.task = 'val_en'
del evaluated, hook, languages, pipeline, tokenizer  # the loaders and the hooks have them
