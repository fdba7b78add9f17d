"""ClearCLIP (Lan et al., ECCV 2024): q·q attention, no residual, no feed-forward.

    python tools/test.py configs/clearclip/clearclip_vitb16_openai.py --benchmark voc20

OpenAI's ViT-B/16.  Measured by us: not yet (no pretrained CLIP weights at hand).
"""

_base_ = "../_base_/runtime.py"

model = dict(
    type="OpenVocabSegmentor",
    weights="ViT-B-16/openai",
    dense=dict(type="ClearCLIP"),
    vocabulary="voc20",
    published={},
    protocol={},
)

# The published settings of each benchmark (of its configs).
benchmarks = dict(
    voc21=dict(threshold=0.5),
    context60=dict(threshold=0.15),
    coco_object=dict(threshold=0.4),
    voc20=dict(),
    cityscapes=dict(window=224, stride=224),
    context59=dict(),
    ade150=dict(),
    coco_stuff=dict(),
)
