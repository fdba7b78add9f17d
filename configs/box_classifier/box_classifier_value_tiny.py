"""True boxes named by CLIPSelf's dense map of a tower that CLIPSelf has not trained: what it is measured against.

python tools/test.py configs/box_classifier/box_classifier_value_tiny.py --benchmark scenes_gt_boxes_seen
python tools/test.py … --weights clipself.safetensors           # an exported run of configs/clipself, for comparison
"""

_base_ = "../_base_/detection.py"

model = dict(type="BoxClassifier", dense=dict(type="CLIPSelf"), protocol=dict(window=None))
