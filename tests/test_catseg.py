"""CAT-Seg: parity with the authors' code, their checkpoints, prediction by views, and the training loss."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

import ovseg
from ovseg.catseg import CostScore
from ovseg.dense import CATSeg, DenseFeatures
from ovseg.predict.pipeline import Pipeline
from ovseg.predict.protocol import Protocol
from ovseg.registry import MODELS
from ovseg.segmentors.catseg import class_loss, positions_in, some_classes
from ovseg.testing.cases.catseg import parts
from ovseg.testing.cases.common import Case
from ovseg.testing.parity import Golden, compare
from ovseg.testing.toys import toy_clip, toy_tower
from ovseg.towers import load_tower
from ovseg.towers.formats import CATSEG
from tests.smoke import losses_of

AGGREGATION = dict(
    hidden=16, layers=1, heads=2, window=4, embed_dim=48, text=8, appearance=8, guidance=(10, 6), projected=(4, 4),
    decoder=(32, 16), pad_len=6,
)  # fmt: skip
VIEWS = dict(size=(96, 96), window=64, stride=32, view=64, whole_view=True)


def score(**options) -> CostScore:
    """A scorer for the toy tower whose logits are neither all large nor all small."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = CostScore(scratch=True, width=128, aggregation=AGGREGATION | options).eval()
        for parameter in made.parameters():
            torch.nn.init.normal_(parameter, std=1.0 if parameter.ndim == 1 else parameter[0].numel() ** -0.5)
    return made


def unit(words: int, width: int = 48) -> torch.Tensor:
    return F.normalize(torch.randn(words, width, generator=torch.Generator().manual_seed(5)), dim=1)


@pytest.mark.parametrize("name", ["trained_catseg", "trained_catseg_full"])
def test_parity(name, goldens):
    lines = list(compare(goldens / f"{name}.npz"))
    assert lines and all(ok for _, _, ok in lines), [line for line in lines if not line[2]]


def test_gradients_of_the_authors_training_step(goldens):
    golden = Golden(goldens / "trained_catseg_full.npz")
    for name in golden.meta["cases"]:
        each = Case(golden, name)
        tower, dense, scorer = parts(each)
        attentions = [block.attention for block in tower.blocks]
        for attention in attentions:
            attention.in_proj_weight.requires_grad_(True)
        images = tower.normalize(each.input("train_images_u8") / 255)
        class_loss(scorer.train()(dense(tower, images), each.input("text")), each.input("train_targets")).backward()
        assert each.settings["grad_norms"]
        for place, norm in each.settings["grad_norms"].items():
            *_, index, _, part = place.split(".")
            ours = attentions[int(index)].in_proj_weight.grad.chunk(3)["qkv".index(part[0])].norm()
            assert float(ours) == pytest.approx(norm, rel=1e-3)


class TestDense:
    def test_every_token_gets_the_class_tokens_residual(self, vit):
        x = torch.randn(2, 3, 64, 80, generator=torch.Generator().manual_seed(0))
        out = CATSeg(taps_at=(0, 1))(vit, x)
        taps = [f"block.{i}.{part}" for i, part in ((0, "out"), (1, "out"), (2, "in"), (2, "v"))]
        state = vit.advance(vit.start(x, "exact"), 3, taps)
        block, values = vit.blocks[-1], state.taps["block.2.v"]
        z = block.out(values) + state.taps["block.2.in"][:, :1]
        expected = vit.project(z + block.ffn(z))[:, 1:]
        torch.testing.assert_close(out.features.flatten(2).transpose(1, 2), expected)
        early, late = out.extras["guidance"].flatten(3).transpose(2, 3).unbind(1)
        torch.testing.assert_close(early, state.taps["block.0.out"][:, 1:])
        torch.testing.assert_close(late, state.taps["block.1.out"][:, 1:])

    def test_shares_of_the_depth(self):
        tower = toy_tower("vit")
        dense, x = CATSeg(), torch.zeros(1, 3, 64, 64)
        for depth, blocks in ((12, (3, 7)), (24, (7, 15)), (3, (0, 1))):
            tower.blocks = (tower.blocks * 24)[:depth]
            assert dense(tower, x).extras["guidance"].shape[1] == 2
            assert dense.taps_of(tower) == tuple(f"block.{number}.out" for number in blocks)

    def test_errors(self, vit):
        with pytest.raises(ValueError, match="residual is True, False or \"class\".*'own'"):
            CATSeg(residual="own")
        with pytest.raises(ValueError, match="two blocks"):
            CATSeg(taps_at=(1,))
        with pytest.raises(ValueError, match=r"blocks \[0, 2\] of this tower, expected blocks from 0 to 1"):
            CATSeg(taps_at=(0, 2))(vit, torch.zeros(1, 3, 64, 64))


