"""Ensemble of NACLIP and CLIPtrase read in one pass (ours, of no paper).

    python tools/test.py configs/ensemble/ensemble_vitb16_openai.py --benchmark voc20

OpenAI's ViT-B/16.  Measured by us: not yet (no pretrained CLIP weights at hand).
"""

_base_ = "../_base_/runtime.py"

model = dict(
    type="OpenVocabSegmentor",
    weights="ViT-B-16/openai",
    dense=dict(type="Ensemble", members=[dict(type="NACLIP"), dict(type="CLIPtrase")]),
    vocabulary="voc20",
    published={},
    protocol={},
)

benchmarks = dict()
