"""F-ViT as in fvit_tiny_scenes.py, its pictures read in windows of the 64 px that the tower was made for.

    python tools/train.py configs/fvit/fvit_windows_tiny_scenes.py
    python tools/test.py configs/fvit/fvit_windows_tiny_scenes.py --checkpoint CHECKPOINT

The dense map and T_v were chosen by naming the true boxes of base classes in scenes of the training split; α and β are
the defaults of the reference code and of F-VLM on COCO.
"""

_base_ = "fvit_tiny_scenes.py"

model = dict(
    backbone=dict(dense=dict(type="CLIPSurgery"), window=64, window_stride=48),
    vlm_temperature=30.0,
    alpha=0.2,
    beta=0.45,
)
