"""Methods side by side: one pass for all of them changes no bit, and the comparison says what it measured."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

from ovseg import cli
from ovseg.apis.compare import Comparer, agreement, compare
from ovseg.apis.load import load as load_predictor
from ovseg.apis.measure import PeakMemory
from ovseg.apis.methods import list_methods
from ovseg.predict.build import dense_config
from ovseg.registry import DENSE
from ovseg.towers import Tower
from ovseg.towers.shared import SharedTower

from .conftest import ROOT

READY = list_methods(ready=True)
WORDS = ["bus", "strawberry", "owl", "tree", "grass", "sky"]


def images(size, batch=2, seed=0):
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(seed))


def assert_same(plain, shared):
    assert torch.equal(plain.features, shared.features) and torch.equal(plain.embedding, shared.embedding)
    assert plain.padding == shared.padding and plain.extras.keys() == shared.extras.keys()
    assert all(torch.equal(plain.extras[key], shared.extras[key]) for key in plain.extras)


@pytest.fixture
def counted(vit, monkeypatch):
    """The toy tower, and a list of the blocks it ran."""
    ran = []

    def counting(index, block):
        class Counted(type(block)):
            def qkv(self, normed):
                ran.append(index)
                return super().qkv(normed)

        return Counted(block.block)

    monkeypatch.setattr(vit, "blocks", [counting(i, block) for i, block in enumerate(vit.blocks)])
    return vit, ran


class TestSharedTower:
    @pytest.mark.parametrize("size", [(64, 64), (70, 95)])  # one grid of the position table, one that is resized
    @pytest.mark.parametrize("method", READY)
    def test_not_a_bit_differs(self, method, size, vit):
        dense, x = DENSE.build(dense_config(method)), images(size)
        shared = SharedTower(vit)
        for other in READY:  # after everybody else has left something in memory
            if other != method:
                DENSE.build(dense_config(other))(shared, x)
        for _ in range(2):
            assert_same(dense(vit, x), dense(shared, x))

    def test_resnet(self, resnet):
        shared, x = SharedTower(resnet), images((96, 128))
        for method in ("maskclip", "vanilla", "maskclip"):
            dense = DENSE.build(dense_config(method))
            assert_same(dense(resnet, x), dense(shared, x))

    def test_keeps_the_contract(self, vit):
        shared, x = SharedTower(vit), images((48, 80))
        assert isinstance(shared, Tower)
        names = ("blocks", "stride", "card", "preprocess", "width", "embed_dim", "image_size", "visual", "clip")
        for name in (*names, "provides", "family", "table_grid"):
            assert getattr(shared, name) is getattr(vit, name)
        assert (shared.device, shared.dtype, shared.logit_scale) == (vit.device, vit.dtype, vit.logit_scale)
        assert shared.grid_of(70, 95) == vit.grid_of(70, 95) and torch.equal(shared.normalize(x), vit.normalize(x))
        for _ in range(2):
            (a, plain), (b, kept) = (
                vit(x, ["block.-1.attn", "block.0.out"]),
                shared(x, ["block.-1.attn", "block.0.out"]),
            )
            assert torch.equal(a, b) and torch.equal(plain.x, kept.x) and plain.index == kept.index
            assert all(torch.equal(plain.taps[tap], kept.taps[tap]) for tap in plain.taps)
        with pytest.raises(ValueError, match="unknown tap"):
            shared.advance(shared.start(x), 1, ["block.0.nothing"])
        with pytest.raises(AttributeError):
            shared.no_such_thing  # noqa: B018

    def test_a_block_runs_once(self, counted):
        tower, ran = counted
        shared, x = SharedTower(tower), images((64, 64))
        methods = [
            DENSE.build(dense_config(name)) for name in ("naclip", "sclip", "clearclip", "maskclip", "cliptrase")
        ]
        for dense in methods:
            dense(shared, x)
        # "exact", MaskCLIP's positions, are those of the others on this grid; CLIPtrase taps block 1 afterwards
        assert ran.count(0) == 1 and ran.count(1) == 2
        assert ran.count(2) == len(methods) - 1  # every method's own reading; MaskCLIP's needs no queries and keys
        ran.clear()
        for dense in methods:
            dense(shared, x.clone())  # recognized by its values
        assert ran == [2] * (len(methods) - 1)
        shared.clear()
        methods[0](shared, x)
        assert ran.count(0) == 1 and shared.held > 0

    def test_states_are_fresh(self, vit):
        shared, x = SharedTower(vit), images((64, 64))
        first = shared.advance(shared.start(x), 2, ["block.1.q"])
        second = shared.start(x)
        assert second.index == 0 and not second.taps and torch.equal(second.x, vit.start(x).x)
        first.taps.clear()
        assert shared.advance(second, 2, ["block.-2.q"]).taps["block.-2.q"].shape == (2, 2, 17, 64)

    def test_tokens_that_were_changed_on_the_way(self, vit):
        shared, x = SharedTower(vit), images((64, 64))
        for _ in range(2):
            ends = []
            for tower in (vit, shared):
                state = tower.advance(tower.start(x), 1)
                state.x = 2 * state.x
                ends.append(tower.advance(state, 3).x)
            assert torch.equal(*ends)

    def test_a_picture_changed_in_place_is_another(self, vit):
        shared, x = SharedTower(vit), images((64, 64))
        shared(x)
        x.add_(1)
        assert torch.equal(shared(x)[0], vit(x)[0])

    @pytest.mark.parametrize("memory", [0, 150_000, 300_000])
    def test_memory_is_bounded(self, memory, vit):
        shared, x = SharedTower(vit, memory), images((64, 64))
        for method in READY:
            dense = DENSE.build(dense_config(method))
            assert_same(dense(vit, x), dense(shared, x))
        assert shared.held <= memory
        assert shared.clear().held == 0

    def test_gradients_pass(self, vit):
        x = images((64, 64)).requires_grad_()
        shared = SharedTower(vit)
        shared(x)[0].sum().backward()
        assert x.grad.abs().sum() > 0 and shared.held == 0

    def test_says_who_read_what(self, vit):
        shared, x = SharedTower(vit), images((64, 64))
        for shared.reader in ("a", "b"):
            shared.advance(shared.start(x), 2)
        assert len(shared.works) == 3 and all(work.reader == "a" for work in shared.works)
        assert all(work.readers == {"a", "b"} and work.seconds > 0 for work in shared.works)


class TestAgreement:
    def test_by_hand(self):
        a, b, c = np.array([[0, 1, 2, 3]]), np.array([[0, 1, 1, 2]]), np.array([[0, 2, 1, 1]])
        share, majority, pairwise = agreement([a, b, c])
        np.testing.assert_allclose(share, [[1, 2 / 3, 2 / 3, 1 / 3]], atol=1e-6)
        assert majority.tolist() == [[0, 1, 1, 1]] and share.dtype == np.float32
        np.testing.assert_allclose(pairwise, [[1, 0.5, 0.25], [0.5, 1, 0.5], [0.25, 0.5, 1]])

    def test_against_counting(self):
        rng = np.random.default_rng(0)
        maps = [rng.integers(0, 4, (20, 30)).astype(np.uint8) for _ in range(5)]
        share, majority, _ = agreement(maps)
        counts = np.stack([sum((m == label).astype(int) for m in maps) for label in range(4)])
        np.testing.assert_allclose(share, counts.max(0) / 5, atol=1e-6)
        assert (majority == counts.argmax(0)).all()

    def test_one_map_agrees_with_itself(self):
        share, majority, pairwise = agreement([np.full((2, 3), 255, np.uint8)])
        assert (share == 1).all() and (majority == 255).all() and pairwise.tolist() == [[1.0]]

    @pytest.mark.parametrize("maps", [[], [np.zeros((2, 2), int), np.zeros((2, 3), int)], [np.zeros(3, int)]])
    def test_maps_that_do_not_fit(self, maps):
        with pytest.raises(ValueError, match="one shape"):
            agreement(maps)


@pytest.fixture(scope="module")
def found(vit, tmp_path_factory):
    """All methods on a toy, which is quick: nothing here depends on what it sees."""
    with pytest.MonkeyPatch.context() as patch:  # made before the fixture that sets it for a test
        patch.setenv("OVSEG_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        return compare(ROOT / "demo" / "scene.png", WORDS, tower=vit, short_side=96, window=64, stride=32)


class TestCompare:
    def test_all_take_part(self, found):
        assert found.methods == tuple(READY) and not found.failed
        assert found.agreement.shape == (256, 256) and found.pairwise.shape == (len(READY),) * 2
        assert found.agreement.min() >= 1 / len(READY) - 1e-6 and found.agreement.max() <= 1
        assert (found.pairwise == found.pairwise.T).all() and (np.diag(found.pairwise) == 1).all()
        assert found.shared > 0 and all(entry.own >= 0 and entry.memory is not None for entry in found.entries)
        assert found.protocol["short_side"] == 96 and found.protocol["normalization"] == "weights"

    def test_the_weights_say_what_suits_them(self, vit):
        asked = replace(vit.card, protocol=dict(short_side=96, window=64, stride=64))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(vit, "card", asked)
            comparer = Comparer(["owl"], ["gem", "sclip"], tower=vit, stride=16)
            own = [comparer._predictor(*item).pipeline.protocol for item in comparer.configs.items()]
        for common in (comparer.common, *own):
            assert (common.short_side, common.size, common.window, common.stride) == (96, None, 64, 16)

    def test_is_what_the_methods_give_alone(self, found, vit):
        for entry in found.entries:
            alone = load_predictor(entry.method, classes=WORDS, tower=vit, **found.protocol)(found.image)
            assert (alone.labels == entry.result.labels).all() and (alone.scores == entry.result.scores).all()
            assert alone.protocol == entry.result.protocol

    def test_times_add_up(self, found):
        together = found.to_dict()
        assert together["seconds_together"] == pytest.approx(found.shared + sum(e.own for e in found.entries))
        assert all(
            entry.alone == entry.own + entry.shared <= entry.own + found.shared + 1e-9 for entry in found.entries
        )

    def test_page_needs_no_other_file(self, found):
        page = found.to_html("a <b> & \ud800")
        assert "a &lt;b&gt; &amp; " in page and "<title>a &lt;b" in page and page.encode("utf-8")
        sources = re.findall(r'(?:src|href)="([^"]{0,40})', page)
        assert len(sources) == len(READY) + 3 and all(s.startswith("data:image/png;base64,") for s in sources)
        assert "url(" not in page and "@import" not in page and "prefers-color-scheme: dark" in page
        opened = []

        class Tags(HTMLParser):
            def handle_starttag(self, tag, attrs):
                if tag not in ("meta", "img"):
                    opened.append(tag)

            def handle_endtag(self, tag):
                assert opened.pop() == tag

        Tags().feed(page)
        assert not opened

    @pytest.mark.parametrize("size", [(12, 200), (200, 12), (1, 1)])
    def test_pictures_of_any_shape_can_be_shown(self, size, vit):
        comparer = Comparer(["owl", "sky"], "naclip,sclip", tower=vit, short_side=32, window=None, refine=[])
        found = comparer.compare(np.zeros((*size, 3), np.uint8))
        assert found.plot().width > 300 and "naclip" in found.to_html()

    def test_settings_are_common(self, vit, picture):
        options = dict(tower=vit, short_side=64, window=None, templates="name", refine=[])
        found = compare(picture, ["owl", "sky"], ["gem", "maskclip"], **options)
        protocols = [entry.result.protocol for entry in found.entries]
        assert all(p["short_side"] == 64 and p["size"] is None and p["window"] is None for p in protocols)
        assert all(p["normalization"] == "weights" and p["refine"] == () for p in protocols)
        assert [p["logit_scale"] for p in protocols] == [100, 100]

    def test_own_protocols(self, vit, picture):
        comparer = Comparer(["owl", "sky"], ["vanilla", "maskclip"], own_protocol=True, templates="name", tower=vit)
        found = comparer.compare(picture)
        assert found.protocol is None and "own published" in found.to_html()
        first, second = (entry.result.protocol for entry in found.entries)
        assert (first["short_side"], first["window"]) == (336, 224)
        assert (second["short_side"], second["window"], second["normalization"]) == (512, None, "imagenet")

    def test_configs_and_pictures_one_after_the_other(self, vit, picture):
        methods = ["naclip", dict(type="NACLIP", sigma=1.0)]
        comparer = Comparer(["owl", "sky"], methods, tower=vit, short_side=64, refine=[])
        first = comparer.compare(picture)
        comparer.compare(picture[::-1].copy())
        again = comparer.compare(picture)
        assert first.methods == ("naclip", "naclip sigma=1.0") and comparer.tower.held == 0
        assert all(
            (a.result.labels == b.result.labels).all() for a, b in zip(first.entries, again.entries, strict=True)
        )

    def test_methods_that_cannot_take_part(self, resnet, picture):
        methods = ["gem", "maskclip", "vanilla", "clip_dinoiser"]
        options = dict(tower=resnet, templates="name", short_side=64, window=None)
        found = Comparer(["owl", "sky"], methods, **options).compare(picture)
        assert found.methods == ("maskclip", "vanilla") and set(found.failed) == {"gem", "clip_dinoiser"}
        assert "resnet" in found.failed["gem"] and "convolutions" in found.failed["clip_dinoiser"]
        assert found.failed["gem"] in found.to_html() and found.plot()
        with pytest.raises(ValueError, match="none of the methods.*gem: .*resnet"):
            Comparer(["owl", "sky"], ["gem"], **options).compare(picture)

    @pytest.mark.parametrize(
        "options, words",
        [
            (dict(methods=["nacilp"]), "naclip"),
            (dict(methods=[]), "no method"),
            (dict(methods="naclip,"), "unknown method"),
            (dict(windw=3), "window"),
            (dict(windw=3, own_protocol=True), "window"),
            (dict(classes=[]), "word|class|name"),
        ],
    )
    def test_mistakes(self, options, words):
        with pytest.raises(ValueError, match=words):
            Comparer(**({"classes": ["owl"]} | options))


def test_peak_memory():
    with PeakMemory(torch.device("cpu")) as peak:
        torch.ones(2**26)
    assert peak.how and (peak.bytes is None or peak.bytes > 2**27 or "growth" in peak.how)


@pytest.fixture
def ovseg(capsys, monkeypatch, tmp_path):
    """The command in this process, in an empty folder: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught, monkeypatch.context() as patch:
            patch.setattr("warnings.showwarning", None)  # put back afterwards: main replaces it
            cli.main(["compare", *map(str, arguments)])
        return (caught.value.code or 0, *capsys.readouterr())

    return run


