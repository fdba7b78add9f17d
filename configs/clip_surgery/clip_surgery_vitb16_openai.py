"""CLIP Surgery (Li et al., 2023): value-value attention beside the last six blocks.

    python tools/test.py configs/clip_surgery/clip_surgery_vitb16_openai.py --benchmark voc20

No settings of the paper are known here; sizes and windows are those usual for such methods.  OpenAI's ViT-B/16.
Measured by us: not yet (no pretrained CLIP weights at hand).
"""

_base_ = "../_base_/runtime.py"

model = dict(
    type="OpenVocabSegmentor",
    weights="ViT-B-16/openai",
    dense=dict(type="CLIPSurgery"),
    vocabulary="voc20",
    published={},
    protocol={},
)

benchmarks = dict()
