"""ProxyCLIP (Lan et al., ECCV 2024): attention from the features of DINO's ViT-B/8.

    python tools/test.py configs/proxyclip/proxyclip_vitb16_openai.py --benchmark voc20

OpenAI's ViT-B/16.  timm fetches DINO.  Measured by us: not yet (no pretrained CLIP weights at hand).
"""

_base_ = "../_base_/runtime.py"

model = dict(
    type="OpenVocabSegmentor",
    weights="ViT-B-16/openai",
    dense=dict(type="ProxyCLIP", proxy=dict(type="TimmProxy", model="vit_base_patch8_224.dino")),
    vocabulary="voc20",
    published={},
    protocol={},
)

# The published settings of each benchmark (of its configs).
benchmarks = dict(
    voc21=dict(threshold=0.2),
    context60=dict(threshold=0.15),
    coco_object=dict(threshold=0.25),
    voc20=dict(),
    cityscapes=dict(short_side=448, window=224),
    context59=dict(),
    ade150=dict(short_side=448),
    coco_stuff=dict(),
)
