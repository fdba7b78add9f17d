"""Detection without training over NACLIP's dense map, on the embedded demo model.

python tools/test.py configs/detection/detection_naclip_tiny.py --benchmark scenes_boxes_seen coco_mini_boxes
"""

_base_ = "../_base_/detection.py"

model = dict(dense=dict(type="NACLIP"))
