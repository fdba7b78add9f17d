"""DenseCLIP's parts: prompting with its score map and loss, the ViT backbone, the attention pool at all positions."""

from open_clip.model import QuickGELU
from open_clip.modified_resnet import AttentionPool2d
from open_clip.transformer import TextTransformer
from torch import Tensor

from ovseg.towers.attention_pool import pool_everywhere
from ovseg.towers.build import build_visual, text_config

from .common import Case, case, in_cases


@case(inputs=("*/tokens", "*/global_feat", "*/visual_embeddings", "*/x_score_level", "*/gt", "*/input"))
def trained_denseclip(golden):
    return in_cases(golden, _one)


def _one(each: Case) -> dict[str, Tensor]:
    if "gamma" in each.weights:
        return _prompting(each)
    return _vit(each) if "class_embedding" in each.weights else _pool(each)


def _prompting(each: Case) -> dict[str, Tensor]:
    from ovseg.segmentors.denseclip import Prompting, beside, score_loss

    settings, weights = each.settings, each.weights
    text = {k.removeprefix("text_encoder."): v for k, v in weights.items() if k.startswith("text_encoder.")}
    shapes = text_config(text) | {"heads": settings["text_heads"]}
    channels = text["text_projection"].shape[1]
    source = TextTransformer(**shapes, output_dim=channels, act_layer=QuickGELU)
    decoder = {name: settings[f"ctx_{name}"] for name in ("width", "heads", "layers")}
    contexts = weights["contexts"].shape[1]
    model = Prompting()
    model.add_prompting(source, shapes["context_length"] - contexts, contexts, channels, decoder, 0.0)
    model.load_state_dict(weights)
    model.eval()
    out, change, prompted, score = model.prompt(
        each.input("tokens"), each.input("global_feat"), each.input("visual_embeddings")
    )
    arrays = {"text_encoder_out": out, "text_diff": change, "text_embeddings": prompted, "score_map": score}
    if each.has("x_score_level"):
        arrays["x_concat"] = beside(each.input("x_score_level"), score)
    if each.has("gt"):
        arrays["identity_loss"] = score_loss(score, each.input("gt"), settings["tau"])
    return arrays


def _vit(each: Case) -> dict[str, Tensor]:
    from ovseg.segmentors.clip_backbone import CLIPBackbone

    settings, weights = each.settings, each.weights
    tower = build_visual({k: v for k, v in weights.items() if not k.startswith("fpn")}, settings["heads"])
    backbone = CLIPBackbone(
        tower, settings["out_indices"], joint=True, positions="bilinear", class_token_twice=True
    ).eval()
    backbone.load_state_dict(weights)
    *levels, (embedding, visual) = backbone(each.input("input"))
    return {f"feat{i}": level for i, level in enumerate(levels)} | {"global": embedding, "visual_embedding": visual}


def _pool(each: Case) -> dict[str, Tensor]:
    weights = each.weights
    side = round((len(weights["positional_embedding"]) - 1) ** 0.5)
    out, width = weights["c_proj.weight"].shape
    pool = AttentionPool2d(side, width, each.settings["heads"], out)
    pool.load_state_dict(weights)
    embedding, visual = pool_everywhere(pool, each.input("input"))
    return {"global": embedding, "map": visual}
