"""DenseCLIP: parity, prompts with contexts, score maps and their loss, checkpoints, a training step."""

import json

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.runner.checkpoint import load_state_dict
from mmengine.structures import PixelData

from ovseg.engine.config import load_config
from ovseg.registry import MODELS, check_components
from ovseg.segmentors import DenseCLIP
from ovseg.segmentors.context_decoder import ContextDecoder
from ovseg.segmentors.denseclip import score_loss
from ovseg.testing.parity import compare
from ovseg.testing.toys import toy_clip, toy_tower
from ovseg.text.context import ContextTextEncoder, class_tokens, tokenizer
from tests.conftest import ROOT

WORDS = ["cat", "old sofa", "traffic light"]


def config(kind="vit", words=WORDS, **options):
    widths = [128] * 4 if kind == "vit" else [64, 128, 256, 512]
    widths[2 if kind == "vit" else 3] += len(words)
    cfg = dict(
        type="ovseg.DenseCLIP",
        backbone=dict(weights=toy_tower(kind)),
        vocabulary=words,
        neck=dict(type="FPN", in_channels=widths, out_channels=16, num_outs=4),
        context_decoder=dict(width=32, heads=4, layers=1),
        decode_head=dict(
            type="FPNHead",
            in_channels=[16] * 4,
            in_index=[0, 1, 2, 3],
            feature_strides=[4, 8, 16, 32],
            channels=16,
            num_classes=len(words),
            norm_cfg=dict(type="BN"),
        ),
        test_cfg=ConfigDict(mode="whole"),
    )
    return cfg | options


def build(kind="vit", **options) -> DenseCLIP:
    torch.manual_seed(0)
    return MODELS.build(config(kind, **options))


def batch(size=64, count=2):
    from mmseg.structures import SegDataSample

    generator = torch.Generator().manual_seed(1)
    samples = [SegDataSample() for _ in range(count)]
    for sample in samples:
        sample.gt_sem_seg = PixelData(data=torch.randint(0, len(WORDS), (1, size, size), generator=generator))
    return torch.randn(count, 3, size, size, generator=generator), samples


# --- parity ---------------------------------------------------------------------------------------------------------


def test_parity(goldens):
    lines = list(compare(goldens / "trained_denseclip.npz"))
    assert len(lines) == 14 and all(ok for _, _, ok in lines), lines


def test_parity_of_a_part_of_the_file(goldens, tmp_path):
    """One case without its labels and without the maps that the scores are put beside."""
    arrays = dict(np.load(goldens / "trained_denseclip.npz"))
    meta = json.loads(str(arrays.pop("meta")))
    meta["cases"] = {"ctx": meta["cases"]["ctx"]}
    gone = ("ctx/gt", "ctx/identity_loss", "ctx/x_score_level", "ctx/x_concat")
    kept = {k: v for k, v in arrays.items() if k.startswith(("ctx/", "w/ctx/")) and k not in gone}
    np.savez(tmp_path / "part.npz", meta=json.dumps(meta), **kept)
    lines = list(compare(tmp_path / "part.npz"))
    assert len(lines) == 4 and all(ok for _, _, ok in lines), lines


# --- prompts with contexts ------------------------------------------------------------------------------------------


def test_contexts_that_spell_words_give_the_plain_prompt():
    """[start] a photo of [class end] with "a photo of" as contexts is the prompt "a photo of a class" itself."""
    clip = toy_clip()
    tokens = class_tokens(WORDS, 5)
    spelled = tokenizer()("a photo of")[0, 1:4]
    contexts = clip.token_embedding(spelled)[None]
    ours = ContextTextEncoder(clip, 8)(tokens, contexts)
    plain = tokenizer()([f"a photo of {word}" for word in WORDS])
    torch.testing.assert_close(ours, clip.encode_text(plain), atol=1e-5, rtol=1e-4)


