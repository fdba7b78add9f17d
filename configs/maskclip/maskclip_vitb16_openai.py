"""MaskCLIP (Zhou et al., ECCV 2022): the value path of the last block.

    python tools/test.py configs/maskclip/maskclip_vitb16_openai.py --benchmark voc20

OpenAI's ViT-B/16.  Measured by us: not yet (no pretrained CLIP weights at hand).
"""

_base_ = "../_base_/runtime.py"

model = dict(
    type="OpenVocabSegmentor",
    weights="ViT-B-16/openai",
    dense=dict(type="MaskCLIP"),
    vocabulary="voc20",
    published={},
    protocol={},
)

# The published settings of each benchmark (of its configs; ViT test scales).
benchmarks = dict(
    voc20=dict(short_side=512),
    context59=dict(short_side=520, max_long_side=520),
    coco_stuff=dict(short_side=512),
    cityscapes=dict(short_side=512, max_long_side=1024),
)
