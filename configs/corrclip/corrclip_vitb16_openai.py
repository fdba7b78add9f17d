"""CorrCLIP (Zhang et al., ICCV 2025) as far as it needs no Segment Anything.

    python tools/test.py configs/corrclip/corrclip_vitb16_openai.py --benchmark voc20

The authors take masks of SAM2 and similarities of DINO; here masks are superpixels and the proxy is the tower's own
middle, so that nothing is downloaded: name others by dense=dict(masks=…, proxy=…).

OpenAI's ViT-B/16.  Measured by us: not yet (no pretrained CLIP weights at hand).
"""

_base_ = "../_base_/runtime.py"

model = dict(
    type="OpenVocabSegmentor",
    weights="ViT-B-16/openai",
    dense=dict(type="CorrCLIP"),
    vocabulary="voc20",
    published={},
    protocol={},
)

# ProxyCLIP's settings, on which the method builds (inferred).
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
