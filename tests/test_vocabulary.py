import json
import subprocess
import sys
import unicodedata
import warnings

import pytest

from ovseg.text.background import STUFF_WORDS, Background
from ovseg.text.palette import BACKGROUND_GRAY, MIN_DISTANCE_20, OKABE_ITO, color_distance, palette
from ovseg.text.vocabulary import Vocabulary


@pytest.fixture(autouse=True)
def _warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


# --- parsing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "names", "synonyms"),
    [
        ("cat, dog", ("cat", "dog"), (("cat",), ("dog",))),
        ("cat|kitten, dog", ("cat", "dog"), (("cat", "kitten"), ("dog",))),
        (["cat|kitten", "dog"], ("cat", "dog"), (("cat", "kitten"), ("dog",))),
        (("red, ripe tomato", "dog"), ("red, ripe tomato", "dog"), (("red, ripe tomato",), ("dog",))),
        ("  a   big\tdog ,cat", ("a big dog", "cat"), (("a big dog",), ("cat",))),
        ("cat|Cat| kitten|kitten", ("cat",), (("cat", "kitten"),)),
        ([{"name": "cat", "synonyms": ["kitten"]}, "dog"], ("cat", "dog"), (("cat", "kitten"), ("dog",))),
        ([{"name": "boat", "words": ["ship"]}], ("boat",), (("ship",),)),
        ({"classes": ["cat", "dog"]}, ("cat", "dog"), (("cat",), ("dog",))),
        ("elvis", ("elvis",), (("elvis",),)),
        ("🐱, 猫, кошка, café", ("🐱", "猫", "кошка", "café"), (("🐱",), ("猫",), ("кошка",), ("café",))),
        ("👩‍🚀, 👍🏽", ("👩‍🚀", "👍🏽"), (("👩‍🚀",), ("👍🏽",))),
    ],
)
def test_parse(spec, names, synonyms):
    vocabulary = Vocabulary.parse(spec)
    assert vocabulary.names == names
    assert vocabulary.synonyms == synonyms
    assert len(vocabulary) == len(names)
    assert vocabulary.prompts == tuple(word for words in synonyms for word in words)
    assert [vocabulary.names[i] for i in vocabulary.prompt_to_class] == [
        name for name, words in zip(names, synonyms, strict=True) for _ in words
    ]
    assert Vocabulary.parse(vocabulary) is vocabulary


def test_names_are_nfc():
    decomposed = unicodedata.normalize("NFD", "café")
    assert Vocabulary.parse([decomposed]).names == ("café",)
    with pytest.raises(ValueError, match="repeats"):
        Vocabulary.parse([decomposed, "café"])


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ([], "empty"),
        ("", "empty"),
        ("  ", "empty"),
        ({"classes": []}, "empty"),
        (["cat", "   "], "item 2 is blank"),
        ("cat|, dog", "item 1 is blank"),
        (["cat", "\u200b"], "blank"),
        ("cat, dog, Cat ", "'cat' .classes 0, 2."),
        (["cat", 3], "item 2 is 3 of type int"),
        (["cat", False], "YAML"),
        ([["cat"]], "type list"),
        ({"cat", "dog"}, "type set"),
        (None, "NoneType"),
        (7, "type int"),
        ([{"nam": "cat"}], "Did you mean 'name'"),
        ([{"synonyms": ["cat"]}], "no 'name'"),
        ([{"name": "cat", "synonyms": ["a"], "words": ["b"]}], "Keep one"),
        ([{"name": "cat", "synonyms": {"a": 1}}], "must be a list"),
        ([{"name": "cat", "words": []}], "no word describes 'cat'"),
        ([{"name": "cat", "color": [0, 0, 256]}], "color of class 'cat'"),
        ([{"name": "cat", "color": "#12345g"}], "color of class 'cat'"),
        ({"classes": "cat, dog"}, "wrong 'classes'"),
        ({"clases": ["cat"]}, "Did you mean 'classes'"),
        ({"classes": ["cat"], "colors": [[0, 0, 0], [1, 1, 1]]}, "as many colors"),
        ({"classes": ["cat", "background"], "background": 0.3}, "'background'"),
        ("ade-15", "Did you mean 'ade150'"),
        ("coco_objects", "Did you mean 'coco_object'"),
        ("cityscape", "Did you mean 'cityscapes'"),
    ],
)
def test_bad_specs_say_what_is_wrong(spec, words):
    with pytest.raises(ValueError, match=words) as caught:
        Vocabulary.parse(spec)
    assert "\n" not in str(caught.value)


