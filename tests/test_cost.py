"""The aggregation of cost volumes: its equations in numpy, and what may not change its result."""

import numpy as np
import pytest
import torch

from ovseg.catseg import CostAggregation, CostScore, cost_volume
from ovseg.catseg.aggregation import ABSENT
from ovseg.catseg.classes import ClassAggregation, GuidedAttention
from ovseg.catseg.decoder import spread
from ovseg.catseg.spatial import SpatialAggregation, WindowAttention

SMALL = dict(
    hidden=16, layers=2, heads=2, window=4, embed_dim=12, text=8, appearance=8, guidance=(10, 6), projected=(4, 4),
    decoder=(32, 16), pad_len=0,
)  # fmt: skip


def seeded(make, *args, **options):
    """A module with random weights that are not small, so that nothing is near zero by chance."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = make(*args, **options)
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter, std=0.5 if parameter.ndim == 1 else parameter[0].numel() ** -0.5)
    return module.eval()


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def inputs(batch=2, words=5, grid=(8, 8), prompts=1):
    h, w = grid
    maps = noise(batch, 12, h, w), noise(batch, words, prompts, 12, seed=1)
    return *maps, (noise(batch, 10, 2 * h, 2 * w, seed=2), noise(batch, 6, 4 * h, 4 * w, seed=3))


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def linear(layer, x):
    return x @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()


def heads_of(x, heads):
    return np.stack(np.split(x, heads, -1), -3)  # (…, heads, N, d)


def attended(q, k, v, heads, added=0.0):
    q, k, v = (heads_of(t, heads) for t in (q, k, v))
    out = softmax(q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1]) + added) @ v
    return np.concatenate(np.moveaxis(out, -3, 0), -1)


class TestWindows:
    def windowed(self, grid, window, shift):
        """Ours, and numpy's inputs to check it."""
        module = seeded(WindowAttention, 8, 4, 2)
        x, guidance = noise(1, 3, *grid, 8), noise(1, *grid, 4, seed=1)
        with torch.no_grad():
            ours = module(x, guidance, window, shift).numpy()
        beside = np.broadcast_to(guidance.numpy()[:, None], (*x.shape[:4], 4))
        both = np.concatenate([x.numpy(), beside], -1)
        return module, ours, linear(module.q, both), linear(module.k, both), linear(module.v, x.numpy())

    @pytest.mark.parametrize("grid", [(8, 8), (4, 12)])
    def test_shifted_windows_are_those_of_rolling_and_masking(self, grid):
        window, shift, (h, w) = 4, 2, grid
        module, ours, *qkv = self.windowed(grid, window, shift)
        region = np.zeros(grid)  # Swin's: nine regions of the rolled picture
        for i, rows in enumerate((slice(0, -window), slice(-window, -shift), slice(-shift, None))):
            for j, columns in enumerate((slice(0, -window), slice(-window, -shift), slice(-shift, None))):
                region[rows, columns] = 3 * i + j
        rolled = [np.roll(t, (-shift, -shift), (2, 3)) for t in qkv]
        out = np.zeros_like(rolled[0])
        for top in range(0, h, window):
            for left in range(0, w, window):
                part = np.s_[top : top + window, left : left + window]
                ids = region[part].reshape(-1)
                mask = np.where(ids[:, None] == ids[None], 0.0, -100.0)
                tokens = [t[:, :, part[0], part[1]].reshape(1, 3, -1, 8) for t in rolled]
                out[:, :, part[0], part[1]] = attended(*tokens, 2, mask).reshape(1, 3, window, window, 8)
        expected = linear(module.proj, np.roll(out, (shift, shift), (2, 3)))
        np.testing.assert_allclose(ours, expected, atol=1e-5)

    @pytest.mark.parametrize("grid, shift", [((5, 7), 0), ((5, 7), 2), ((9, 4), 2), ((8, 6), 0)])
    def test_any_grid(self, grid, shift):
        module, ours, *qkv = self.windowed(grid, 4, shift)
        rows, columns = np.meshgrid(*(np.arange(n) for n in grid), indexing="ij")
        cell = ((rows - shift) // 4 * 100 + (columns - shift) // 4).reshape(-1)
        mask = np.where(cell[:, None] == cell[None], 0.0, -np.inf)
        out = attended(*(t.reshape(1, 3, -1, 8) for t in qkv), 2, mask).reshape(ours.shape)
        np.testing.assert_allclose(ours, linear(module.proj, out), atol=1e-5)

    def test_a_small_grid_is_one_row_of_unshifted_windows(self):
        module = seeded(SpatialAggregation, 8, 4, 2, 12)
        x, guidance = noise(1, 2, 6, 12, 8), noise(1, 6, 12, 4, seed=1)
        with torch.no_grad():
            halves = [module(x[:, :, :, p], guidance[:, :, p]) for p in (slice(0, 6), slice(6, 12))]
            torch.testing.assert_close(module(x, guidance), torch.cat(halves, 3), atol=1e-5, rtol=1e-5)


class TestClasses:
    @pytest.mark.parametrize("attention", ["linear", "full"])
    @pytest.mark.parametrize("count", [0, 4])
    def test_the_equations_with_the_filling_written_out(self, attention, count):
        module = seeded(GuidedAttention, 8, 4, 2, attention)
        y, text, token, filling = noise(1, 3, 5, 8), noise(1, 5, 4, seed=1), noise(1, 8, seed=2), noise(1, 4, seed=3)
        with torch.no_grad():
            ours = module(y, text, (token, filling, count) if count else None)[0].numpy()
        all_y = np.concatenate([y[0].numpy(), np.broadcast_to(token.numpy(), (3, count, 8))], 1)
        all_text = np.concatenate([text[0].numpy(), np.broadcast_to(filling.numpy(), (count, 4))])
        both = np.concatenate([all_y, np.broadcast_to(all_text, (3, 5 + count, 4))], -1)
        q, k, v = linear(module.q, both), linear(module.k, both), linear(module.v, all_y)
        if attention == "full":
            expected = attended(q, k, v, 2)
        else:
            q, k, v = (heads_of(t, 2) for t in (q, k, v))
            q, k = (np.where(t > 0, t + 1, np.exp(t)) for t in (q, k))
            sums = k.swapaxes(-1, -2) @ v
            out = q @ sums / (q @ k.sum(-2, keepdims=True).swapaxes(-1, -2) + 1e-6)
            expected = np.concatenate(np.moveaxis(out, -3, 0), -1)
        np.testing.assert_allclose(ours, expected[:, :5], atol=1e-5)

    def test_unknown_attention(self):
        with pytest.raises(ValueError, match="linear or full, got 'soft'"):
            ClassAggregation(8, 4, 2, "soft", 0)


@pytest.mark.parametrize("pooling", [(1, 1), (2, 2)])
@pytest.mark.parametrize(
    "options, shape",
    [
        ({}, {}),
        (dict(pad_len=9), {}),
        (dict(attention="full", pad_len=9), dict(grid=(6, 9))),
        (dict(prompts=3), dict(prompts=3, grid=(5, 4))),
        (dict(top_k=3), {}),
    ],
)
class TestAggregation:
    def test_portions_pictures_and_gradients_change_nothing(self, pooling, options, shape):
        model, (f, t, g) = seeded(CostAggregation, **(SMALL | options)), inputs(**shape)
        whole = model(f, t, g, pooling).detach()
        assert whole.shape == (2, 5, 4 * f.shape[2], 4 * f.shape[3])
        with torch.no_grad():
            torch.testing.assert_close(model(f, t, g, pooling), whole, atol=1e-4, rtol=1e-4)
            model.memory = 1
            torch.testing.assert_close(model(f, t, g, pooling), whole, atol=1e-4, rtol=1e-4)
            second = model(f[1:], t[1:], [x[1:] for x in g], pooling)
            torch.testing.assert_close(second, whole[1:], atol=1e-4, rtol=1e-4)

    def test_the_order_of_classes_and_the_length_of_text_do_not_matter(self, pooling, options, shape):
        model, (f, t, g) = seeded(CostAggregation, **(SMALL | options)), inputs(**shape)
        order = torch.tensor([3, 0, 4, 1, 2])
        with torch.no_grad():
            straight = model(f, t, g, pooling)
            torch.testing.assert_close(model(f, t[:, order], g, pooling), straight[:, order], atol=1e-4, rtol=1e-4)
            if t.shape[2] == 1:
                torch.testing.assert_close(model(f, 3 * t, g, pooling), straight, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kernel", [2, 4])
def test_spreading_is_the_deconvolution(kernel):
    layer, x = seeded(torch.nn.ConvTranspose2d, 6, 5, kernel, kernel), noise(2, 6, 3, 4)
    with torch.no_grad():
        torch.testing.assert_close(spread(layer, x), layer(x), atol=1e-5, rtol=1e-5)


def test_costs_are_cosines():
    f, t, _ = inputs(prompts=2)
    a, b = f.numpy(), t.numpy()
    a = a / np.linalg.norm(a, axis=1, keepdims=True)
    b = b / np.linalg.norm(b, axis=-1, keepdims=True)
    np.testing.assert_allclose(cost_volume(f, t).numpy(), np.einsum("behw,btpe->bpthw", a, b), atol=1e-6)


def test_all_classes_are_kept_unless_told_otherwise():
    f, t, g = inputs(batch=1, words=7)
    model = seeded(CostAggregation, **(SMALL | dict(pad_len=3)))
    with torch.no_grad():
        everything = model(f, t, g)
        assert (everything != ABSENT).all()
        model.top_k = 3
        some = model(f, t, g)
        kept = cost_volume(f, t).amax((0, 1, 3, 4)).topk(3).indices.sort().values
        model.top_k = None
        torch.testing.assert_close(some[:, kept], model(f, t[:, kept], g), atol=1e-5, rtol=1e-5)
    others = [i for i in range(7) if i not in kept.tolist()]
    assert (some[:, others] == ABSENT).all()


def test_the_budget_bounds_what_is_at_hand():
    seen = []
    model = seeded(CostAggregation, **SMALL)
    model.memory = 48 * 16 * 64 * 2  # two classes of the spatial step
    model.layers[0].swin_block.register_forward_hook(lambda m, given, out: seen.append(out.shape[1]))
    f, t, g = inputs(batch=1)
    with torch.no_grad():
        model(f, t, g)
    assert seen == [2, 2, 1]


class TestCheckpoints:
    def test_the_published_sizes(self):
        base, large = CostAggregation(), CostAggregation(embed_dim=768)
        assert sum(p.numel() for p in base.parameters()) == 2_308_961
        assert sum(p.numel() for p in large.parameters()) == 2_636_641
        assert len(base.state_dict()) == 130 - 2  # less two masks of shifted windows

    def test_shapes_tell_the_sizes(self):
        model = seeded(CostAggregation, **(SMALL | dict(pad_len=9, prompts=2)))
        state = model.state_dict() | {"layers.0.swin_block.block_2.attn_mask": torch.zeros(4, 16, 16)}
        again = CostAggregation.from_state(state, heads=2, window=4, pad_len=9)
        f, t, g = inputs(prompts=2)
        with torch.no_grad():
            assert torch.equal(again(f, t, g), model(f, t, g))
        model.load_state_dict(state)  # the mask is no surplus

    def test_without_filling_tokens_nothing_is_filled_up(self):
        state = seeded(CostAggregation, **SMALL).state_dict()
        assert CostAggregation.from_state(state, heads=2, pad_len=9).layers[0].attention.pad_len == 0

    def test_what_does_not_fit_is_told_at_once(self):
        state = seeded(CostAggregation, **SMALL).state_dict()
        less = {name: tensor for name, tensor in state.items() if "head." not in name}
        with pytest.raises(ValueError, match=r"2 missing \(head.weight, head.bias\)"):
            CostAggregation.from_state(less, heads=2)
        with pytest.raises(ValueError, match=r"1 unexpected \(relative_bias\)"):
            CostAggregation.from_state(state | {"relative_bias": torch.zeros(1)}, heads=2)
        with pytest.raises(ValueError, match=r"1 of another shape \(head.bias\)"):
            CostAggregation.from_state(state | {"head.bias": torch.zeros(2)}, heads=2)
        with pytest.raises(ValueError, match="text_guidance_projection.*is missing"):
            CostAggregation.from_state({}, heads=2)

    def test_other_numbers_of_prompts(self):
        f, t, g = inputs(prompts=3)
        with pytest.raises(ValueError, match=r"takes 1 prompt.*got 3"):
            seeded(CostAggregation, **SMALL)(f, t, g)


def test_start_values_stand_for_standardised_costs_and_a_rare_class():
    def made(**options):
        torch.manual_seed(0)
        return CostAggregation(hidden=32, window=4, embed_dim=8, guidance=(8, 8), projected=(4, 4), **options)

    plain, ours = made(), made(costs=(0.4, 0.1), prior=0.05)
    costs = torch.rand(2, 1, 9, 9)
    inside = slice(3, 6)  # where the zeros around the map are not seen
    expected = plain.conv1((costs - 0.4) / 0.1)[..., inside, inside]
    torch.testing.assert_close(ours.conv1(costs)[..., inside, inside], expected, atol=1e-4, rtol=1e-4)
    shift = ours.head.bias - plain.head.bias
    torch.testing.assert_close(shift.sigmoid(), torch.tensor([0.05]))
    torch.manual_seed(0)
    scorer = CostScore(scratch=True, width=16)
    torch.manual_seed(0)
    scaled = CostScore(scratch=True, width=16, taps=(2, 4))
    torch.testing.assert_close(scaled.upsample1.weight, scorer.upsample1.weight / 2)
    torch.testing.assert_close(scaled.upsample2.weight, scorer.upsample2.weight / 4)
