import multiprocessing
import os
import time
import warnings
from pathlib import Path

import pytest
import torch

from ovseg.text import cache as cache_module
from ovseg.text.cache import EmbeddingCache, default_cache_folder

TEMPLATES = ("a photo of a {}.", "a {}")
WEIGHTS = "0123456789abcdef0123456789abcdef"


@pytest.fixture(autouse=True)
def _warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def vector(word: str) -> torch.Tensor:
    return torch.randn(8, generator=torch.Generator().manual_seed(sum(map(ord, word)) * 7919 + len(word)))


def vectors(*words: str) -> dict[str, torch.Tensor]:
    return {word: vector(word) for word in words}


def check(found: dict[str, torch.Tensor], *words: str) -> None:
    assert set(found) == set(words)
    for word in words:
        assert found[word].dtype == torch.float32 and torch.equal(found[word], vector(word))


def packs(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


def test_round_trip_in_any_order_and_process(tmp_path):
    first = EmbeddingCache(tmp_path)
    assert first.get(WEIGHTS, TEMPLATES, ["cat"]) == {}
    first.put(WEIGHTS, TEMPLATES, vectors("cat", "🐱", "a dog"))
    first.put(WEIGHTS, TEMPLATES, vectors("sofa"))
    for cache in (first, EmbeddingCache(tmp_path)):
        check(cache.get(WEIGHTS, TEMPLATES, ["sofa", "🐱", "bird", "cat", "sofa"]), "sofa", "🐱", "cat")
        check(cache.get(WEIGHTS, TEMPLATES, ["cat", "sofa", "🐱"]), "sofa", "🐱", "cat")
        assert cache.get(WEIGHTS, TEMPLATES, []) == {}
    assert len(packs(tmp_path)) == 2 and not list(tmp_path.rglob("*.tmp"))


def test_other_keys_miss(tmp_path):
    cache = EmbeddingCache(tmp_path)
    cache.put(WEIGHTS, TEMPLATES, vectors("cat"))
    same_beginning = WEIGHTS[:16] + "f" * 16
    for weights, templates, word in (
        ("f" * 32, TEMPLATES, "cat"),
        (same_beginning, TEMPLATES, "cat"),
        (WEIGHTS, TEMPLATES[:1], "cat"),
        (WEIGHTS, "digest", "cat"),
        (WEIGHTS, TEMPLATES, "Cat"),
    ):
        assert cache.get(weights, templates, [word]) == {}
    cache.put(same_beginning, TEMPLATES, {"cat": torch.zeros(8)})
    check(EmbeddingCache(tmp_path).get(WEIGHTS, TEMPLATES, ["cat"]), "cat")


def test_unknown_weights_are_not_kept(tmp_path):
    cache = EmbeddingCache(tmp_path)
    cache.put("", TEMPLATES, vectors("cat"))
    assert cache.get("", TEMPLATES, ["cat"]) == {} and not packs(tmp_path)


def test_weights_hash_cannot_leave_the_folder(tmp_path):
    EmbeddingCache(tmp_path / "in").put("../../../evil", TEMPLATES, vectors("cat"))
    assert [p.parent.parent for p in packs(tmp_path)] == [tmp_path / "in"]


def test_half_precision_and_views_are_stored_as_float32(tmp_path):
    cache = EmbeddingCache(tmp_path)
    with torch.inference_mode():
        table = torch.arange(16.0).reshape(2, 8).half()
    cache.put(WEIGHTS, TEMPLATES, {"a": table[0], "b": table[1]})
    found = cache.get(WEIGHTS, TEMPLATES, ["b"])["b"]
    assert found.dtype == torch.float32 and found.tolist() == list(range(8, 16))


@pytest.mark.parametrize("bad", [torch.zeros(2, 8), torch.full((8,), float("nan")), torch.zeros(9)])
def test_bad_embeddings_are_refused(tmp_path, bad):
    with pytest.raises(ValueError, match="finite vector"):
        EmbeddingCache(tmp_path).put(WEIGHTS, TEMPLATES, {"cat": vector("cat"), "dog": bad})
    assert not packs(tmp_path)


DAMAGES = [lambda b: b[: len(b) // 2], lambda b: b[:-4], lambda b: b"", lambda b: b"\xff" * 64, lambda b: b[:8] + b"{}"]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_pack_is_dropped_with_one_warning(tmp_path, damage):
    EmbeddingCache(tmp_path).put(WEIGHTS, TEMPLATES, vectors("cat"))
    broken = packs(tmp_path)[0]
    EmbeddingCache(tmp_path).put(WEIGHTS, TEMPLATES, vectors("dog"))
    broken.write_bytes(damage(broken.read_bytes()))
    cache = EmbeddingCache(tmp_path)
    with pytest.warns(RuntimeWarning, match="damaged text embedding pack") as caught:
        check(cache.get(WEIGHTS, TEMPLATES, ["cat", "dog"]), "dog")
        check(cache.get(WEIGHTS, TEMPLATES, ["cat", "dog"]), "dog")
    assert len(caught) == 1 and not broken.exists()
    cache.put(WEIGHTS, TEMPLATES, vectors("cat"))
    check(cache.get(WEIGHTS, TEMPLATES, ["cat", "dog"]), "cat", "dog")


def test_every_flipped_bit_is_noticed(tmp_path):
    EmbeddingCache(tmp_path).put(WEIGHTS, TEMPLATES, vectors("cat", "dog"))
    pack = packs(tmp_path)[0]
    content = pack.read_bytes()
    for position in range(0, len(content), 3):
        damaged = bytearray(content)
        damaged[position] ^= 1 << position % 8
        pack.write_bytes(damaged)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = EmbeddingCache(tmp_path).get(WEIGHTS, TEMPLATES, ["cat", "dog"])
        check(found, *found)


@pytest.mark.parametrize("kind", ["another table", "not finite", "without a checksum"])
def test_foreign_content_is_not_believed(tmp_path, kind):
    from safetensors.torch import load_file, save_file

    EmbeddingCache(tmp_path).put(WEIGHTS, TEMPLATES, vectors("cat"))
    pack = packs(tmp_path)[0]
    with pack.open("rb") as file:
        words, meta = cache_module._read_header(file)
    table = load_file(pack)["embeddings"].flip(1)
    if kind == "not finite":
        table[0, 0] = float("nan")
        meta["checksum"] = cache_module._checksum(meta, table)
    elif kind == "without a checksum":
        meta.pop("checksum")
    save_file({"embeddings": table}, pack, meta)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert words == ["cat"] and EmbeddingCache(tmp_path).get(WEIGHTS, TEMPLATES, ["cat"]) == {}
    assert not packs(tmp_path)


def test_unwritable_folder_warns_once_and_works_without(tmp_path):
    (tmp_path / "file").write_text("in the way")
    cache = EmbeddingCache(tmp_path / "file" / "cache")
    with pytest.warns(RuntimeWarning, match="text embedding cache") as caught:
        assert cache.get(WEIGHTS, TEMPLATES, ["cat"]) == {}
        cache.put(WEIGHTS, TEMPLATES, vectors("cat"))
        assert cache.get(WEIGHTS, TEMPLATES, ["cat"]) == {}
    assert len(caught) == 1


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="permissions do not bind this user")
def test_read_only_folder_can_still_be_read(tmp_path):
    EmbeddingCache(tmp_path).put(WEIGHTS, TEMPLATES, vectors("cat"))
    shelf = packs(tmp_path)[0].parent
    shelf.chmod(0o555)
    try:
        cache = EmbeddingCache(tmp_path)
        with pytest.warns(RuntimeWarning, match="cannot write"):
            cache.put(WEIGHTS, TEMPLATES, vectors("dog"))
        check(cache.get(WEIGHTS, TEMPLATES, ["cat", "dog"]), "cat")
    finally:
        shelf.chmod(0o755)


def test_many_packs_become_one(tmp_path, monkeypatch):
    monkeypatch.setattr(cache_module, "MAX_PACKS", 5)
    cache, reader = EmbeddingCache(tmp_path), EmbeddingCache(tmp_path)
    words = [f"word {i}" for i in range(17)]
    for i, word in enumerate(words):
        cache.put(WEIGHTS, TEMPLATES, vectors(word))
        assert len(packs(tmp_path)) <= 5
        check(reader.get(WEIGHTS, TEMPLATES, words), *words[: i + 1])  # its index follows the merges
    draft = packs(tmp_path)[0].with_suffix(".tmp")
    draft.touch()
    os.utime(draft, (time.time() - 1e6,) * 2)
    for word in ("a", "b", "c", "d", "e"):
        cache.put(WEIGHTS, TEMPLATES, vectors(word))
    assert not draft.exists()


def test_a_word_in_several_packs_survives_the_loss_of_any(tmp_path):
    reader = EmbeddingCache(tmp_path)
    for _ in range(3):
        EmbeddingCache(tmp_path).put(WEIGHTS, TEMPLATES, vectors("cat", "dog"))
    for pack in packs(tmp_path):
        check(reader.get(WEIGHTS, TEMPLATES, ["cat", "dog"]), "cat", "dog")
        pack.unlink()
    assert reader.get(WEIGHTS, TEMPLATES, ["cat", "dog"]) == {}


def test_reader_follows_a_merge_between_listing_and_reading(tmp_path, monkeypatch):
    monkeypatch.setattr(cache_module, "MAX_PACKS", 1)
    cache = EmbeddingCache(tmp_path)
    cache.put(WEIGHTS, TEMPLATES, vectors("cat"))
    list_packs = cache_module._list_packs

    def list_then_lose(shelf):
        listed = list_packs(shelf)
        monkeypatch.setattr(cache_module, "_list_packs", list_packs)
        EmbeddingCache(tmp_path).put(WEIGHTS, TEMPLATES, vectors("dog"))  # merges: the listed pack is gone now
        return listed

    assert cache.get(WEIGHTS, TEMPLATES, ["cat"])
    monkeypatch.setattr(cache_module, "_list_packs", list_then_lose)
    check(cache.get(WEIGHTS, TEMPLATES, ["cat"]), "cat")


def _work(folder: str, worker: int, failures) -> None:
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    cache_module.MAX_PACKS = 6  # merge often, so that the processes get in each other's way
    try:
        cache, mine = EmbeddingCache(folder), []
        for i in range(25):
            words = [f"{worker} {i} {j}" for j in range(3)] + [f"shared {i}"]
            cache.put(WEIGHTS, TEMPLATES, vectors(*words))
            mine += words
            check(cache.get(WEIGHTS, TEMPLATES, mine), *mine)
    except BaseException as error:  # noqa: BLE001 - carried to the parent
        failures.put(f"worker {worker}: {error!r}")


def test_processes_write_read_and_merge_at_once(tmp_path):
    context = multiprocessing.get_context("fork" if os.name == "posix" else "spawn")
    failures = context.Queue()
    workers = [context.Process(target=_work, args=(str(tmp_path), i, failures)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert failures.empty(), failures.get()
    assert all(worker.exitcode == 0 for worker in workers)
    words = [f"{w} {i} {j}" for w in range(4) for i in range(25) for j in range(3)] + [f"shared {i}" for i in range(25)]
    check(EmbeddingCache(tmp_path).get(WEIGHTS, TEMPLATES, words), *words)
    assert not list(tmp_path.rglob("*.tmp"))


def test_default_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("OVSEG_CACHE", str(tmp_path))
    assert default_cache_folder() == tmp_path and EmbeddingCache().folder == tmp_path / "text"
    monkeypatch.delenv("OVSEG_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr("sys.platform", "linux")
    assert default_cache_folder() == tmp_path / "xdg" / "ovseg"