def test_words_shared_by_classes_warn_with_both_names():
    with pytest.warns(UserWarning, match=r"'kitten' \(cat, pet\)"):
        vocabulary = Vocabulary.parse("cat|kitten, pet|kitten")
    assert vocabulary.synonyms == (("cat", "kitten"), ("pet", "kitten"))
    with pytest.warns(UserWarning, match=r"'bed' \(background, bed\)"):
        Vocabulary.parse("bed, chair").with_background("sky, bed")


def test_a_list_in_one_string_warns():
    with pytest.warns(UserWarning, match="one item, hence one class"):
        assert len(Vocabulary.parse(["cat, dog"])) == 1


# --- files ------------------------------------------------------------------------------------------------------------

YAML = """
classes:
  - cat
  - name: dog
    synonyms: [puppy]
    color: "#0072b2"
background: {threshold: 0.25}
"""
JSON = json.dumps(["cat", {"name": "dog", "synonyms": ["puppy"], "color": [0, 114, 178]}])


@pytest.mark.parametrize(
    ("file", "text", "names", "synonyms"),
    [
        ("a.txt", "cat\ndog, puppy\n\n", ("cat", "dog"), (("cat",), ("dog", "puppy"))),
        ("a.TXT", "\ufeffcat\r\ndog, puppy\r\n", ("cat", "dog"), (("cat",), ("dog", "puppy"))),
        ("a.json", JSON, ("cat", "dog"), (("cat",), ("dog", "puppy"))),
        ("a.yml", "- cat\n- dog|puppy\n", ("cat", "dog"), (("cat",), ("dog", "puppy"))),
        ("a.yaml", YAML, ("background", "cat", "dog"), ((), ("cat",), ("dog", "puppy"))),
    ],
)
def test_files(tmp_path, file, text, names, synonyms):
    path = tmp_path / file
    path.write_bytes(text.encode())
    for vocabulary in (Vocabulary.from_file(path), Vocabulary.parse(path), Vocabulary.parse(str(path))):
        assert vocabulary.names == names
        assert vocabulary.synonyms == synonyms


def test_colors_of_a_file(tmp_path):
    (tmp_path / "a.yaml").write_text(YAML)
    vocabulary = Vocabulary.parse(tmp_path / "a.yaml")
    assert vocabulary.colors == (BACKGROUND_GRAY, OKABE_ITO[0], (0, 114, 178))
    assert vocabulary.background == Background("threshold", 0.25)


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("a.txt", b"", "is empty; expected one class per line"),
        ("a.json", b" \n", "is empty; expected a list of classes"),
        ("a.json", b"[1, 2", "cannot be read"),
        ("a.yaml", b"a: [b", "cannot be read"),
        ("a.json", b'"cat"', "holds str; expected a list of classes"),
        ("a.json", b'{"clases": ["cat"]}', "unknown key 'clases'"),
        ("a.yaml", b"- yes\n- no\n", "class 0 of vocabulary file .*YAML"),
        ("a.txt", b"cat\n\ndog\tpet\n", "line 3 .*separated by tabs"),
        ("a.txt", b"caf\xe9\n", "not UTF-8"),
        ("a.csv", b"cat\n", "ends in '.csv'; expected one of .txt"),
    ],
)
def test_bad_files_are_named(tmp_path, file, content, words):
    path = tmp_path / file
    path.write_bytes(content)
    for spec in (path, str(path)):
        with pytest.raises(ValueError, match=words) as caught:
            Vocabulary.parse(spec)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_missing_file_gives_the_near_miss(tmp_path):
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    with pytest.raises(FileNotFoundError, match="does not exist. Did you mean 'classes.txt'"):
        Vocabulary.parse(str(tmp_path / "clases.txt"))
    with pytest.raises(FileNotFoundError, match="does not exist"):
        Vocabulary.parse(str(tmp_path / "nowhere" / "a.json"))
    (tmp_path / "folder.txt").mkdir()
    with pytest.raises(FileNotFoundError, match="is not a file"):
        Vocabulary.parse(str(tmp_path / "folder.txt"))


