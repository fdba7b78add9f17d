"""Detection without training over CLIP Surgery's dense map, OpenAI's ViT-B/16.

python tools/test.py configs/detection/detection_clip_surgery_vitb16_openai.py --benchmark coco_mini_boxes
"""

_base_ = "../_base_/detection.py"

model = dict(dense=dict(type="CLIPSurgery"), weights="ViT-B-16/openai")
