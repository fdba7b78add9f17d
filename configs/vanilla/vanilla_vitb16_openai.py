"""The baseline: plain tokens of CLIP's last block, under SCLIP's protocol.

    python tools/test.py configs/vanilla/vanilla_vitb16_openai.py --benchmark voc20

OpenAI's ViT-B/16.  Measured by us: not yet (no pretrained CLIP weights at hand).
"""

_base_ = "../_base_/runtime.py"

model = dict(
    type="OpenVocabSegmentor",
    weights="ViT-B-16/openai",
    dense=dict(type="Vanilla"),
    vocabulary="voc20",
    published={},
    protocol={},
)

# The published settings of each benchmark (not published for it: SCLIP's, without its area threshold).
benchmarks = dict(
    voc21=dict(threshold=0.1, logit_scale=65),
    context60=dict(threshold=0.1, logit_scale=50),
    coco_object=dict(threshold=0.1, logit_scale=50),
    voc20=dict(),
    cityscapes=dict(short_side=560),
    context59=dict(),
    ade150=dict(),
    coco_stuff=dict(short_side=448),
)
