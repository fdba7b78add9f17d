"""True boxes named by MaskCLIP's dense map, on the embedded demo model: an upper bound of detection over it.

python tools/test.py CONFIG --benchmark scenes_gt_boxes_seen coco_mini_gt_boxes     (CONFIG: this file)
"""

_base_ = "../_base_/detection.py"

model = dict(type="BoxClassifier", dense=dict(type="MaskCLIP"))
