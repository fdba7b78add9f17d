"""One model, several threads: what comes back is what a single thread gets, and used models can be copied."""

import copy
import pickle
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import ovseg
from ovseg.apis.compare import Comparer
from ovseg.apis.explain import Explainer
from ovseg.apis.locate import Locator
from ovseg.dense.clip_dinoiser import Correlations
from ovseg.predict.build import dense_config
from ovseg.predict.name_boxes import BoxNamer
from ovseg.registry import DENSE
from ovseg.towers import missing
from tests.conftest import ROOT
from tests.test_catseg import AGGREGATION
from tests.test_eva import toy_eva

THREADS = 4
FAST = dict(templates="name", short_side=32, window=32, stride=16, cache=False)
WORDS = (["cat", "dog", "sofa|couch", "floor"], ["tree", "cat", "sky", "owl", "road"])
CHECKPOINTS = {
    "fvit": ROOT / "configs/fvit/fvit_windows_tiny_scenes.safetensors",
    "regionclip": ROOT / "configs/regionclip/regionclip_tiny_scenes.safetensors",
}


@pytest.fixture(scope="module")
def pictures():
    """Four pictures of one number of patches, two of them upright."""
    rng = np.random.default_rng(5)
    shapes = [(32, 48), (48, 32), (32, 48), (48, 32)]
    return [rng.integers(0, 256, (h // 8, w // 8, 3), np.uint8).repeat(8, 0).repeat(8, 1) for h, w in shapes]


@pytest.fixture(autouse=True)
def hasty():
    """Threads change often."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    yield
    sys.setswitchinterval(interval)


@pytest.fixture(scope="module")
def eva():
    return toy_eva()


def in_threads(answer, questions, repeat: int = 2) -> list:
    """Answers in the order of the questions, each of which is asked ``repeat`` times."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(answer, list(questions) * repeat))


def values(result) -> tuple:
    """All that a result says, as arrays; its lazy parts are asked for here."""
    if isinstance(result, ovseg.Result):
        return result.labels, result.scores, result.margin, result.image
    boxes = [np.array(mask["counts"]) for mask in result.masks or ()]
    return result.boxes, result.scores, result.labels, result.image, *boxes


def assert_same(first, second):
    assert first.names == second.names and first.provenance == second.provenance
    for one, other in zip(values(first), values(second), strict=True):
        np.testing.assert_array_equal(one, other)


def check_threads(model, pictures):
    """A picture and words in each call."""
    questions = [(picture, WORDS[index % 2]) for index, picture in enumerate(pictures)]
    expected = [model(*question) for question in questions] * 2
    for one, other in zip(in_threads(lambda question: model(*question), questions), expected, strict=True):
        assert_same(one, other)


def methods():
    return [*ovseg.list_methods(ready=True), "clip_dinoiser", "catseg"]


def loaded(method: str, tower, **settings):
    config = dense_config(method)
    if missing(tower, DENSE.get(config["type"]).requires):
        pytest.skip(f"{method} does not read it")
    if method == "clip_dinoiser":
        config["correlations"] = Correlations(128, 16)
    if method == "catseg":
        torch.manual_seed(0)
        settings |= dict(scorer=dict(type="CostScore", scratch=True, width=128, aggregation=AGGREGATION), view=32)
    if "size" in DENSE.get(config["type"]).protocol:
        settings |= dict(size=(32, 48), short_side=None)
    return ovseg.load(config, tower=tower, **FAST | settings)


@pytest.mark.parametrize("method", methods())
def test_threads_equal_one_thread(method, vit, pictures):
    check_threads(loaded(method, vit), pictures)


@pytest.mark.parametrize("kind", ["resnet", "eva"])
def test_other_towers(kind, request, pictures):
    check_threads(loaded("naclip", request.getfixturevalue(kind)), pictures)


@pytest.mark.parametrize("boxes", [False, True])
def test_every_way_of_asking(boxes, vit, pictures):
    model = (ovseg.load_detector if boxes else ovseg.load)("sclip", tower=vit, **FAST)
    questions = [(picture, words) for picture in pictures for words in WORDS]
    expected = [model(*question) for question in questions] * 2
    for answer in (
        lambda question: next(model.stream(*question))[1],
        lambda question: model.predict(model.encode(question[0]), question[1]),
        lambda question: model([question[0]], question[1])[0],
    ):
        for one, other in zip(in_threads(answer, questions), expected, strict=True):
            assert_same(one, other)


@pytest.mark.parametrize("method", ["naclip", "clip_surgery", *CHECKPOINTS])
def test_detectors(method, vit, pictures):
    if method in CHECKPOINTS:
        model = ovseg.load(method, str(CHECKPOINTS[method]))
    else:
        model = ovseg.load_detector(method, tower=vit, guided=2, **FAST)
    check_threads(model, pictures[: 2 if method in CHECKPOINTS else 4])


def test_boxes_are_named_in_threads(vit, pictures):
    model = ovseg.load_detector("naclip", tower=vit, classes=WORDS[0], **FAST)
    namer = BoxNamer(model.engine, ("roi", "masked_crop"))

    def answer(picture):
        return model.name_boxes(picture, [[4, 4, 30, 28]], namer)

    assert in_threads(answer, pictures) == [answer(picture) for picture in pictures] * 2


def test_words_of_the_model_are_one_thing(vit, pictures):
    """While one thread changes the words, every result is of one vocabulary or of the other, whole."""
    model = ovseg.load("sclip", tower=vit, classes=WORDS[0], **FAST)
    expected = {tuple(words): model(pictures[0], words) for words in WORDS}
    expected = {result.names: result for result in expected.values()}
    stop = threading.Event()

    def change():
        while not stop.is_set():
            for words in WORDS:
                model.set_classes(words)

    changing = threading.Thread(target=change)
    changing.start()
    try:
        results = in_threads(model, pictures[:1] * 10)
    finally:
        stop.set()
        changing.join()
    for result in results:
        assert_same(result, expected[result.names])


@pytest.mark.parametrize("boxes", [False, True])
def test_a_picture_belongs_to_the_thread_that_set_it(boxes, vit, pictures):
    load = ovseg.load_detector if boxes else ovseg.load
    model = load("sclip", tower=vit, classes=WORDS[0], **FAST)
    expected = [model(picture) for picture in pictures]
    model.set_image(pictures[0])
    model(pictures[1])  # changes nothing of what was set
    assert_same(model.predict(), expected[0])
    with (
        ThreadPoolExecutor(1) as pool,
        pytest.raises(ValueError, match=r"give a picture: call set_image.* this thread"),
    ):
        pool.submit(model.predict).result()
    together = threading.Barrier(len(pictures))

    def answer(picture):
        model.set_image(picture)
        together.wait(60)
        return model.predict()

    with ThreadPoolExecutor(len(pictures)) as pool:
        for one, other in zip(pool.map(answer, pictures), expected, strict=True):
            assert_same(one, other)


@pytest.mark.parametrize("scorer", [None, dict(type="WholeImageScore")])
def test_one_picture_is_asked_by_many_threads(scorer, vit, pictures):
    """Also for what is made when it is first asked for: image embeddings, scores."""
    model = loaded("maskclip", vit, scorer=scorer)
    expected = [model(pictures[0], words) for words in WORDS]
    features = model.encode(pictures[0])
    results = in_threads(lambda words: model.predict(features, words), WORDS, 4)
    for one, other in zip(results, expected * 4, strict=True):
        assert_same(one, other)
    result = model.predict(features, WORDS[0])
    for scores in in_threads(lambda _: result.scores, range(8)):
        np.testing.assert_array_equal(scores, expected[0].scores)


def test_what_predict_takes(vit, pictures):
    model = ovseg.load("sclip", tower=vit, classes=WORDS[0], **FAST)
    for wrong in (pictures[0], "scene.png", model.engine.encode(pictures[0])):
        with pytest.raises(ValueError, match=r"predict takes what encode\(picture\).*model\(picture\)"):
            model.predict(wrong)
    features, plain = model.encode(pictures[0]), ovseg.load("sclip", tower=vit, **FAST)
    assert_same(plain.predict(features, WORDS[1]), model(pictures[0], WORDS[1]))
    assert plain.vocabulary is None
    with pytest.raises(ValueError, match="give words: call set_classes"):
        plain.predict(features)
    for ask in (plain, plain.stream):
        with pytest.raises(ValueError, match="give words: call set_classes"):
            ask(pictures)


# --- beside prediction -----------------------------------------------------------------------------------------------


def test_locators(vit, pictures):
    locator = Locator(tower=vit, counts=(8, 20), cache=False)

    def answer(question):
        place = locator(*question)
        return place.box, place.score, place.heat.tobytes(), place.image.tobytes()

    questions = [(picture, phrase) for picture in pictures for phrase in ("a cat", "a red umbrella")]
    assert in_threads(answer, questions, 1) == [answer(question) for question in questions]
    locator.set_image(pictures[0])
    with ThreadPoolExecutor(1) as pool, pytest.raises(ValueError, match="no picture"):
        pool.submit(locator.locate, "a cat").result()
    again = pickle.loads(pickle.dumps(locator))
    assert again(pictures[0], "a cat").box == locator.locate("a cat").box
    with pytest.raises(ValueError, match="no picture"):
        again.locate("a cat")


def test_explainers(pictures):
    explainer = Explainer(templates="name", cache=False)

    def answer(question):
        explanation = explainer.explain(*question)
        return explanation.words, explanation.cosine.tobytes(), explanation.scores.tobytes()

    questions = [(picture, words) for picture in pictures[:2] for words in (["bus", "owl"], ["owl", "tree", "sky"])]
    assert in_threads(answer, questions) == [answer(question) for question in questions] * 2
    copied = pickle.loads(pickle.dumps(explainer)).explain(*questions[0])
    assert copied.cosine.tobytes() == answer(questions[0])[1]


def test_comparers(vit, pictures):
    comparer = Comparer(WORDS[0], ["maskclip", "naclip"], tower=vit, short_side=32, window=32, stride=16)

    def answer(picture):
        return [entry.result.labels.tobytes() for entry in comparer.compare(picture).entries]

    expected = [answer(picture) for picture in pictures]
    assert in_threads(answer, pictures, 1) == expected
    comparer = copy.deepcopy(pickle.loads(pickle.dumps(comparer)))
    assert answer(pictures[0]) == expected[0]


# --- copies ----------------------------------------------------------------------------------------------------------


def check_copies(model, picture):
    model.set_classes(WORDS[0]).set_image(picture)
    expected = model.predict()
    for copied in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert copied.vocabulary == model.vocabulary and copied.method == model.method
        with pytest.raises(ValueError, match="set_image"):
            copied.predict()
        assert_same(copied(picture), expected)
        copied.set_classes("owl")
    assert_same(model.predict(), expected)


@pytest.mark.parametrize("method", methods())
def test_used_models_are_copied(method, vit, pictures):
    check_copies(loaded(method, vit), pictures[0])


@pytest.mark.parametrize("kind", ["resnet", "eva"])
def test_copies_of_other_towers(kind, request, pictures):
    check_copies(loaded("naclip", request.getfixturevalue(kind)), pictures[0])


@pytest.mark.parametrize("method", ["naclip", *CHECKPOINTS])
def test_used_detectors_are_copied(method, vit, pictures):
    if method in CHECKPOINTS:
        model = ovseg.load(method, str(CHECKPOINTS[method]))
    else:
        model = ovseg.load_detector(method, tower=vit, **FAST)
    check_copies(model, pictures[0])


def test_copies_of_compiled_models(vit, pictures):
    model = loaded("naclip", vit)
    model.pipeline.compile(backend="eager")
    check_copies(model, pictures[0])


def test_copies_with_the_cache_on_disk(vit, pictures):
    check_copies(loaded("naclip", vit, cache=True), pictures[0])


# --- the order of words ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", methods())
def test_permuted_words_permute_the_result(method, vit, picture):
    model, words = loaded(method, vit), "cat dog|puppy sofa floor tree|oak|pine bird owl bus grass sky".split()
    features = model.encode(picture)
    plain = model.predict(features, words)
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(words))
        permuted = model.predict(features, [words[index] for index in order])
        np.testing.assert_array_equal(order[permuted.labels], plain.labels)
        np.testing.assert_array_equal(permuted.scores, plain.scores)
