"""Naming weights: every form that ``load_tower`` takes, the activation it chooses, and what it says when it cannot."""

import json
import warnings

import open_clip
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from ovseg.testing.shrunken import save_small, shrunken, small_config
from ovseg.testing.toys import toy_clip
from ovseg.text.cache import EmbeddingCache
from ovseg.text.causal import encode_prompts
from ovseg.text.encoder import TextEncoder
from ovseg.towers import Preprocess, TowerCard, fetch, formats, load_tower, tokenizer, weights
from ovseg.towers.architecture import open_clip_model
from ovseg.towers.build import build_clip, make_tower
from ovseg.towers.plain import known_config

CONFIG = {
    "embed_dim": 48,
    "vision_cfg": {"layers": 3, "width": 128, "patch_size": 16, "image_size": 64},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2},
}
STATISTICS = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4), "interpolation": "bilinear"}
NORMALIZED = Preprocess(STATISTICS["mean"], STATISTICS["std"])
IMAGES = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def clip():
    return toy_clip()


@pytest.fixture(scope="module")
def state(clip):
    return {key: value.detach().clone() for key, value in clip.state_dict().items()}


def save_openai(path, state):
    """As OpenAI publishes them: half precision, three scalars beside the parameters."""
    scalars = {"input_resolution": 64, "context_length": 77, "vocab_size": 49408}
    torch.save({k: v.half() for k, v in state.items()} | {k: torch.tensor(v) for k, v in scalars.items()}, path)
    return path


def save_folder(folder, state, quick_gelu=None, name="open_clip_model.safetensors"):
    folder.mkdir()
    model = CONFIG if quick_gelu is None else CONFIG | {"quick_gelu": quick_gelu}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model, "preprocess_cfg": STATISTICS}))
    save_file(state, folder / name) if name.endswith("safetensors") else torch.save(state, folder / name)
    return folder


def is_quick(tower) -> bool:
    return type(tower.visual.transformer.resblocks[0].mlp.gelu).__name__ == "QuickGELU"


def assert_equals(tower, state, quick_gelu):
    """Same image and word embeddings as open_clip's own model with that activation."""
    expected = build_clip(state, quick_gelu, CONFIG)
    assert is_quick(tower) == quick_gelu and not tower.training
    assert {p.dtype for p in tower.parameters()} == {torch.float32}
    torch.testing.assert_close(tower(IMAGES)[0], expected.encode_image(IMAGES), atol=1e-5, rtol=1e-5)
    tokens = open_clip.SimpleTokenizer()(["a cat"])
    torch.testing.assert_close(tower.clip.encode_text(tokens), expected.encode_text(tokens), atol=1e-5, rtol=1e-5)


def test_tiny_is_the_default():
    tower, again = load_tower(), load_tower("tiny")
    assert tower.card.hash == again.card.hash and len(tower.card.hash) == 12
    assert {"cat", "dog"} <= set(tower.card.words) and tower.card.notice and tower.card.protocol
    assert {p.dtype for p in tower.parameters()} == {torch.float32}
    embedding, _ = tower(torch.zeros(1, 3, *tower.image_size))
    assert embedding.shape == (1, tower.embed_dim) and embedding.isfinite().all()


def test_openai_file(tmp_path, state):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tower = load_tower(save_openai(tmp_path / "my.pt", state))
    assert_equals(tower, {k: v.half() for k, v in state.items()}, True)
    assert tower.card.words is None and tower.image_size == (64, 64)


@pytest.mark.parametrize("suffix", [".pt", ".bin", ".safetensors"])
def test_plain_file_that_does_not_say_its_activation(tmp_path, state, suffix):
    path = tmp_path / f"mine{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save({"epoch": 3, "state_dict": state}, path)
    with pytest.warns(UserWarning, match="quick_gelu=True.*--quick-gelu"):
        assert_equals(load_tower(path), state, False)
    for asked in (True, False):
        with pytest.warns(UserWarning, match="64 channels on the picture and the text side") as caught:
            assert_equals(load_tower(path, quick_gelu=asked), state, asked)
        assert len(caught) == 1 and "quick_gelu" not in str(caught[0].message)


def test_the_one_warning_names_all_that_a_plain_file_cannot_say(tmp_path, state):
    torch.save(state, tmp_path / "mine.pt")
    with pytest.warns(UserWarning) as caught:
        load_tower(tmp_path / "mine.pt")
    (message,) = (str(each.message) for each in caught)
    for part in ("activation GELU", "64 channels", "class token", "causally", "--quick-gelu"):
        assert part in message


