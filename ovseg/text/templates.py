"""Prompt templates: ``{}`` stands for the name.

========================  =======  =====================================================================================
``name``                       1   the bare word
``photo``                      1   GEM (Bousselham et al., CVPR 2024)
``openai_7``                   7   the best seven of the 80, by CLIP's authors' notebook
``imagenet_80``               80   CLIP (Radford et al., ICML 2021), taken from open_clip
``maskclip_85``               85   the 80 and five "in the scene" prompts, MaskCLIP (Zhou et al., ECCV 2022)
========================  =======  =====================================================================================
"""

from collections.abc import Sequence

from open_clip import OPENAI_IMAGENET_TEMPLATES

IMAGENET_80 = tuple(template("{}") for template in OPENAI_IMAGENET_TEMPLATES)

TEMPLATES = {
    "name": ("{}",),
    "photo": ("a photo of a {}.",),
    "openai_7": (
        "itap of a {}.",
        "a bad photo of the {}.",
        "a origami {}.",
        "a photo of the large {}.",
        "a {} in a video game.",
        "art of the {}.",
        "a photo of the small {}.",
    ),
    "imagenet_80": IMAGENET_80,
    "maskclip_85": (
        *IMAGENET_80,
        "there is a {} in the scene.",
        "there is the {} in the scene.",
        "this is a {} in the scene.",
        "this is the {} in the scene.",
        "this is one {} in the scene.",
    ),
}


def get_templates(spec: str | Sequence[str]) -> tuple[str, ...]:
    """Templates of a named set, or the given ones after a check.

    Raises:
        ValueError: unknown set, no template at all, or a template without exactly one ``{}``.
    """
    if isinstance(spec, str) and spec in TEMPLATES:
        return TEMPLATES[spec]
    try:
        templates = (spec,) if isinstance(spec, str) else tuple(spec)
    except TypeError:
        raise ValueError(
            f"prompt templates are a name, a text or a list of texts; got {type(spec).__name__}."
        ) from None
    bad = [t for t in templates if not isinstance(t, str) or t.count("{}") != 1 or t.count("{") + t.count("}") != 2]
    if bad or not templates:
        listing = ", ".join(repr(t) for t in bad) or "none"
        raise ValueError(
            f"prompt templates must each hold the placeholder {{}} once, got: {listing}. Give a template such as "
            f"'a photo of a {{}}.', a list of them, or one of the sets {', '.join(TEMPLATES)}."
        )
    return templates
