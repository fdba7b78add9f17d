"""Trident (Shi et al., ICCV 2025) as far as it needs no Segment Anything.

    python tools/test.py configs/trident/trident_vitb16_openai.py --benchmark voc20

The authors take similarities of DINO and a global step by SAM; here the proxy is the tower's own middle and there is no
global step: name others by dense=dict(proxy=…, aggregate=…).

OpenAI's ViT-B/16.  Measured by us: not yet (no pretrained CLIP weights at hand).
"""

_base_ = "../_base_/runtime.py"

model = dict(
    type="OpenVocabSegmentor",
    weights="ViT-B-16/openai",
    dense=dict(type="Trident"),
    vocabulary="voc20",
    published={},
    protocol={},
)

# The published settings of each benchmark (of its configs).
benchmarks = dict(
    voc21=dict(short_side=448, threshold=0.2),
    context60=dict(short_side=576, threshold=0.15),
    coco_object=dict(short_side=448, threshold=0.25),
    voc20=dict(),
    cityscapes=dict(short_side=688),
    context59=dict(short_side=576),
    ade150=dict(short_side=576),
    coco_stuff=dict(short_side=448),
)