class TestScore:
    def test_text_with_and_without_prompts(self, vit):
        out, text = CATSeg()(vit, torch.randn(1, 3, 64, 64)), unit(4)
        with torch.no_grad():
            one = score()(out, text)
            assert one.shape == (1, 4, 16, 16)
            torch.testing.assert_close(score()(out, text[:, None]), one)
            twice = score(prompts=2)(out, torch.stack([text, text.flip(0)], 1))
        assert twice.shape == (1, 4, 16, 16)

    def test_pooling_is_for_training(self, vit):
        out, text, scorer = CATSeg()(vit, torch.randn(1, 3, 64, 64)), unit(4), score()
        with torch.no_grad():
            tested, trained = scorer(out, text), scorer.train()(out, text)
            assert not torch.allclose(tested, trained)
            scorer.pooling = (1, 1)
            torch.testing.assert_close(scorer(out, text), tested)

    def test_errors(self, vit):
        with pytest.raises(ValueError, match="needs its trained aggregation.*scratch=True"):
            ovseg.load("catseg", tower=vit)
        with pytest.raises(ValueError, match="no argument 'top_K'. Did you mean 'top_k'"):
            CostScore(scratch=True, aggregation=dict(top_K=3))
        with pytest.raises(ValueError, match="only the method catseg"):
            score()(DenseFeatures(torch.zeros(1, 48, 4, 4), torch.zeros(1, 48)), unit(2))
        guidance = {"guidance": torch.zeros(1, 2, 64, 4, 4)}
        strange = DenseFeatures(torch.zeros(1, 48, 4, 4), torch.zeros(1, 48), extras=guidance)
        with pytest.raises(ValueError, match="a tower of width 128 and embeddings of 48; this tower has 64 and 48"):
            score()(strange, unit(2))


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """A checkpoint laid out like the authors', and the toy CLIP (with QuickGELU) and scorer in it."""
    clip, scorer, state = toy_clip("vit", quick_gelu=True), score(), {}
    for name, tensor in clip.state_dict().items():
        if name.endswith("attn.in_proj_weight"):
            for part, third in zip("qkv", tensor.chunk(3), strict=True):
                state[CATSEG + name.replace("in_proj_weight", f"{part}_proj_weight")] = third.clone()
        elif not name.endswith("attn_mask"):
            state[CATSEG + name] = tensor
    for name, tensor in scorer.state_dict().items():
        state[f"sem_seg_head.predictor.{name}" if name.startswith("transformer") else name] = tensor
    state["sem_seg_head.predictor.transformer.layers.0.swin_block.block_2.attn_mask"] = torch.zeros(4, 16, 16)
    path = tmp_path_factory.mktemp("released") / "model_toy.pth"
    torch.save({"model": state, "iteration": 80000}, path)
    return path, clip, scorer


SETTINGS = dict(heads=2, window=4, pad_len=6)


