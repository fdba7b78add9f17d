"""Every architecture of open_clip, shrunken: loaded from its folder it embeds pictures and words as open_clip does, and
every method that it declares itself fit for runs; or it is refused, for the reason listed here.
"""

import open_clip
import pytest
import torch
import torch.nn.functional as F

from ovseg.registry import DENSE, names
from ovseg.testing.shrunken import save_small, shrunken, small_config, small_tokens
from ovseg.text.causal import encode_prompts
from ovseg.text.encoder import TextEncoder
from ovseg.towers import load_tower, missing, tokenizer
from ovseg.towers.build import look_at
from ovseg.towers.export import save_tower
from ovseg.towers.metadata import model_config
from ovseg.towers.tokenizer import has_transformers

NEEDS_TRANSFORMERS = "transformers is missing"
REFUSED = {
    "swin_base_patch4_window7_224": "SwinTransformer",  # windows of a fixed size
    "vit_relpos_medium_patch16_cls_224": "VisionTransformerRelPos",  # biases of a fixed grid
}
TEXT_MODELS = [
    name for name in open_clip.list_models() if "hf_model_name" in open_clip.get_model_config(name)["text_cfg"]
]
READ = [name for name in open_clip.list_models() if name not in REFUSED and name not in TEXT_MODELS]
REPRESENTATIVES = {
    "ViT-B-32-quickgelu", "ViT-B-16-plus-240", "ViT-M-16-alt", "RN50", "ViT-H-14-CLIPA", "ViT-H-14-worldwide",
    "coca_ViT-B-32", "EVA01-g-14", "EVA02-B-16", "EVA02-E-14-plus", "convnext_base", "convnext_large_d",
    "ViT-B-16-SigLIP2", "ViT-SO400M-16-SigLIP-i18n-256", "PE-Core-B-16", "PE-Core-bigG-14-448", "MobileCLIP2-B",
    "MobileCLIP2-S0", "MobileCLIP2-S3", "ViTamin-B", "vit_medium_patch16_gap_256",
}  # fmt: skip
SLOW = [pytest.param(name, marks=() if name in REPRESENTATIVES else pytest.mark.slow) for name in READ]


@pytest.mark.parametrize("name", SLOW)
@torch.inference_mode()
def test_embeddings_are_open_clips_and_methods_run(tmp_path, monkeypatch, name):
    monkeypatch.setattr(tokenizer, "has_transformers", lambda: True)  # token ids are compared, none is made
    with shrunken():
        expected, tower = save_small(tmp_path / name, small_config(name)), load_tower(tmp_path / name, quick_gelu=None)
    assert tower.preprocess.mean == (0.5, 0.5, 0.5) and tower.card.identity
    colors = 3 * torch.randn(2, 3, 2, 2)
    images, tokens = F.interpolate(colors, tower.image_size), small_tokens(small_config(name))
    assert_alike(tower(images)[0], expected.encode_image(images))
    assert_alike(encode_prompts(tower.clip, tokens), expected.encode_text(tokens))
    picture = torch.randn(1, 3, 4 * tower.stride, 6 * tower.stride)
    run = 0
    for method in names(DENSE):
        extractor = DENSE.get(method)
        if getattr(extractor, "needs", ()) or missing(tower, extractor.requires):
            continue
        dense = extractor().eval()(tower, picture)
        assert dense.features.shape[:2] == (1, tower.embed_dim) and dense.features.isfinite().all(), method
        assert dense.embedding.shape == (1, tower.embed_dim)
        run += 1
    assert run >= 2


def assert_alike(ours, theirs):
    torch.testing.assert_close(F.normalize(ours, dim=-1), F.normalize(theirs, dim=-1), atol=1e-4, rtol=0)
    assert F.normalize(theirs, dim=-1).std(0).max() > 1e-3  # the two rows differ, so that equality says something


def test_the_schema_of_configs_holds_all_that_builds_open_clips_models():
    dropped = {"timm_model_pretrained", "hf_model_pretrained", "init_logit_bias"}
    for name in open_clip.list_models():
        config = open_clip.get_model_config(name)
        model = model_config(config, name)
        missing_keys = config.keys() - model.keys()
        for part in ("vision_cfg", "text_cfg"):
            missing_keys |= {key for key, value in config[part].items() if key not in model[part] and value is not None}
        assert missing_keys <= dropped, name


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_refused_with_the_reason(tmp_path, name):
    with pytest.raises(ValueError, match=REFUSED[name]):
        look_at(open_clip.get_model_config(name), name)


@pytest.mark.skipif(has_transformers(), reason="the text models are there")
def test_text_models_of_hugging_face_are_refused_without_their_package():
    assert len(TEXT_MODELS) == 10
    for name in TEXT_MODELS:
        with pytest.raises(ValueError, match=NEEDS_TRANSFORMERS):
            look_at(open_clip.get_model_config(name), name)


# --- convolutional networks ------------------------------------------------------------------------------------------