class TestCommand:
    def test_writes_three_files(self, ovseg, tmp_path):
        scene = ROOT / "demo" / "scene.png"
        options = ("--methods", "naclip, Gem,sclip", "--no-refine", "--templates", "name", "--short-side", 64)
        code, out, err = ovseg(scene, "-c", ", ".join(WORDS), "--no-progress", *options)
        assert code == 0 and "1 picture(s) compared" in out and "shared blocks" in err
        names = sorted(path.name for path in (tmp_path / "out").iterdir())
        assert names == ["scene_compare.html", "scene_compare.json", "scene_compare.png"]
        record = json.loads((tmp_path / "out" / "scene_compare.json").read_text(encoding="utf-8"))
        assert [row["method"] for row in record["methods"]] == ["naclip", "gem", "sclip"]
        assert record["methods"][0]["protocol"]["refine"] == [] and record["classes"] == WORDS
        assert np.shape(record["agreement"]["pairwise"]) == (3, 3) and 1 / 3 <= record["agreement"]["mean"] <= 1
        assert Image.open(tmp_path / "out" / "scene_compare.png").width > 600

    def test_mistakes_cost_one_paragraph(self, ovseg, tmp_path, picture):
        Image.fromarray(picture).save(tmp_path / "photo.png")
        (tmp_path / "file").write_text("")
        for arguments, words in [
            (("photo.png", "-c", "cat", "-m", "nacilp"), "unknown method 'nacilp'. Did you mean naclip"),
            (("photo.png",), "in one way"),
            (("none.png", "-c", "cat"), "none.png"),
            (("photo.png", "-c", "cat", "-o", "file"), "it is a file"),
            (("photo.png", "-c", "cat", "--stride", 0), "out of range"),
        ]:
            code, out, err = ovseg(*arguments)
            lines = [line for line in err.splitlines() if "embedded demo model" not in line]
            assert code == 2 and len(lines) == 1 and words in lines[0] and not out, err

    def test_what_failed_is_said(self, ovseg, tmp_path, picture):
        Image.fromarray(picture).save(tmp_path / "photo.png")
        (tmp_path / "broken.png").write_text("no picture")
        options = ("--templates", "name", "--no-progress", "-c", "owl, sky", "--short-side", 64)
        code, out, err = ovseg("photo.png", *options, "-m", "sclip,CLIP-DINOiser")
        assert code == 1 and "1 picture(s)" in out and "clip_dinoiser could not take part: " in err
        code, out, err = ovseg("photo.png", "broken.png", *options, "-m", "sclip")
        assert code == 1 and "1 of 2 picture(s) could not be read" in err and (tmp_path / "out").is_dir()
