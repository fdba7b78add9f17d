"""ResCLIP (Yang et al., CVPR 2025): attention of the middle blocks and semantic feedback, over NACLIP.

    python tools/test.py configs/resclip/resclip_vitb16_openai.py --benchmark voc20

OpenAI's ViT-B/16.  Measured by us: not yet (no pretrained CLIP weights at hand).
"""

_base_ = "../_base_/runtime.py"

model = dict(
    type="OpenVocabSegmentor",
    weights="ViT-B-16/openai",
    dense=dict(type="ResCLIP"),
    vocabulary="voc20",
    published={},
    protocol={},
)

# The published settings of each benchmark (of its configs; sizes and windows are NACLIP's, without PAMR).
benchmarks = dict(
    voc21=dict(
        threshold=0.1,
        window=None,
        dense=dict(residual=(2.0, 0.3), feedback=(2.2, 0.7)),
        scorer=dict(type="FeedbackScore", threshold=0.5),
    ),
    context60=dict(
        threshold=0.1,
        dense=dict(residual=(2.0, 0.3), feedback=(1.8, 0.7)),
        scorer=dict(type="FeedbackScore", threshold=0.3),
    ),
    coco_object=dict(
        threshold=0.1,
        dense=dict(residual=(2.0, 0.4), feedback=(1.8, 0.7)),
        scorer=dict(type="FeedbackScore", threshold=0.11),
    ),
    voc20=dict(
        window=None,
        dense=dict(residual=(2.0, 0.6), feedback=(2.1, 0.6)),
        scorer=dict(type="FeedbackScore", threshold=0.1),
    ),
    cityscapes=dict(
        short_side=560,
        dense=dict(residual=(2.0, 0.2), feedback=(2.1, 0.6)),
        scorer=dict(type="FeedbackScore", threshold=0.1),
    ),
    context59=dict(
        dense=dict(residual=(2.0, 0.4), feedback=(1.8, 0.7)),
        scorer=dict(type="FeedbackScore", threshold=0.25),
    ),
    ade150=dict(
        dense=dict(residual=(2.0, 0.3), feedback=(2.1, 0.7)),
        scorer=dict(type="FeedbackScore", threshold=0.25),
    ),
    coco_stuff=dict(
        dense=dict(residual=(2.0, 0.4), feedback=(1.8, 0.7)),
        scorer=dict(type="FeedbackScore", threshold=0.11),
    ),
)
