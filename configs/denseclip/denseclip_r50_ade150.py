"""DenseCLIP (Rao et al., CVPR 2022) with CLIP's RN50 on ADE20K, by the published recipe.

    torchrun --nproc_per_node 8 tools/train.py configs/denseclip/denseclip_r50_ade150.py --launcher pytorch

4 pictures per process; eight processes make the paper's batch of 32 [recalled].  The text tower is frozen, which is
what the published learning rate of 0 amounts to.  BatchNorm becomes SyncBN in distributed runs (sync_bn).  The class
names are those of the vocabulary ade150, one name each; the authors' list may spell some otherwise, which matters for
their checkpoints.  Measured by us: not yet (no pretrained CLIP weights at hand).
"""

_base_ = ["../_base_/denseclip_ade150.py", "../_base_/ade150_512.py"]

model = dict(
    data_preprocessor=dict(size=(512, 512)),
    backbone=dict(weights="RN50/openai", position_size=512),
    score_level=3,
    neck=dict(in_channels=[256, 512, 1024, 2048 + 150]),
    test_cfg=dict(crop_size=(512, 512), stride=(341, 341)),
)
