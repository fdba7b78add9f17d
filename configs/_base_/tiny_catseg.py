"""CAT-Seg on the embedded demo model with a small aggregation (32 channels): a quarter of an hour on two cores.

W_q, W_v and positions of the image tower train; the text tower stays as it is, so its words are encoded once.  Of each
picture at most 20 classes enter the loss, and pixels without a class are left out of it.
"""

_base_ = "train.py"

model = dict(
    type="CATSeg",
    weights="tiny",
    dense=dict(type="CATSeg"),
    scorer=dict(
        type="CostScore",
        scratch=True,
        width=256,
        taps=(20, 36),
        aggregation=dict(
            hidden=32, window=8, embed_dim=256, text=32, appearance=32, guidance=(64, 32), projected=(16, 8),
            decoder=(32, 16), pad_len=0, costs=(0.4, 0.04), prior=0.05,
        ),
    ),
    tuning=[dict(type="QV"), dict(type="Positions")],
    train_classes=20,
    ignore="skip",
)  # fmt: skip

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=2e-3, weight_decay=1e-4),
    paramwise_cfg=dict(custom_keys={"pipeline.tower": dict(lr_mult=0.1)}, norm_decay_mult=0.0),
    clip_grad=dict(max_norm=1.0),
)
