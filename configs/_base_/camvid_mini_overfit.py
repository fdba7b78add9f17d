"""The first eight training frames of CamVid at 160×120 px, to train on and to measure: does a model learn at all?"""

_base_ = "camvid_mini.py"

_load = [dict(type="mmseg.LoadImageFromFile"), dict(type="mmseg.LoadAnnotations")]
_resize, _pack = dict(type="mmseg.Resize", scale=(160, 120)), dict(type="mmseg.PackSegInputs")
_measured = dict(type="CamVidMini", split="train", indices=8, pipeline=[_load[0], _resize, _load[1], _pack])

train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(dataset=dict(indices=8, pipeline=[*_load, _resize, _pack])),
)
val_dataloader = dict(dataset=_measured)
test_dataloader = val_dataloader
