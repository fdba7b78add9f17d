"""GEM (Bousselham et al., CVPR 2024): a self-self attention stream beside the last six blocks.

    python tools/test.py configs/gem/gem_vitb16_openai.py --benchmark voc20

OpenAI's ViT-B/16.  Measured by us: not yet (no pretrained CLIP weights at hand).
"""

_base_ = "../_base_/runtime.py"

model = dict(
    type="OpenVocabSegmentor",
    weights="ViT-B-16/openai",
    dense=dict(type="GEM"),
    vocabulary="voc20",
    published={},
    protocol={},
)

# The published settings of each benchmark (of its repository: the same on all; no threshold is published).
benchmarks = dict(
    voc21=dict(),
    context60=dict(),
    coco_object=dict(),
    voc20=dict(),
    cityscapes=dict(),
    context59=dict(),
    ade150=dict(),
    coco_stuff=dict(),
)
