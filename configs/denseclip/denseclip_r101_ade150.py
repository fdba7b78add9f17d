"""DenseCLIP with CLIP's RN101 on ADE20K; see denseclip_r50_ade150.py."""

_base_ = "denseclip_r50_ade150.py"

model = dict(backbone=dict(weights="RN101/openai"))
