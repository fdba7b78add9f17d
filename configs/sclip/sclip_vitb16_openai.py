"""SCLIP (Wang et al., ECCV 2024): q·q + k·k attention in the last block.

    python tools/test.py configs/sclip/sclip_vitb16_openai.py --benchmark voc20

OpenAI's ViT-B/16.  Measured by us: not yet (no pretrained CLIP weights at hand).
"""

_base_ = "../_base_/runtime.py"

model = dict(
    type="OpenVocabSegmentor",
    weights="ViT-B-16/openai",
    dense=dict(type="SCLIP"),
    vocabulary="voc20",
    published={},
    protocol={},
)

# The published settings of each benchmark (of its configs).
benchmarks = dict(
    voc21=dict(threshold=0.1, logit_scale=65, area_threshold=0.1),
    context60=dict(threshold=0.1, logit_scale=50),
    coco_object=dict(threshold=0.1, logit_scale=50),
    voc20=dict(),
    cityscapes=dict(short_side=560),
    context59=dict(),
    ade150=dict(),
    coco_stuff=dict(short_side=448),
)
