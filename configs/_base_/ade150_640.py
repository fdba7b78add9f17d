"""ADE20K's 150 classes in crops of 640×640 px, half to twice as large; 4 pictures per process."""

_base_ = "ade150_512.py"

_load = [dict(type="mmseg.LoadImageFromFile"), dict(type="mmseg.LoadAnnotations", reduce_zero_label=True)]
_resize = dict(type="mmseg.Resize", scale=(2560, 640), keep_ratio=True)
_augment = [
    dict(type="mmseg.RandomResize", scale=(2560, 640), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type="mmseg.RandomCrop", crop_size=(640, 640), cat_max_ratio=0.75),
    dict(type="mmseg.RandomFlip", prob=0.5),
    dict(type="mmseg.PhotoMetricDistortion"),
    dict(type="mmseg.PackSegInputs"),
]
_read = [_load[0], _resize, _load[1], dict(type="mmseg.PackSegInputs")]

train_dataloader = dict(dataset=dict(dataset=dict(pipeline=_load + _augment)))
val_dataloader = dict(dataset=dict(pipeline=_read))
test_dataloader = val_dataloader
