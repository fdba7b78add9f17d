"""Adapting CLIP (Li, Shakhnarovich and Yeh, 2022) on the embedded demo model; see adapting_clip_vitb16_openai.py.

python tools/test.py configs/adapting_clip/adapting_clip_tiny.py --benchmark scenes_phrases_seen
"""

_base_ = "adapting_clip_vitb16_openai.py"

model = dict(weights="tiny")
