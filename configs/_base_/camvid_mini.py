"""CamVid's 60 training frames, 320 px wide, half to twice as large, in crops of 192×192 px; 40 to validate."""

_load = [dict(type="mmseg.LoadImageFromFile"), dict(type="mmseg.LoadAnnotations")]
_resize = dict(type="mmseg.Resize", scale=(320, 240), keep_ratio=True)
_augment = [
    dict(type="mmseg.RandomResize", scale=(320, 240), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type="mmseg.RandomCrop", crop_size=(192, 192), cat_max_ratio=0.75),
    dict(type="Pad", size=(192, 192), pad_val=dict(img=(104, 117, 123), seg=255)),
    dict(type="mmseg.RandomFlip", prob=0.5),
    dict(type="mmseg.PhotoMetricDistortion"),
    dict(type="mmseg.PackSegInputs"),
]
_read = [_load[0], _resize, _load[1], dict(type="mmseg.PackSegInputs")]

train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="SeededSampler"),
    dataset=dict(type="SeededDataset", dataset=dict(type="CamVidMini", split="train", pipeline=_load + _augment)),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(type="CamVidMini", split="val", pipeline=_read),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="OpenVocabIoU")
test_evaluator = val_evaluator
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
