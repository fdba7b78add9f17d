"""clip_prs (Gandelsman et al., ICLR 2024): what the image embedding owes to every patch.

    python tools/test.py configs/clip_prs/clip_prs_vitb16_laion.py --benchmark voc20

LAION's ViT-B/16.  Measured by us: not yet (no pretrained CLIP weights at hand).
"""

_base_ = "../_base_/runtime.py"

model = dict(
    type="OpenVocabSegmentor",
    weights="ViT-B-16/laion2b_s34b_b88k",
    dense=dict(type="clip_prs"),
    vocabulary="voc20",
    published={},
    protocol={},
)

# The paper reports on none of the benchmarks: all run with the method's own settings.
benchmarks = {}