class TestReleasedCheckpoints:
    def test_one_file_is_tower_and_scorer(self, released, picture):
        path, clip, scorer = released
        tower = load_tower(path)
        x = torch.randn(1, 3, 64, 64)
        with torch.no_grad():
            torch.testing.assert_close(tower(x)[0], clip.encode_image(x), atol=1e-5, rtol=1e-5)
            out = CATSeg()(tower, x)
            read = CostScore(path, aggregation=SETTINGS | dict(hidden=999)).eval()
            assert torch.equal(read(out, unit(5)), scorer(out, unit(5)))
        model = ovseg.load(
            dict(type="CATSeg", checkpoint=path), str(path), ["cat", "dog|hound", "sky"], cache=False, **VIEWS
        )
        result = model(picture)
        assert result.labels.shape == picture.shape[:2] and result.labels.max() < 3

    def test_our_own_checkpoints(self, tmp_path, vit):
        scorer = score()
        ours = {f"pipeline.scorer.{name}": tensor for name, tensor in scorer.state_dict().items()}
        torch.save(ours | {"pipeline.tower.visual.proj": torch.zeros(1)}, tmp_path / "iter_1.pth")
        out = CATSeg()(vit, torch.randn(1, 3, 64, 64))
        read = CostScore(tmp_path / "iter_1.pth", aggregation=SETTINGS).eval()
        with torch.no_grad():
            assert torch.equal(read(out, unit(3)), scorer(out, unit(3)))

    @pytest.mark.parametrize(
        "change, message",
        [
            (lambda s: s.pop("upsample1.weight"), "upsample1.weight is missing"),
            (lambda s: s.pop("upsample2.bias"), r"1 missing \(upsample2.bias\)"),
            (lambda s: s.pop("sem_seg_head.predictor.transformer.head.weight"), r"1 missing \(head.weight\)"),
            (lambda s: s.update({"backbone.res2.weight": torch.zeros(1)}), "unknown names: backbone.res2.weight"),
            (lambda s: [s.pop(k) for k in list(s) if not k.startswith(CATSEG)], "0 of its"),
        ],
    )
    def test_what_is_missing_or_too_much(self, released, tmp_path, change, message):
        state = torch.load(released[0], weights_only=True)["model"]
        change(state)
        torch.save({"model": state}, tmp_path / "changed.pth")
        with pytest.raises(ValueError, match=message):
            CostScore(tmp_path / "changed.pth", aggregation=SETTINGS)

    def test_half_an_attention(self, released, tmp_path):
        state = torch.load(released[0], weights_only=True)["model"]
        state.pop(f"{CATSEG}visual.transformer.resblocks.1.attn.k_proj_weight")
        torch.save({"model": state}, tmp_path / "changed.pth")
        with pytest.raises(ValueError, match="resblocks.1.attn lacks k_proj_weight"):
            load_tower(tmp_path / "changed.pth")
        with pytest.raises(FileNotFoundError, match="no such file"):
            CostScore(tmp_path / "none.pth")