def test_contexts_of_each_class():
    encoder, tokens = ContextTextEncoder(toy_clip(), 9), class_tokens(WORDS, 5)
    contexts = torch.randn(3, 4, 64)
    each = torch.cat([encoder(tokens[i : i + 1], contexts[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(encoder(tokens, contexts), each, atol=1e-5, rtol=1e-4)


def test_long_names_by_policy():
    start, end = tokenizer().sot_token_id, tokenizer().eot_token_id
    names = ["cat", "a very old gray sofa"]
    with pytest.raises(ValueError, match=r"'a very old gray sofa' has 7 tokens.*class_tokens=7"):
        class_tokens(names, 5)
    cut = class_tokens(names, 5, "truncate")
    assert cut.shape == (2, 5) and cut[1, 0] == start and cut[1, -1] == end
    assert torch.equal(cut[1, 1:4], class_tokens(["a very old"], 5)[0, 1:4])
    grown = class_tokens(names, 5, "grow")
    assert grown.shape == (2, 7) and grown[1, -1] == end and torch.equal(grown[0, :5], class_tokens(["cat"], 5)[0])
    assert class_tokens(["cat"], 5, "grow").shape == (1, 5)
    with pytest.raises(ValueError, match="positions for 3 to 6"):
        class_tokens(names, 5, "grow", limit=6)
    with pytest.raises(ValueError, match="raise, truncate, grow"):
        class_tokens(names, 5, "cut")
    with pytest.raises(ValueError, match="reads 77"):
        ContextTextEncoder(toy_clip(), 78)


# --- score maps -----------------------------------------------------------------------------------------------------


def test_score_and_prompted_text_in_numpy():
    model = build().eval()
    embedding, visual = torch.randn(2, 48), torch.randn(2, 48, 3, 5)
    text, change, prompted, score = (x.detach().numpy() for x in model.prompt(model.tokens, embedding, visual))
    np.testing.assert_allclose(prompted, text + 1e-4 * change, atol=1e-6)
    v = visual.numpy() / np.linalg.norm(visual.numpy(), axis=1, keepdims=True)
    t = prompted / np.linalg.norm(prompted, axis=-1, keepdims=True)
    np.testing.assert_allclose(score, np.einsum("bchw,bkc->bkhw", v, t), atol=1e-6)


def test_the_decoder_does_not_care_for_the_order_of_words_and_places():
    decoder = ContextDecoder(12, width=8, heads=2, layers=2).eval()
    text, visual = torch.randn(2, 5, 12), torch.randn(2, 7, 12)
    order = torch.randperm(5)
    torch.testing.assert_close(decoder(text[:, order], visual), decoder(text, visual)[:, order], atol=1e-6, rtol=1e-4)
    shuffled = visual[:, torch.randperm(7)]
    torch.testing.assert_close(decoder(text, shuffled), decoder(text, visual), atol=1e-6, rtol=1e-4)
    with pytest.raises(ValueError, match="multiple of its 3 heads"):
        ContextDecoder(12, width=8, heads=3)


def test_score_loss_leaves_unlabeled_pixels_out():
    score, labels = torch.randn(1, 4, 6, 6), torch.randint(0, 4, (1, 6, 6))
    labels[0, :3] = 255
    z = score[0, :, 3:].double().numpy() / 0.07
    picked = np.take_along_axis(z, labels[0, 3:].numpy()[None], 0)[0]
    expected = (np.log(np.exp(z - z.max(0)).sum(0)) + z.max(0) - picked).mean()
    assert score_loss(score, labels).item() == pytest.approx(expected, rel=1e-5)


# --- the model ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_a_step(kind):
    model = build(kind).train()
    inputs, samples = batch(128 if kind == "resnet" else 64)
    losses = model.loss(inputs, samples)
    assert set(losses) == {"decode.loss_ce", "decode.acc_seg", "score.loss_ce", "score.acc_seg"}
    (losses["decode.loss_ce"] + losses["score.loss_ce"]).backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        assert parameter.requires_grad != name.startswith("text_encoder."), name
    assert model.score_level == (2 if kind == "vit" else 3)


def test_prediction_is_that_of_an_encoder_decoder():
    model = build().eval()
    inputs, _ = batch(size=64, count=3)
    maps = [sample.pred_sem_seg.data for sample in model.predict(inputs)]
    alone = [model.predict(each[None])[0].pred_sem_seg.data for each in inputs]
    assert all(torch.equal(a, b) and a.shape == (1, 64, 64) for a, b in zip(maps, alone, strict=True))
    whole = model.predict(inputs)[0].provenance
    model.test_cfg = ConfigDict(mode="slide", crop_size=(48, 48), stride=(32, 32))
    sample = model.predict(inputs)[0]
    assert sample.seg_logits.data.shape == (3, 64, 64) and sample.provenance.protocol["mode"] == "slide"
    assert sample.provenance.fingerprint != whole.fingerprint
    assert sample.provenance.vocabulary_hash == model.vocabulary.hash


def test_permuting_the_words_permutes_the_score_maps():
    inputs, _ = batch()
    order = [2, 0, 1]
    model, permuted = build().eval(), build(words=[WORDS[i] for i in order]).eval()
    state = model.state_dict()
    permuted.load_state_dict({k: v for k, v in state.items()})
    torch.testing.assert_close(permuted._features(inputs)[1], model._features(inputs)[1][:, order], atol=1e-5, rtol=0)


def test_a_reference_checkpoint_loads_by_name_and_shape():
    """Names as the spec lists them; a position table of another input size is resized."""
    model, source = build(), build(backbone=dict(weights=toy_tower(seed=1), position_size=128))
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.add_(0.01)
    state = source.state_dict()
    tops = {key.split(".")[0] for key in state}
    assert tops == {"backbone", "text_encoder", "context_decoder", "contexts", "gamma", "neck", "decode_head"}
    assert state["text_encoder.positional_embedding"].shape == (13, 64) and state["contexts"].shape == (1, 8, 64)
    assert state["backbone.positional_embedding"].shape == (65, 128)
    load_state_dict(model, dict(state), strict=False)
    loaded = model.state_dict()
    same = [key for key in state if key != "backbone.positional_embedding"]
    assert all(torch.equal(loaded[key], state[key]) for key in same)
    assert model.backbone.tower.visual.positional_embedding is model.backbone.positional_embedding
    torch.testing.assert_close(loaded["backbone.positional_embedding"][0], state["backbone.positional_embedding"][0])


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda s: s | {"backbone.layer9.weight": torch.zeros(1)}, "1 unexpected"),
        (lambda s: s | {"decode_head.conv_seg.weight": torch.zeros(150, 16, 1, 1)}, "150, 16, 1, 1.*instead of"),
        (lambda s: s | {"contexts": torch.zeros(1, 16, 64)}, "contexts"),
    ],
)
def test_a_checkpoint_that_does_not_fit(change, words):
    model = build()
    with pytest.raises(ValueError, match=words):
        load_state_dict(model, change(dict(model.state_dict())), strict=False)


@pytest.mark.parametrize(
    "options, words",
    [
        (dict(vocabulary=["cat", "dog"]), "2 classes and the decode head num_classes=3"),
        (
            dict(neck=dict(type="FPN", in_channels=[128] * 4, out_channels=16, num_outs=4)),
            r"gives \[128, 128, 131, 128\]",
        ),
        (dict(vocabulary=["cat", "dog", "a very old gray sofa"]), "too_long='grow'"),
        (dict(score_level=4), "levels 0 to 3"),
    ],
)
def test_what_does_not_fit_is_said(options, words):
    with pytest.raises(ValueError, match=words):
        build(**options)


def test_weights_without_text():
    tower = toy_tower()
    tower.clip = None
    with pytest.raises(ValueError, match="no text model"):
        build(backbone=dict(weights=tower))


DETECTORS = ("rcnn", "retinanet")
CONFIGS = sorted((ROOT / "configs/denseclip").glob("*.py"))
SEGMENTORS = [path for path in CONFIGS if not any(kind in path.stem for kind in DETECTORS)]


@pytest.mark.parametrize("path", SEGMENTORS, ids=lambda p: p.stem)
def test_configs(path):
    """All are sound; those of the embedded model build."""
    cfg = load_config(path)
    check_components(cfg, cfg.default_scope)
    assert path.name.startswith("denseclip_") and cfg.model.type == "DenseCLIP"
    if cfg.model.backbone.weights == "tiny":
        assert MODELS.build(cfg.model).tokens.shape == (cfg.model.decode_head.num_classes, 5)


def test_a_checkpoint_leaves_the_frozen_text_tower_out(data, monkeypatch):
    from ovseg.engine.checkpoints import named_towers, stored_names

    monkeypatch.setenv("OVSEG_DATA", str(data))
    model = MODELS.build(load_config(ROOT / "configs/denseclip/denseclip_tiny_overfit.py").model)
    stored = stored_names(model)
    assert len(named_towers(model)) == 1
    assert not [name for name in stored if "token_embedding" in name]
    assert {"backbone", "context_decoder", "contexts", "gamma"} <= {name.split(".")[0] for name in stored}


def test_a_plain_runner_trains_the_smoke_config(tmp_path, data, monkeypatch):
    from mmengine.runner import Runner

    monkeypatch.setenv("OVSEG_DATA", str(data))
    cfg = load_config(ROOT / "configs/denseclip/denseclip_tiny_overfit.py")
    overrides = {"train_cfg.max_iters": 2, "train_cfg.val_interval": 2, "work_dir": str(tmp_path)}
    small = {"type": "mmseg.Resize", "scale": (64, 64)}
    cfg.merge_from_dict(overrides | {"default_hooks.checkpoint": dict(type="CheckpointHook", by_epoch=False)})
    for loader in (cfg.train_dataloader.dataset, cfg.val_dataloader):
        pipeline = loader.dataset.pipeline
        loader.dataset.indices = 2
        loader.dataset.pipeline = [small if step["type"] == "mmseg.Resize" else step for step in pipeline]
    runner = Runner.from_cfg(cfg)
    before = {name: value.clone() for name, value in runner.model.state_dict().items()}
    runner.train()
    after = runner.model.state_dict()
    changed = {name.split(".")[0] for name in after if not torch.equal(after[name], before[name])}
    assert changed == {"backbone", "context_decoder", "contexts", "gamma", "neck", "decode_head"}
    assert 0 <= runner.message_hub.get_scalar("val/mIoU").current() <= 100
