"""Detection without training over CLIP Surgery's dense map, on the embedded demo model.

python tools/test.py configs/detection/detection_clip_surgery_tiny.py --benchmark scenes_boxes_seen coco_mini_boxes
"""

_base_ = "../_base_/detection.py"

model = dict(dense=dict(type="CLIPSurgery"))
