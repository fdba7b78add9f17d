"""Adapting CLIP (Li, Shakhnarovich and Yeh, 2022): the box of a phrase, training-free.

    python tools/test.py configs/adapting_clip/adapting_clip_vitb16_openai.py --benchmark coco_mini_phrases

OpenAI's ViT-B/16.  Measured by us: not yet (no pretrained CLIP weights at hand).
"""

_base_ = "../_base_/runtime.py"

model = dict(
    type="PhraseLocalizer",
    weights="ViT-B-16/openai",
    vocabulary=None,
    published={},
    protocol=dict(alpha=0.8, temperature=0.01),  # the paper's for this tower, on Flickr30k Entities
)

# The paper publishes settings for Flickr30k Entities and Visual Genome, which are not among the benchmarks here.
benchmarks = dict()
