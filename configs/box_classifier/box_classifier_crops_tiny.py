"""True boxes named by crops with margins and by masked crops (GC-CLIP's guided cropping), on the embedded demo model.

python tools/test.py CONFIG --benchmark scenes_gt_boxes_seen coco_mini_gt_boxes     (CONFIG: this file)
"""

_base_ = "../_base_/detection.py"

model = dict(type="BoxClassifier", dense=dict(type="MaskCLIP"), readouts=["crop", "masked_crop"], margins=[1.0, 1.5])
