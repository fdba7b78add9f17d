"""CLIP-DINOiser (Wysoczańska et al., ECCV 2024): MaskCLIP pooled by two trained convolutions.

    python tools/test.py configs/clip_dinoiser/clip_dinoiser_vitb16_laion.py --benchmark voc20

LAION's ViT-B/16.  The two convolutions come from the authors (github.com/wysoczanska/clip_dinoiser): put the file
where ``checkpoint`` says or change it with --cfg-options model.dense.checkpoint=FILE.  There is no config for the
embedded model, whose tower has another width.  Measured by us: not yet (no pretrained CLIP weights at hand).
"""

_base_ = "../_base_/runtime.py"

model = dict(
    type="OpenVocabSegmentor",
    weights="ViT-B-16/laion2b_s34b_b88k",
    dense=dict(type="CLIPDINOiser", checkpoint="checkpoints/clip_dinoiser/last.pt"),
    vocabulary="voc20",
    published={},
    protocol={},
)

# The published settings of each benchmark (of its configs; the learned background on VOC21 and COCO-Object only).
benchmarks = dict(
    voc21=dict(scorer=dict(type="ForegroundScore", background=True)),
    context60=dict(),
    coco_object=dict(scorer=dict(type="ForegroundScore", background=True)),
    voc20=dict(),
    cityscapes=dict(),
    context59=dict(),
    ade150=dict(),
    coco_stuff=dict(),
)
