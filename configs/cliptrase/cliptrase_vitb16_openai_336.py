"""CLIPtrase (Shao et al., ECCV 2024) at 336 px; see cliptrase_vitb16_openai.py.

python tools/test.py configs/cliptrase/cliptrase_vitb16_openai_336.py --benchmark voc20
"""

_base_ = "cliptrase_vitb16_openai.py"

model = dict(protocol=dict(short_side=336, refine=[dict(type="ClusterVote", eps=1.1, min_samples=7)]))
