"""NACLIP (Hajimiri et al., WACV 2025): k·k attention with a Gaussian neighborhood, and PAMR.

    python tools/test.py configs/naclip/naclip_vitb16_openai.py --benchmark voc20

OpenAI's ViT-B/16.  Measured by us: not yet (no pretrained CLIP weights at hand).
"""

_base_ = "../_base_/runtime.py"

model = dict(
    type="OpenVocabSegmentor",
    weights="ViT-B-16/openai",
    dense=dict(type="NACLIP"),
    vocabulary="voc20",
    published={},
    protocol={},
)

# The published settings of each benchmark (of its configs (Stuff 336, ADE 336 as there)).
benchmarks = dict(
    voc21=dict(threshold=0.1, window=None),
    context60=dict(threshold=0.1),
    coco_object=dict(threshold=0.1),
    voc20=dict(window=None),
    cityscapes=dict(short_side=560),
    context59=dict(),
    ade150=dict(),
    coco_stuff=dict(),
)
