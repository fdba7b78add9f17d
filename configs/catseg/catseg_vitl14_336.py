"""CAT-Seg with OpenAI's ViT-L/14 at 336 px; see catseg_vitb16.py.

    python tools/test.py configs/catseg/catseg_vitl14_336.py --benchmark ade150 --weights model_large.pth \
        --cfg-options model.scorer.checkpoint=model_large.pth

Crops and windows have 384 px as for ViT-B/16; the tower sees them at 336 px, the same 24×24 patches.
"""

_base_ = "catseg_vitb16.py"

model = dict(
    weights="ViT-L-14-336/openai",
    scorer=dict(width=1024, aggregation=dict(embed_dim=768)),
    protocol=dict(view=336),
)
