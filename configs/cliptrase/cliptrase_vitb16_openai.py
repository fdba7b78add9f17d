"""CLIPtrase (Shao et al., ECCV 2024) at 224 px: q·q + k·k + v·v attention, clusters that vote.

    python tools/test.py configs/cliptrase/cliptrase_vitb16_openai.py --benchmark voc20

OpenAI's ViT-B/16.  Measured by us: not yet (no pretrained CLIP weights at hand).
"""

_base_ = "../_base_/runtime.py"

model = dict(
    type="OpenVocabSegmentor",
    weights="ViT-B-16/openai",
    dense=dict(type="CLIPtrase"),
    vocabulary="voc20",
    published={},
    protocol={},
)

# The published settings of each benchmark (of its code; on VOC20 the scores are weighted by the whole picture's).
benchmarks = dict(
    voc21=dict(),
    context60=dict(),
    coco_object=dict(),
    voc20=dict(scorer=dict(type="WholeImageScore")),
    context59=dict(),
    ade150=dict(),
    coco_stuff=dict(),
)
