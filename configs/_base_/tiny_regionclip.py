"""What the tiny configs of region detectors on a ResNet share: composed scenes of 128 px, enlarged to 192 px."""

_base_ = ["train.py", "scene_boxes.py"]

model = dict(vocabulary="scene_objects")

_keys = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")
_resize = dict(type="mmdet.Resize", scale=(192, 192))
_read = [
    dict(type="LoadScenePicture"),
    _resize,
    dict(type="LoadSceneBoxes"),
    dict(type="mmdet.PackDetInputs", meta_keys=_keys),
]

train_dataloader = dict(
    dataset=dict(
        dataset=dict(
            pipeline=[
                dict(type="LoadScenePicture"),
                dict(type="LoadSceneBoxes"),
                _resize,
                dict(type="mmdet.RandomFlip", prob=0.5),
                dict(type="mmdet.PhotoMetricDistortion"),
                dict(type="mmdet.PackDetInputs"),
            ],
        ),
    ),
)
val_dataloader = dict(dataset=dict(pipeline=_read))
test_dataloader = dict(dataset=dict(pipeline=_read))
optim_wrapper = dict(
    optimizer=dict(type="AdamW", lr=1e-3, weight_decay=1e-4),
    paramwise_cfg=dict(custom_keys={"tower": dict(lr_mult=0.03)}),
    clip_grad=dict(max_norm=5.0),
)
