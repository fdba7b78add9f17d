"""Small seeded towers with random weights, for tests and doctests only."""

import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

from ovseg.rng import seeded
from ovseg.towers import Preprocess, Tower, TowerCard
from ovseg.towers.build import make_tower


def toy_clip(
    kind: str = "vit", seed: int = 0, quick_gelu: bool = False, image_size: int | tuple[int, int] = 64
) -> CLIP:
    """A whole open_clip CLIP of a few blocks: ``vit`` (patch 16, width 128, 3 blocks) or ``resnet`` (stride 32)."""
    if kind == "vit":
        vision = CLIPVisionCfg(layers=3, width=128, patch_size=16, image_size=image_size)
    else:
        vision = CLIPVisionCfg(layers=(1, 1, 1, 1), width=16, patch_size=None, image_size=2 * image_size)
    with seeded(seed):
        clip = CLIP(48, vision, CLIPTextCfg(context_length=77, width=64, heads=1, layers=2), quick_gelu=quick_gelu)
        for parameter in clip.visual.parameters():  # larger than open_clip's start values, so that nothing is near zero
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=1.5 * parameter[0].numel() ** -0.5)
    return clip.eval()


def toy_tower(kind: str = "vit", seed: int = 0, **options) -> Tower:
    """``toy_clip`` as a tower."""
    clip = toy_clip(kind, seed, **options)
    return make_tower(clip.visual, clip, Preprocess(), TowerCard(f"toy {kind} {seed}", f"toy-{kind}-{seed}"))