NETWORKS = {
    "tf_efficientnet_lite0": {},
    "mobilenetv3_small_050": {},
    "resnet18": {},
    "regnetx_002": {},
    "convnext_atto": {"depths": (1, 1, 1, 1), "dims": (8, 16, 32, 64)},
}


def save_network(folder, network, **vision):
    if network.startswith("mobilenetv3"):
        vision["timm_proj"] = ""  # open_clip has the width before its last convolution for that behind it
    text = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    vision = {"timm_model_name": network, "timm_pool": "avg", "timm_proj": "linear", "image_size": 64} | vision
    return save_small(folder, {"embed_dim": 24, "custom_text": True, "vision_cfg": vision, "text_cfg": text})


@pytest.mark.parametrize("network", NETWORKS)
@torch.inference_mode()
def test_any_network_of_timm_is_read_at_every_position(tmp_path, network):
    with shrunken(NETWORKS):
        expected, tower = save_network(tmp_path, network), load_tower(tmp_path)
    images = torch.randn(1, 3, 128, 192)
    embedding, state = tower(images)
    assert (tower.family, tower.stride, state.grid) == ("cnn", 32, (4, 6)) and not tower.provides
    assert_alike(
        torch.cat([embedding, -embedding]), torch.cat([expected.encode_image(images)] * 2) * torch.tensor([[1], [-1]])
    )
    dense = [DENSE.get(name)()(tower, images).features for name in ("MaskCLIP", "Vanilla")]
    torch.testing.assert_close(*dense)
    torch.testing.assert_close(dense[0].flatten(2).transpose(1, 2), state.x, atol=1e-5, rtol=1e-4)
    if network not in ("mobilenetv3_small_050", "convnext_atto"):  # linear behind the pooling
        torch.testing.assert_close(dense[0].mean((2, 3)), embedding, atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="needs attention, which"):
        DENSE.get("SCLIP")()(tower, images)
    if network == "mobilenetv3_small_050":  # timm gives this class no output stride
        with shrunken(NETWORKS), pytest.raises(ValueError, match="cannot be dilated to output_stride=16"):
            load_tower(tmp_path, output_stride=16)
        return
    with shrunken(NETWORKS):
        fine = load_tower(tmp_path, output_stride=16)
    assert fine.stride == 16 and fine.card.identity != tower.card.identity
    finer = DENSE.get("MaskCLIP")()(fine, images).features
    assert finer.shape[2:] == (8, 12) and finer.isfinite().all()


@torch.inference_mode()
def test_a_dilated_network_agrees_with_the_strided_one_where_both_have_a_position(tmp_path):
    save_network(tmp_path, "resnet18")
    images = torch.randn(1, 3, 128, 192)
    coarse, fine, finer = (
        DENSE.get("MaskCLIP")()(load_tower(tmp_path, output_stride=stride), images).features for stride in (None, 16, 8)
    )
    torch.testing.assert_close(fine[:, :, ::2, ::2], coarse, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(finer[:, :, ::4, ::4], coarse, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_a_network_is_exported_with_its_stride(tmp_path):
    save_network(tmp_path, "tf_efficientnet_lite0")
    tower, images = load_tower(tmp_path, output_stride=16), torch.randn(1, 3, 64, 96)
    save_tower(tower, tmp_path / "mine.safetensors", "mine")
    again = load_tower(tmp_path / "mine.safetensors")
    assert (again.stride, again.card.name, again.family) == (16, "mine", "cnn")
    torch.testing.assert_close(again(images)[0], tower(images)[0])
    encode = [TextEncoder(each, ["a {}"], None)(["cat", "dog"]) for each in (tower, again)]
    torch.testing.assert_close(*encode)


def test_strides_are_options_of_convolutional_networks(tmp_path):
    save_network(tmp_path, "resnet18")
    with pytest.raises(ValueError, match="can be 8, 16, 32.*this is resnet18"):
        load_tower(tmp_path, output_stride=12)
    with pytest.raises(ValueError, match="no convolutional network of timm"):
        load_tower("ViT-B-16/openai", output_stride=16)


@pytest.mark.parametrize("name", ["hf-hub:a/b", "../x", "resnet18.a1_in1k", "nonsense", "local-dir:/tmp"])
def test_a_config_names_networks_of_timm_alone(tmp_path, name):
    save_network(tmp_path, "resnet18")
    config = (tmp_path / "open_clip_config.json").read_text().replace("resnet18", name)
    (tmp_path / "open_clip_config.json").write_text(config)
    with pytest.raises(ValueError, match="no network of timm"):
        load_tower(tmp_path)


def test_a_config_cannot_ask_for_more_than_its_file_holds(tmp_path):
    save_network(tmp_path, "resnet18")
    text = (tmp_path / "open_clip_config.json").read_text()
    (tmp_path / "open_clip_config.json").write_text(text.replace('"width": 32', '"width": 60000'))
    with pytest.raises(ValueError, match="do not fit the architecture.*of another shape"):
        load_tower(tmp_path)