def test_openais_names_are_common_and_only_its_files_go_by_them(tmp_path, state):
    """A fine-tune with GELU that is called like OpenAI's file is a guess; one stored as OpenAI's are is not."""
    torch.save(state, tmp_path / "ViT-B-16.pt")
    with pytest.warns(UserWarning, match="activation GELU"):
        assert not is_quick(load_tower(tmp_path / "ViT-B-16.pt"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.save({key: value.half() for key, value in state.items()}, tmp_path / "ViT-B-16.pt")
        assert is_quick(load_tower(tmp_path / "ViT-B-16.pt"))


@pytest.mark.parametrize("arch, quick", [("ViT-toy", None), ("ViT-toy-quickgelu", True)])
def test_an_architecture_leaves_openais_files_their_activation(tmp_path, state, monkeypatch, arch, quick):
    config = CONFIG | ({"quick_gelu": True} if quick else {})
    monkeypatch.setattr(open_clip, "list_models", lambda: ["ViT-toy", "ViT-toy-quickgelu"])
    monkeypatch.setattr(open_clip, "get_model_config", lambda name: config if name == arch else CONFIG)
    assert is_quick(load_tower(save_openai(tmp_path / "scalars.pt", state), arch=arch))
    torch.save({key: value.half() for key, value in state.items()}, tmp_path / "half.pt")
    if quick:
        assert is_quick(load_tower(tmp_path / "half.pt", arch=arch))
    else:
        with pytest.warns(UserWarning, match="activation QuickGELU"):
            assert is_quick(load_tower(tmp_path / "half.pt", arch=arch))


@pytest.mark.parametrize(
    "file, quick",
    [
        ("models--timm--vit_base_patch16_clip_224.openai/snapshots/1/open_clip_pytorch_model.bin", True),
        ("models--laion--CLIP-ViT-B-16-laion2B-s34B-b88K/snapshots/1/open_clip_pytorch_model.bin", False),
        ("vit_base_patch16_clip_224.openai/open_clip_model.safetensors", True),
    ],
)
def test_a_published_name_is_a_record(tmp_path, state, file, quick):
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert is_quick(load_tower(path)) == quick


def test_a_name_that_all_repositories_use_is_no_record(tmp_path, state):
    for name in ("pytorch_model.bin", "open_clip_pytorch_model.bin"):
        torch.save(state, tmp_path / name)
        with pytest.warns(UserWarning, match="activation"):
            load_tower(tmp_path / name)


@pytest.mark.parametrize(
    "recorded, asked, quick", [(None, None, 0), (True, None, 1), (False, None, 0), (True, False, 0)]
)
@pytest.mark.parametrize("name", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
def test_folder(tmp_path, state, recorded, asked, quick, name):
    tower = load_tower(save_folder(tmp_path / "model", state, recorded, name), quick_gelu=asked)
    assert_equals(tower, state, bool(quick))
    assert tower.preprocess == NORMALIZED


def test_folders_without_config_or_weights(tmp_path, state):
    save_file(state, save_folder(tmp_path / "bare", state) / "open_clip_model.safetensors")
    (tmp_path / "bare" / "open_clip_config.json").unlink()
    assert_equals(load_tower(tmp_path / "bare", quick_gelu=True), state, True)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no weights: expected open_clip_config.json"):
        load_tower(tmp_path / "empty")


@pytest.mark.parametrize("record, asked, quick", [({"quick_gelu": True}, None, 1), ({}, None, 0), ({}, True, 1)])
def test_tag(tmp_path, state, monkeypatch, record, asked, quick):
    """The record of a tag decides activation and statistics; its file is read from wherever it was fetched to."""
    torch.save(state, tmp_path / "file.bin")
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda name, tag: STATISTICS | record | {"url": "http://x/y"})
    monkeypatch.setattr(open_clip, "get_model_config", lambda name: CONFIG if name == "ViT-toy" else None)
    monkeypatch.setattr(weights, "fetch_record", lambda record, name, offline: tmp_path / "file.bin")
    for tower in (load_tower("ViT-toy/mine", quick_gelu=asked), load_tower("mine", arch="ViT-toy", quick_gelu=asked)):
        assert_equals(tower, state, bool(quick))
        assert tower.card.name == "ViT-toy/mine" and tower.preprocess == NORMALIZED


def test_openai_tags_are_recorded_as_quick_gelu():
    for name in ("ViT-B-16", "ViT-B-32", "ViT-L-14", "RN50"):
        assert open_clip.get_pretrained_cfg(name, "openai")["quick_gelu"]


def test_hub(tmp_path, state, monkeypatch):
    """The hub's safetensors come first, a .bin where there are none."""
    folder = save_folder(tmp_path / "model", state, True, "open_clip_pytorch_model.bin")

    def hub_file(repo, file, name, offline):
        assert repo == "org/name"
        if not (folder / file).exists():
            raise FileNotFoundError(file)
        return folder / file

    monkeypatch.setattr(weights, "hub_file", hub_file)
    assert_equals(load_tower("hf-hub:org/name"), state, True)


@pytest.mark.parametrize("name", ["ViT-B-32", "ViT-L-14", "ViT-H-14", "ViT-g-14", "ViT-bigG-14", "RN50", "RN50x16"])
@pytest.mark.parametrize("image_size", [None, 160])
def test_head_widths_of_published_shapes(name, image_size):
    """Shapes alone do not tell heads; a file of a published architecture gets that architecture's, at any size."""
    config = open_clip.get_model_config(name)
    vision, width = dict(config["vision_cfg"]), config["vision_cfg"]["width"]
    shapes = {key: vision.get(key) for key in ("layers", "width", "patch_size")}
    if shapes["patch_size"]:
        shapes["mlp_ratio"] = int(width * vision.get("mlp_ratio", 4.0)) / width
    shapes["image_size"] = image_size or vision["image_size"]
    found = known_config(shapes, config["text_cfg"], config["embed_dim"])
    assert found["vision_cfg"] == vision | {"image_size": shapes["image_size"]}
    assert found["text_cfg"] == config["text_cfg"]


def test_hashes(tmp_path, state):
    other = state | {"visual.proj": state["visual.proj"] + 1e-3}
    torch.save(state, tmp_path / "one.pt")
    save_file(state, tmp_path / "same.safetensors")
    torch.save(other, tmp_path / "other.pt")
    one, same, changed = (load_tower(tmp_path / n, quick_gelu=True) for n in ("one.pt", "same.safetensors", "other.pt"))
    assert one.card.hash == same.card.hash != changed.card.hash
    assert one.card.name == str(tmp_path / "one.pt")


@pytest.mark.parametrize(
    "spec, options, message",
    [
        ("ViT-B-16/opena", {}, r"unknown weights 'ViT-B-16/opena'.*Did you mean .*ViT-B-16/openai"),
        ("laion2b_s34b_b88", {}, "ViT-B-16 has the tags .*laion2b_s34b_b88k"),
        ("vit-b16", {}, "unknown weights"),
        ("openai", {"arch": "ViT-B-17"}, "Did you mean .*ViT-B-16"),
    ],
)
def test_unknown_names(spec, options, message):
    with pytest.raises(ValueError, match=message):
        load_tower(spec, **options)


@pytest.mark.parametrize(
    "spec, parts",
    [
        ("openai", ["ViT-B-16/openai", "hf download timm/vit_base_patch16_clip_224.openai"]),
        (
            "ViT-B-32/openai",
            ["hf download timm/vit_base_patch32_clip_224.openai --local-dir vit_base_patch32_"],
        ),
        ("hf-hub:org/name", ["open_clip_config.json of org/name", "hf download org/name --local-dir name", "/name"]),
        ("ViT-B-16/metaclip_400m", ["ViT-B-16/metaclip_400m", "hf download"]),
    ],
)
def test_missing_downloads(spec, parts, monkeypatch, tmp_path):
    """Offline, with empty caches: what is missing, where it was looked for, what to type."""
    monkeypatch.setattr(fetch, "try_to_load_from_cache", lambda repo, file: None)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError) as caught:
        load_tower(spec)
    message = str(caught.value)
    assert all(part in message for part in (*parts, "not on this machine", "was looked for in", "tiny"))
    assert "\n" not in message


def test_caches(monkeypatch, tmp_path):
    """A file that OpenAI's package has downloaded is found; a record without a place on the hub names its address."""
    monkeypatch.setattr(fetch, "try_to_load_from_cache", lambda repo, file: None)
    monkeypatch.setenv("HOME", str(tmp_path))
    record = {"url": "https://example.org/ViT-X.pt"}
    with pytest.raises(FileNotFoundError, match="ViT-X.pt was looked for in .*fetch https://example.org/ViT-X.pt"):
        fetch.fetch_record(record, "ViT-X/mine", None)
    (file := tmp_path / ".cache" / "clip" / "ViT-X.pt").parent.mkdir(parents=True)
    file.write_bytes(b"weights")
    for extra in ({}, {"hf_hub": "org/name/"}):
        assert fetch.fetch_record(record | extra, "ViT-X/mine", None) == file


def test_wrong_files(tmp_path, state):
    (path := tmp_path / "half.pt").write_bytes(save_openai(tmp_path / "whole.pt", state).read_bytes()[:100_000])
    with pytest.raises(ValueError, match="half.pt.*incomplete"):
        load_tower(path)
    save_file(state, tmp_path / "whole.safetensors")
    (path := tmp_path / "half.safetensors").write_bytes((tmp_path / "whole.safetensors").read_bytes()[:100_000])
    with pytest.raises(ValueError, match="half.safetensors.*damaged"):
        load_tower(path)
    for name in ("fc.weight", "visual.proj", "visual.conv1.weight"):
        torch.save({name: torch.zeros(2, 2)}, tmp_path / "other.pt")
        with pytest.raises(ValueError, match="not those of a CLIP"):
            load_tower(tmp_path / "other.pt", quick_gelu=None if name == "fc.weight" else False)
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_tower(tmp_path / "absent.pt")
    with pytest.raises(ValueError, match="do not fit the architecture.*missing"):
        load_tower(tmp_path / "whole.pt", arch="ViT-S-32")
    torch.save({k: v for k, v in state.items() if k != "ln_final.bias"}, tmp_path / "lacking.pt")
    with pytest.raises(ValueError, match="1 tensors missing .ln_final.bias"):
        load_tower(tmp_path / "lacking.pt", quick_gelu=True)


# --- records ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["file", "folder"])
def test_a_published_name_tells_the_statistics_too(tmp_path, state, layout):
    """ViT-L-14/laion2b_s32b_b82k wants pictures around 0.5, which its file does not say."""
    folder = tmp_path / "CLIP-ViT-L-14-laion2B-s32B-b82K"
    folder.mkdir()
    torch.save(state, folder / "open_clip_pytorch_model.bin")
    assert load_tower(folder / "open_clip_pytorch_model.bin" if layout == "file" else folder).preprocess == Preprocess(
        (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    )


def test_a_folder_named_after_its_repository_needs_no_record(tmp_path, state):
    """What the advice for machines without network makes of OpenAI's weights: QuickGELU, config or not."""
    folder = save_folder(tmp_path / "vit_base_patch16_clip_224.openai", state)
    assert is_quick(load_tower(folder))
    (folder / "open_clip_config.json").unlink()
    assert is_quick(load_tower(folder))


def test_a_folder_of_epochs_is_refused_with_the_list(tmp_path, state):
    for epoch in (1, 2, 10):
        torch.save(state, tmp_path / f"epoch_{epoch}.pt")
    with pytest.raises(ValueError, match=r"several weights: epoch_1.pt, epoch_10.pt, epoch_2.pt.*Name the file"):
        load_tower(tmp_path)


def test_one_model_in_two_formats_or_in_parts_is_one_model(tmp_path, state):
    torch.save(state, tmp_path / "mine.bin")
    save_file(state, tmp_path / "mine.safetensors")
    assert_equals(load_tower(tmp_path, quick_gelu=False), state, False)
    names = sorted(state)
    parts = {"a-1.safetensors": names[::2], "a-2.safetensors": names[1::2]}
    (folder := tmp_path / "parts").mkdir()
    for file, part in parts.items():
        save_file({name: state[name] for name in part}, folder / file)
    places = {name: file for file, part in parts.items() for name in part}
    (index := folder / "a.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    assert_equals(load_tower(folder, quick_gelu=False), state, False)
    for wrong, message in (("../mine.bin", "same folder"), ("a-1.safetensors", "lack")):
        index.write_text(json.dumps({"weight_map": places | {"visual.extra": wrong}}))
        with pytest.raises(ValueError, match=message):
            load_tower(folder)


@pytest.mark.parametrize("spec", ["openai/clip-vit-base-patch16", "laion/CLIP-ViT-B-32", "google/siglip2-base-patch16"])
def test_a_hub_name_without_prefix_is_answered_with_it(spec):
    with pytest.raises(ValueError, match=f"type hf-hub:{spec}"):
        load_tower(spec)


@pytest.mark.parametrize("width, quick", [(64, True), (1280, False)])
def test_catseg_on_openclips_towers_keeps_gelu(width, quick):
    state = {"visual.conv1.weight": torch.zeros(width, 3, 1, 1)}
    record = formats.plain({f"{formats.CATSEG}{name}": value for name, value in state.items()})[1]
    assert record == {"quick_gelu": quick}


# --- before anything is fetched ---------------------------------------------------------------------------------------


@pytest.fixture
def no_fetch(monkeypatch):
    def fetched(*args):
        raise AssertionError("weights were fetched")

    monkeypatch.setattr(weights, "fetch_record", fetched)
    monkeypatch.setattr(weights, "hub_file", fetched)


def test_architectures_are_looked_at_before_weights_are_fetched(no_fetch, monkeypatch):
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda name, tag: {"hf_hub": "org/name/"})
    for name in ("swin_base_patch4_window7_224", "vit_relpos_medium_patch16_cls_224"):
        with pytest.raises(ValueError, match=f"{name}/tag: dense features need"):
            load_tower(f"{name}/tag")


def test_a_missing_tokenizer_package_is_said_before_weights_are_fetched(no_fetch, monkeypatch):
    monkeypatch.setattr(tokenizer, "has_transformers", lambda: False)
    for name in (
        "ViT-H-14-worldwide/metaclip2_worldwide",
        "ViT-B-16-SigLIP2/webli",
        "roberta-ViT-B-32/laion2b_s12b_b32k",
    ):
        with pytest.raises(ValueError, match="pip install 'ovseg"):
            load_tower(name)


def test_tokenizers_are_those_of_the_config(tmp_path):
    siglip = open_clip.get_model_config("ViT-B-16-SigLIP2")["text_cfg"]
    record = tokenizer.tokenizer_record(siglip)
    assert (record.name, record.context, record.options) == (
        "timm/ViT-B-16-SigLIP2", 64, (("clean", "canonicalize"),)
    )  # fmt: skip
    assert not tokenizer.tokenizer_record(open_clip.get_model_config("ViT-B-16")["text_cfg"]).name
    with pytest.raises(ValueError, match="neither in their folder nor one of open_clip's"):
        tokenizer.tokenizer_record(siglip | {"hf_tokenizer_name": "somebody/else"}, tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    own = tokenizer.tokenizer_record(siglip | {"hf_tokenizer_name": "somebody/else"}, tmp_path)
    assert own.folder == tmp_path
    (tmp_path / "tokenizer.json").write_text("{ }")
    other = tokenizer.tokenizer_record(siglip | {"hf_tokenizer_name": "somebody/else"}, tmp_path)
    assert own.facts != other.facts != record.facts


def test_another_tokenizer_is_another_identity_and_another_key_of_the_cache(tmp_path, clip):
    towers = [
        make_tower(clip.visual, clip, Preprocess(), TowerCard("toy", "toy", tokenizer=record))
        for record in (tokenizer.TokenizerRecord(), tokenizer.TokenizerRecord(options=(("clean", "canonicalize"),)))
    ]
    assert towers[0].card.identity != towers[1].card.identity
    cache = EmbeddingCache(tmp_path)
    TextEncoder(towers[0], ["{}"], cache)(["cat"])
    assert "cat" not in cache.get(towers[1].card.identity, TextEncoder(towers[1], ["{}"]).key, ["cat"])


def test_the_end_token_is_that_of_the_config(clip):
    """MetaCLIP 2 pools at the end token by its id, which is not the largest."""
    tokens = torch.tensor([[5, 900, 2, 0, 0], [5, 7, 800, 2, 0]])
    config = CONFIG | {"text_cfg": CONFIG["text_cfg"] | {"context_length": 5, "vocab_size": 1000, "pool_type": "eos"}}
    with torch.random.fork_rng():
        model = open_clip_model(config)
    expected = model.eval().encode_text(tokens)
    torch.testing.assert_close(encode_prompts(model, tokens), expected, atol=1e-5, rtol=1e-5)


def test_a_folders_own_tokenizer_reads_as_open_clip_reads(tmp_path):
    transformers, tokenizers = (pytest.importorskip(name) for name in ("transformers", "tokenizers"))
    words = {word: index for index, word in enumerate("<pad> </s> <unk> a photo of cat dog".split())}
    model = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    model.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    model.post_processor = tokenizers.processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    with shrunken():
        config = small_config("ViT-B-16-SigLIP2")
        config["text_cfg"]["hf_tokenizer_name"] = "somebody/else"
        expected = save_small(tmp_path, config)
        special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
        transformers.PreTrainedTokenizerFast(tokenizer_object=model, **special).save_pretrained(tmp_path)
        encoder = TextEncoder(load_tower(tmp_path), ["a photo of a {}"])
    tokens = open_clip.get_tokenizer(f"local-dir:{tmp_path}")(["a photo of a cat", "a photo of a dog"])
    assert torch.equal(encoder.tokens(["cat", "dog"]), tokens)
    torch.testing.assert_close(encoder(["cat", "dog"]), F.normalize(expected.encode_text(tokens), dim=-1))
    with pytest.raises(ValueError, match="has 85 tokens"):
        encoder(["cat " * 80])