def test_one_line_of_many_words_is_a_list(tmp_path):
    (tmp_path / "a.txt").write_text("cat, dog, sofa\n")
    with pytest.warns(UserWarning, match="one line .* holds 3 classes"):
        assert Vocabulary.from_file(tmp_path / "a.txt").names == ("cat", "dog", "sofa")


# --- background -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (None, Background()),
        ("none", Background()),
        (0.3, Background("threshold", 0.3)),
        (1, Background("threshold", 1.0)),
        ("0.3", Background("threshold", 0.3)),
        ("0,3", Background("threshold", 0.3)),
        (" 30 % ", Background("threshold", 0.3)),
        ("３０％", Background("threshold", 0.3)),
        (".5", Background("threshold", 0.5)),
        ("words", Background("words", words=STUFF_WORDS)),
        ("sky, wall", Background("words", words=("sky", "wall"))),
        ("sky . wall .", Background("words", words=("sky", "wall"))),
        (["sky", "wall", "Sky"], Background("words", words=("sky", "wall"))),
        ({"words": ["sky"], "threshold": 0.1}, Background("words", 0.1, ("sky",))),
        ({"threshold": 0.1}, Background("threshold", 0.1)),
    ],
)
def test_background_parse(spec, expected):
    background = Background.parse(spec)
    assert background == expected
    assert Background.parse(json.loads(json.dumps(background.to_dict()))) == background


@pytest.mark.parametrize(
    "make",
    [
        lambda: Background("nothing"),
        lambda: Background("threshold"),
        lambda: Background("threshold", 1.5),
        lambda: Background("threshold", float("nan")),
        lambda: Background("threshold", True),
        lambda: Background("threshold", "0.3"),
        lambda: Background("words"),
        lambda: Background("words", words="sky"),
        lambda: Background("words", words=("sky", " ")),
        lambda: Background("none", 0.3),
        lambda: Background.parse("-0.5"),
        lambda: Background.parse("30"),
        lambda: Background.parse("0.3, sky"),
        lambda: Background.parse(["30%"]),
        lambda: Background.parse("off"),
        lambda: Background.parse("?"),
        lambda: Background.parse(True),
        lambda: Background.parse({"treshold": 0.3}),
    ],
)
def test_bad_backgrounds(make):
    with pytest.raises(ValueError, match="background"):
        make()


def test_with_background_adds_replaces_and_removes_class_0():
    plain = Vocabulary.parse("cat|kitten, dog")
    bare = plain.with_background(0.3)
    assert bare.names == ("background", "cat", "dog")
    assert bare.prompts == ("cat", "kitten", "dog") and bare.prompt_to_class == (1, 1, 2)
    words = bare.with_background(Background("words", 0.1, ("sky", "wall")))
    assert words.names == bare.names and words.synonyms[0] == ("sky", "wall")
    assert words.prompt_to_class == (0, 0, 1, 1, 2)
    assert words.colors == bare.colors == (BACKGROUND_GRAY, *plain.colors)
    assert words.with_background("none") == plain
    named = Vocabulary.parse("background, cat")
    assert named.with_background("none") == named and named.with_background(None) is named
    assert named.with_background(0.3).background == Background("threshold", 0.3, ("background",))
    assert len({v.hash for v in (plain, bare, words, named, named.with_background(0.3))}) == 5


# --- the value --------------------------------------------------------------------------------------------------------


def test_constructor_checks():
    assert Vocabulary(("cat", "dog")) == Vocabulary.parse("cat, dog")
    for bad in (
        dict(names="cat"),
        dict(names=()),
        dict(names=("cat",), synonyms=(("a",), ("b",))),
        dict(names=("cat",), synonyms=("abc",)),
        dict(names=("cat",), synonyms=((),)),
        dict(names=("cat", "dog"), colors=((0, 0, 0),)),
        dict(names=("cat",), background=Background("threshold", 0.5)),
        dict(names=("background",), background=Background("threshold", 0.5)),
        dict(names=("cat", "background"), background=Background("threshold", 0.5)),
    ):
        with pytest.raises(ValueError):
            Vocabulary(**bad)


