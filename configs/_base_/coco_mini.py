"""COCO panoptic as a semantic map: 100 training pictures, cut as in camvid_mini.py; 100 to validate."""

_base_ = "camvid_mini.py"

train_dataloader = dict(dataset=dict(dataset=dict(type="COCOMini")))
val_dataloader = dict(dataset=dict(type="COCOMini"))
test_dataloader = dict(dataset=dict(type="COCOMini"))