class TestViews:
    def decoded(self, tower, picture, words=6, classes=None, **settings):
        pipeline = Pipeline(tower, CATSeg(), Protocol(**(VIEWS | settings)), score())
        encoded = pipeline.encode(picture)
        return tuple(pipeline.decode(encoded, unit(words), classes or range(words))), pipeline, encoded

    def test_windows_and_the_whole_picture_by_hand(self, vit, picture):
        (labels, scores, _), pipeline, encoded = self.decoded(vit, picture, view=80)
        dense, scorer, text = CATSeg(), score(), unit(6)

        def maps(images):
            views = F.interpolate(images, (80, 80), mode="bilinear", align_corners=False)
            with torch.no_grad():
                logits = scorer(dense(vit, views), text)
            return F.interpolate(logits, (64, 64), mode="bilinear", align_corners=False).sigmoid()

        assert encoded.resized == (96, 96) and len(encoded.boxes) == 4
        import cv2

        small = torch.from_numpy(cv2.resize(picture, (96, 96), interpolation=cv2.INTER_LINEAR)).permute(2, 0, 1) / 255
        total, count, pixels = torch.zeros(6, 96, 96), torch.zeros(96, 96), vit.normalize(small)
        for top in (0, 32):
            for left in (0, 32):
                place = (..., slice(top, top + 64), slice(left, left + 64))
                total[place] += maps(pixels[place][None])[0]
                count[place] += 1
        own = vit.normalize(torch.from_numpy(picture).permute(2, 0, 1)[None] / 255)
        whole = maps(F.interpolate(own, (64, 64), mode="bilinear", align_corners=False))
        whole = F.interpolate(whole, (96, 96), mode="bilinear", align_corners=False)[0]
        mean = (total / count + whole) / 2
        expected = F.interpolate(mean[None], picture.shape[:2], mode="bilinear", align_corners=False)[0]
        assert (labels == expected.argmax(0)).float().mean() > 0.999
        torch.testing.assert_close(scores, expected.amax(0) / expected.sum(0), atol=1e-4, rtol=1e-4)

    def test_bands_and_portions_give_the_same(self, vit, picture):
        large = np.tile(picture, (4, 4, 1))
        whole, *_ = self.decoded(vit, large, words=40)
        banded, *_ = self.decoded(vit, large, words=40, memory=2**20)
        assert (whole[0] == banded[0]).float().mean() > 0.999
        torch.testing.assert_close(whole[1], banded[1], atol=1e-5, rtol=1e-4)

    def test_other_words_need_no_tower(self, vit, picture, monkeypatch):
        _, pipeline, encoded = self.decoded(vit, picture)
        monkeypatch.setattr(pipeline.dense, "forward", lambda *a: pytest.fail("the tower ran again"))
        labels, scores, margin = pipeline.decode(encoded, unit(9), [0, 1, 1, 2, 3, 4, 5, 6, 7])
        assert labels.max() <= 7 and ((scores >= 0) & (scores <= 1) & (margin <= scores)).all()

    def test_synonyms_small_classes_and_refiners(self, vit, picture):
        (labels, *_), pipeline, encoded = self.decoded(vit, picture)
        (merged, *_), *_ = self.decoded(vit, picture, classes=[0, 0, 1, 1, 2, 2])
        assert torch.equal(merged, labels // 2)
        counts = labels.flatten().bincount(minlength=6) / labels.numel()
        least = counts[counts > 0].min().item()
        (fewer, *_), *_ = self.decoded(vit, picture, area_threshold=least + 1e-6)
        assert set(fewer.unique().tolist()) == set((counts > least + 1e-6).nonzero().flatten().tolist())
        (refined, *_), *_ = self.decoded(vit, picture, refine=("PAMR", "MeanFieldCRF"))
        assert refined.shape == labels.shape

    def test_cosines_have_views_too(self, vit, picture):
        common = dict(tower=vit, classes=["a", "b"], cache=False, window=64, stride=64, refine=[])
        one, same = (ovseg.load("naclip", short_side=64, view=view, **common) for view in (None, 64))
        squashed = common | dict(size=(64, 64))
        assert np.array_equal(one(picture).labels, same(picture).labels)
        alone, beside = ovseg.load("naclip", **squashed), ovseg.load("naclip", **squashed, whole_view=True)
        assert np.mean(alone(picture).labels == beside(picture).labels) > 0.9  # one window is the whole already

    def test_a_view_holds_whole_patches(self, vit):
        with pytest.raises(ValueError, match="view=70 cuts patches.*patches of 16.*such as 64"):
            Pipeline(vit, CATSeg(), Protocol(view=70), score())


class TestLoss:
    labels = torch.tensor([[[0, 2, 255], [255, 1, 1]]])

    def test_pixels_without_a_class_are_zeros_or_left_out(self):
        logits = torch.randn(1, 3, 2, 3)
        targets = torch.stack([(self.labels == k).float() for k in range(3)], 1)
        each = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        torch.testing.assert_close(class_loss(logits, self.labels), each.mean())
        valid = (self.labels != 255)[:, None].expand_as(each)
        torch.testing.assert_close(class_loss(logits, self.labels, "skip"), each[valid].mean())
        assert class_loss(logits, torch.full_like(self.labels, 255), "skip") == 0

    def test_some_classes(self):
        kept = some_classes(self.labels, 10, 5)
        assert kept.shape == (len(self.labels), 5)
        for label, ids in zip(self.labels, kept, strict=True):
            present = set(label[label != 255].tolist())
            assert present <= set(ids.tolist()) and torch.equal(ids, ids.unique())
            assert torch.equal(ids[positions_in(label, ids)[label != 255]], label[label != 255].long())
        most = max(len(label[label != 255].unique()) for label in self.labels)
        assert some_classes(self.labels, 10, 1).shape == (len(self.labels), most)


def segmentor(**options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MODELS.build(
            dict(
                type="CATSeg",
                dense=dict(type="CATSeg"),
                scorer=dict(type="CostScore", scratch=True, width=128, aggregation=AGGREGATION),
                weights=toy_tower("vit"),
                vocabulary=["cat", "dog|hound", "grass", "sky"],
                protocol=VIEWS,
            )
            | options
        )


def batch(size=64):
    generator = torch.Generator().manual_seed(0)
    pictures = [torch.randint(0, 256, (3, size, size), generator=generator, dtype=torch.uint8) for _ in range(2)]
    samples = []
    for _ in range(2):
        labels = torch.randint(0, 3, (1, size, size), generator=generator)
        labels[:, :5] = 255
        samples.append(SegDataSample(gt_sem_seg=PixelData(data=labels)))
    return pictures, samples


class TestTraining:
    def test_a_step_moves_what_shall_train(self):
        model = segmentor(tuning=[dict(type="QV", towers=("visual", "text"))]).train()
        loss = model.loss(*batch())
        assert set(loss) == {"loss_classes"}
        loss["loss_classes"].backward()
        moved = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
        scorer = {f"pipeline.scorer.{name}" for name, _ in model.pipeline.scorer.named_parameters()}
        assert scorer - moved <= {name for name in scorer if "padding" in name or "attn.k.bias" in name}
        tower = {name for name in moved if "tower" in name}
        assert all("in_proj_weight.original" in name and not name.endswith("original1") for name in tower)
        assert any("visual" in name for name in tower) and any("visual" not in name for name in tower)

    def test_pictures_are_seen_at_the_size_of_a_view(self):
        model = segmentor(protocol=VIEWS | dict(view=32)).train()
        sizes = []
        model.pipeline.dense.register_forward_pre_hook(lambda m, given: sizes.append(tuple(given[1].shape[2:])))
        model.loss(*batch())
        assert sizes == [(32, 32)]

    def test_a_part_of_the_classes(self):
        model, everything = segmentor(train_classes=3).train(), segmentor().train()
        inputs, samples = batch()
        text = model.words()
        with torch.no_grad():
            some = model.loss(inputs, samples)["loss_classes"]
            images = everything.images(inputs)
            words = [0, 1, 3]  # cat, dog and grass; the labels hold no sky
            logits = everything.pipeline.scorer(everything.pipeline.features(images), text[words])
            torch.testing.assert_close(some, class_loss(logits, everything.labels(samples)))
            assert not torch.isclose(some, everything.loss(inputs, samples)["loss_classes"])

    def test_prediction(self):
        model = segmentor().eval()
        inputs, samples = batch()
        found = model.predict(inputs, samples)
        assert found[0].pred_sem_seg.data.shape == (1, 64, 64) and found[0].pred_sem_seg.data.max() <= 3

    @pytest.mark.parametrize("options", [dict(ignore="drop"), dict(train_classes=0)])
    def test_errors(self, options):
        with pytest.raises(ValueError, match="ignore is zero or skip, train_classes a positive number"):
            segmentor(**options)


@pytest.mark.parametrize("options", [{}, dict(relations=("vv",), residual=False, ffn=False, last_n=6)])
def test_an_exported_run_predicts_as_its_model(tmp_path, options):
    import ovseg

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MODELS.build(
            dict(
                type="CATSeg",
                weights="tiny",
                vocabulary=["cat", "dog", "grass", "sky"],
                dense=dict(type="CATSeg", **options),
                scorer=dict(type="CostScore", scratch=True, width=256, aggregation=AGGREGATION | dict(embed_dim=256)),
                tuning=[dict(type="QV")],
                protocol=dict(
                    size=None, short_side=96, window=64, stride=32, view=None, whole_view=False, templates="name"
                ),
            )
        ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.mul_(1.05)
    model.export(tmp_path / "run.safetensors")
    model.cache = None  # words encoded elsewhere, in other batches, differ by a rounding, and so do untrained scores
    inputs, samples = batch(96)
    expected = model.predict(inputs[:1], samples[:1])[0].pred_sem_seg.data[0].numpy()
    ours = ovseg.load("catseg", weights=str(tmp_path / "run.safetensors"), classes=model.vocabulary, cache=False)
    picture = inputs[0].flip(0).permute(1, 2, 0).numpy()
    assert (ours(picture).labels == expected).mean() > 0.999
    assert ours.pipeline.protocol.window == 64 and ours.pipeline.protocol.view is None


@pytest.mark.slow
def test_it_learns_eight_scenes(tmp_path):
    losses = losses_of("configs/catseg/catseg_tiny_overfit.py", tmp_path, 12)
    assert sum(losses[-3:]) < 0.98 * sum(losses[:3])  # it starts at the share of a class