@pytest.mark.parametrize(
    "vocabulary",
    [
        Vocabulary.parse("cat|kitten, dog"),
        Vocabulary.parse("cat, dog").with_background(0.3),
        Vocabulary.parse("background, cat, dog").with_background(0.3),
        Vocabulary.parse("cat, dog").with_background("sky, wall"),
        Vocabulary.parse([{"name": "boat", "words": ["ship"], "color": "#ff0000"}, "🐱"]),
        Vocabulary.parse([{"name": "a|b"}, "c"]),
        Vocabulary(("cat", "dog"), colors=((1, 2, 3), (4, 5, 6))).with_background(0.5),
    ],
    ids=repr,
)
def test_dict_round_trip(vocabulary):
    again = Vocabulary.from_dict(json.loads(json.dumps(vocabulary.to_dict())))
    assert again == vocabulary and again.hash == vocabulary.hash and hash(again) == hash(vocabulary)


def test_hash_is_stable_and_sees_words_not_colors():
    plain = Vocabulary.parse("cat, dog")
    assert plain.hash == "7c9f6ed672ed"  # stored scores quote it: change the rule knowingly
    assert Vocabulary(plain.names, colors=((0, 0, 0), (1, 1, 1))).hash == plain.hash
    assert len({plain.hash, Vocabulary.parse("dog, cat").hash, Vocabulary.parse("cat|kitten, dog").hash}) == 3


def test_index_and_subset():
    vocabulary = Vocabulary.parse("cat|kitten, dog|puppy, sofa")
    assert [vocabulary.index(word) for word in ("CAT", " kitten", "sofa")] == [0, 0, 2]
    with pytest.raises(ValueError, match="Did you mean 'kitten'"):
        vocabulary.index("kiten")
    part = vocabulary.subset("sofa, puppy")
    assert part.names == ("sofa", "dog") and part.synonyms == (("sofa",), ("dog", "puppy"))
    assert part.colors == (vocabulary.colors[2], vocabulary.colors[1])
    with_background = vocabulary.with_background(0.3).subset(["dog"])
    assert with_background.names == ("background", "dog") and with_background.background.threshold == 0.3
    for bad in ([], ["cat", "kitten"], ["bird"]):
        with pytest.raises(ValueError):
            vocabulary.subset(bad)
    with pytest.warns(UserWarning):
        shared = Vocabulary.parse("cat|pet, dog|pet")
    with pytest.raises(ValueError, match="several classes: cat, dog"):
        shared.index("pet")


def test_long_vocabularies():
    names = [f"word {i}" for i in range(10_000)]
    vocabulary = Vocabulary.parse(names).with_background(0.1)
    assert len(set(vocabulary.colors)) == len(vocabulary) == 10_001
    assert vocabulary.index("word 9999") == 10_000
    assert len(repr(vocabulary)) < 200


# --- colors ----------------------------------------------------------------------------------------------------------


def test_palette():
    colors = palette(3000)
    assert colors[:7] == OKABE_ITO
    assert len(set(colors)) == 3000 and BACKGROUND_GRAY not in colors
    assert all(0 <= v <= 255 and isinstance(v, int) for color in colors for v in color)
    for n in (0, 1, 7, 20, 64, 65, 500):
        assert palette(n) == colors[:n]
    first = (*palette(20), BACKGROUND_GRAY)
    assert min(color_distance(a, b) for i, a in enumerate(first) for b in first[:i]) >= MIN_DISTANCE_20 >= 25
    with pytest.raises(ValueError):
        palette(-1)


def test_color_distance_reference():
    assert color_distance((255, 255, 255), (0, 0, 0)) == pytest.approx(100.0, abs=1e-2)
    assert color_distance((255, 0, 0), (0, 255, 0)) == pytest.approx(170.6, abs=0.1)


def test_imports_stay_light():
    code = (
        "import sys, ovseg.text.vocabulary, ovseg.text.reading, ovseg.text.benchmark_vocabularies, ovseg.text.cache\n"
        "from ovseg.text.vocabulary import Vocabulary; Vocabulary.parse('ade150')\n"
        "heavy = {'torch', 'numpy', 'open_clip', 'safetensors', 'mmengine', 'yaml'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
