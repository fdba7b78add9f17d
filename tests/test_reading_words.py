"""How words are read: every rule of docs/words.md with the right value."""

import json
import warnings
from pathlib import Path

import pytest

from ovseg.apis.load import load
from ovseg.cli.common import read_stuff
from ovseg.predict.box_settings import BoxSettings
from ovseg.text.background import Background
from ovseg.text.benchmark_vocabularies import list_benchmarks
from ovseg.text.contrast import contrasted, idle_threshold
from ovseg.text.splitting import split_words, words_of
from ovseg.text.stuff import BACKGROUND, STUFF_WORDS, stuff_without
from ovseg.text.vocabulary import Vocabulary

from .test_cli import QUICK, assert_one_paragraph, ovseg, photo  # noqa: F401 (fixtures)


def silently(function, *arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return function(*arguments)


def aloud(function, *arguments):
    """What a function returns, and the one line that it says."""
    with pytest.warns(UserWarning) as caught:
        value = function(*arguments)
    assert len(caught) == 1 and "\n" not in str(caught[0].message)
    return value, str(caught[0].message)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --- one string -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("read", [Vocabulary.parse, Vocabulary.from_words])
@pytest.mark.parametrize(
    "text, names",
    [
        ("bus . owl .", ["bus", "owl"]),
        ("bus . owl", ["bus", "owl"]),
        ("bus .", ["bus"]),
        ("bus;owl", ["bus", "owl"]),
        ("bus；owl", ["bus", "owl"]),
        ("bus\nowl\r\n", ["bus", "owl"]),
        ("bus，owl、tree", ["bus", "owl", "tree"]),
        ("bus, owl,", ["bus", "owl"]),
        ("bus,\nowl,\n", ["bus", "owl"]),
        ("bus,, owl", ["bus", "owl"]),
        ("St. Bernard, U.S. flag, bus.", ["St. Bernard", "U.S. flag", "bus."]),
        ("St. Bernard . U.S. flag .", ["St. Bernard", "U.S. flag"]),
        ("3.5 inch floppy, 4:3 screen", ["3.5 inch floppy", "4:3 screen"]),
        ('"bus", "owl"', ["bus", "owl"]),
        ("'bus', 'owl'", ["bus", "owl"]),
        ("“bus”, «owl», 「tree」", ["bus", "owl", "tree"]),
        ('"red, ripe tomato", owl', ["red, ripe tomato", "owl"]),
        ("driver's license, '80s car, cat's eye", ["driver's license", "'80s car", "cat's eye"]),
        ("['bus', 'owl']", ["bus", "owl"]),
        ('["bus",\n "owl"]', ["bus", "owl"]),
        ("- bus\n- owl", ["bus", "owl"]),
        ("• bus\n• owl", ["bus", "owl"]),
        ("# things\nbus # red\nplayer #7\n// more\nowl", ["bus", "player #7", "owl"]),
        ("b\u200bus, \ufeffowl\u200d", ["bus", "owl"]),
        ("👩‍🚀, می‌خواهم", ["👩‍🚀", "می‌خواهم"]),
        ("2 door car, 3 door car", ["2 door car", "3 door car"]),
    ],
)
def test_names_in_a_text(read, text, names):
    assert list(silently(read, text).names) == names


@pytest.mark.parametrize(
    "text, names, said",
    [
        ("0: bus, 1: owl", ["bus", "owl"], "'0: bus' is 'bus'"),
        ("1. bus\n2. owl", ["bus", "owl"], "'1. bus' is 'bus'"),
        ("1) bus; 2) owl", ["bus", "owl"], "numbers"),
        ("0:bus,1:owl", ["bus", "owl"], "numbers"),
        ("1: owl, 0: bus", ["bus", "owl"], "numbers"),
        ('0: "red, ripe tomato", 1: owl', ["red, ripe tomato", "owl"], "numbers"),
        ("bus; owl, tree", ["bus", "owl", "tree"], "commas and semicolons"),
        ("'bus, owl'", ["bus", "owl"], "quotes"),
        ("bus. owl.", ["bus. owl."], "one name"),
        ("traffic_light, bus", ["traffic_light", "bus"], "'traffic_light' as 'traffic light'"),
    ],
)
def test_what_is_guessed_is_said_once(text, names, said):
    vocabulary, message = aloud(Vocabulary.parse, text)
    assert list(vocabulary.names) == names and said in message


def test_underscores_stay_in_the_name_and_are_encoded_as_spaces():
    vocabulary, _ = aloud(Vocabulary.parse, "traffic_light|stop_light, bus")
    assert vocabulary.synonyms[0] == ("traffic light", "stop light")
    assert vocabulary.index("traffic_light") == vocabulary.index("traffic light") == 0
    exact = Vocabulary.parse([{"name": "traffic_light"}])
    assert exact.prompts == ("traffic_light",)
    for each in (vocabulary, exact, Vocabulary.parse([{"name": "2. FC"}, {"name": "'80s'"}, {"name": "a.txt"}])):
        again = silently(Vocabulary.parse, json.loads(json.dumps(each.to_dict())))
        assert again == each and silently(Vocabulary.parse, each.to_dict()["classes"]) == each


def test_synonyms_in_quotes():
    assert words_of("cat|'big, cat'|\"kitten\"") == ["cat", "big, cat", "kitten"]
    assert split_words("cat|'big, cat', dog").items == ["cat|'big, cat'", "dog"]


@pytest.mark.parametrize(
    "spec, names",
    [
        (["0: bus", "1: owl"], ["bus", "owl"]),
        (["bus,", "'owl'"], ["bus", "owl"]),
        ({0: "bus", 1: "owl"}, ["bus", "owl"]),
        ({"bus": 0, "owl": 1}, ["bus", "owl"]),
        ({"names": ["bus", "owl"]}, ["bus", "owl"]),
        ({"classes": ["bus", "owl"]}, ["bus", "owl"]),
        (["red, ripe tomato", "owl"], ["red, ripe tomato", "owl"]),
    ],
)
@pytest.mark.filterwarnings("ignore:words")
def test_lists_and_mappings(spec, names):
    assert list(Vocabulary.parse(spec).names) == names


def test_lists_that_are_doubtful():
    assert aloud(Vocabulary.parse, ["bus . owl ."])[0].names == ("bus . owl .",)
    for spec, part in ((["words.txt"], "looks like a file"), (["# things", "bus"], "comment"), (["bus", " "], "blank")):
        with pytest.raises(ValueError, match=part):
            Vocabulary.parse(spec)


# --- files ------------------------------------------------------------------------------------------------------------

COCO = [{"id": 7, "name": "owl", "supercategory": "animal"}, {"id": 3, "name": "bus", "color": [1, 2, 3]}]


@pytest.mark.parametrize(
    "name, text, words",
    [
        ("a.txt", '# things\n0: bus\n\n1: "owl",\n', [["bus"], ["owl"]]),
        ("a.txt", "\ufeffbus\r\nowl,\r\n", [["bus"], ["owl"]]),
        ("a.txt", "0 bus\n1 owl\n", [["bus"], ["owl"]]),
        ("a.txt", "0\tbus\n1\towl\n", [["bus"], ["owl"]]),
        ("a.txt", "- bus\n- owl # bird\n", [["bus"], ["owl"]]),
        ("a.txt", "cat, kitten\ndog|puppy\nbird;owl\n", [["cat", "kitten"], ["dog", "puppy"], ["bird", "owl"]]),
        ("a.txt", '"red, ripe tomato"\nowl\n', [["red, ripe tomato"], ["owl"]]),
        ("a.txt", "bus;owl;tree\n", [["bus"], ["owl"], ["tree"]]),
        ("a.txt", "bus . owl .\n", [["bus"], ["owl"]]),
        ("a.txt", "['bus', 'owl']\n", [["bus"], ["owl"]]),
        ("a.txt", "names:\n  0: bus\n  1: owl\n", [["bus"], ["owl"]]),
        ("classes", "bus\nowl\n", [["bus"], ["owl"]]),
        ("a.names", "bus\ntraffic_light\n", [["bus"], ["traffic light"]]),
        ("a.yaml", "path: ../x\nnc: 2\nnames:\n  0: bus\n  1: owl\n", [["bus"], ["owl"]]),
        ("a.yaml", "train: x\nnames: [bus, owl]\n", [["bus"], ["owl"]]),
        ("a.json", json.dumps({"images": [], "categories": COCO}), [["bus"], ["owl"]]),
        ("a.json", json.dumps(COCO), [["bus"], ["owl"]]),
        ("a.json", json.dumps({"id2label": {"1": "owl", "0": "bus"}, "label2id": {"bus": 0}}), [["bus"], ["owl"]]),
        ("a.json", json.dumps({"0": "bus", "1": "N/A", "2": "owl"}), [["bus"], ["owl"]]),
        ("a.json", json.dumps({"label2id": {"bus": 0, "owl": 1}}), [["bus"], ["owl"]]),
    ],
)
@pytest.mark.filterwarnings("ignore:words")
def test_files(folder, name, text, words):
    (folder / name).write_bytes(text.encode())
    for vocabulary in (Vocabulary.from_source(name), Vocabulary.parse(Path(name)), Vocabulary.parse(f"./{name}")):
        assert [list(group) for group in vocabulary.synonyms] == words


def test_more_of_files(folder):
    (folder / "wide.txt").write_bytes("bus\r\nowl\r\n".encode("utf-16"))
    assert silently(Vocabulary.from_source, "wide.txt").names == ("bus", "owl")
    (folder / "a.json").write_text(json.dumps({"categories": COCO}))
    vocabulary, message = aloud(Vocabulary.from_source, "a.json")
    assert vocabulary.colors[0] == (1, 2, 3) and "ids 3, 7" in message
    (folder / "a.yaml").write_text("names: [bus, owl]\nbackground: 0.6\n")
    assert silently(Vocabulary.from_source, "a.yaml").background.threshold == 0.6
    (folder / "b.yaml").write_text("a: &a [x, x, x, x, x, x, x, x]\n" + "".join(
        f"{new}: &{new} [{', '.join(['*' + old] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    ))  # fmt: skip
    with pytest.raises(ValueError, match="more values than"):
        Vocabulary.from_source("b.yaml")
    (folder / "c.json").write_text(json.dumps({"names": {"first": "bus"}}))
    with pytest.raises(ValueError, match="key 'first'"):
        Vocabulary.from_source("c.json")


def test_v_is_never_a_word(folder):
    (folder / "lists").mkdir()
    (folder / "lists" / "mine.txt").write_text("bus\nowl\n")
    for text, part in (("typo", "neither a file nor a benchmark"), ("ade151", "ade150"), ("cat, dog", "-c")):
        with pytest.raises(FileNotFoundError, match=part):
            Vocabulary.from_source(text)
    for text, part in (("lists", "folder; it holds mine.txt: give lists/mine.txt"), ("", "empty")):
        with pytest.raises(ValueError, match=part):
            Vocabulary.from_source(text)
    (folder / "ade150").write_text("bus\nowl\n")
    vocabulary, message = aloud(Vocabulary.from_source, "ade150")
    assert len(vocabulary) == 150 and "./ade150" in message
    assert len(silently(Vocabulary.from_source, "./ade150")) == 2


def test_c_is_never_a_class_called_like_a_file(folder):
    for name in ("words.txt", "classes"):
        (folder / name).write_text("bus\nowl\n")
    vocabulary, message = aloud(Vocabulary.from_words, "words.txt")
    assert vocabulary.names == ("bus", "owl") and "-v words.txt" in message
    for text, part in (("absent.txt", "looks like a file"), ("words.txt, cat", "looks like a file"), ("ade150", "-v")):
        with pytest.raises(ValueError, match=part):
            Vocabulary.from_words(text)
    for text in ("classes", "cityscapes"):
        vocabulary, message = aloud(Vocabulary.from_words, text)
        assert vocabulary.names == (text,) and f"-v {text}" in message


def test_benchmarks_are_what_they_are():
    for name in list_benchmarks():
        vocabulary = silently(Vocabulary.parse, name)
        assert silently(Vocabulary.parse, list(vocabulary.names)).names == vocabulary.names
        assert silently(Vocabulary.from_source, name).hash == vocabulary.hash


# --- a single word, thresholds that cannot act ------------------------------------------------------------------------


def test_stuff_without_what_is_named():
    assert stuff_without([]) == BACKGROUND
    left = stuff_without(["Lawn", "sand", "skies_", "bed"])
    assert set(BACKGROUND) - set(left) == {"grass", "sand", "sands", "bed"}
    assert stuff_without(["bus"], known={"sky", "bus", "tree"}) == ("sky", "tree")
    words = silently(Vocabulary.parse("bed|cot, lawn").with_background, "words")
    assert words.synonyms[0] == tuple(word for word in STUFF_WORDS if word not in ("bed", "grass"))
    assert "bed" not in silently(Vocabulary.parse("cat|bed, dog").with_background, "words").background.words


@pytest.mark.parametrize("threshold", [None, 0.99])
def test_one_word_is_set_against_stuff(threshold):
    one = Vocabulary.parse("bus|coach")
    given = one if threshold is None else one.with_background(threshold)
    vocabulary, note = contrasted(given, {"bus", "sky", "tree"})
    assert vocabulary.names == ("background", "bus") and vocabulary.synonyms == (("sky", "tree"), ("bus", "coach"))
    assert vocabulary.background == Background("words", threshold, ("sky", "tree"))
    assert "'bus' is set against 2 names of stuff" in note and ("0.99 acts" in note) == (threshold is not None)
    assert contrasted(vocabulary) == (vocabulary, "")


def test_words_that_are_left_as_they_are():
    own = Vocabulary.parse("bus").with_background("sky, wall")
    for vocabulary in (Vocabulary.parse("bus, owl"), Vocabulary.parse("background"), own):
        assert contrasted(vocabulary) == (vocabulary, "")
    chosen = Vocabulary.parse("bus").with_background("none")
    assert chosen == Vocabulary.parse("bus") and chosen.hash == Vocabulary.parse("bus").hash
    vocabulary, note = contrasted(chosen)
    assert vocabulary is chosen and "every pixel becomes 'bus'" in note


def test_thresholds_that_cannot_act_are_named():
    pair = Vocabulary.parse("bus, owl")
    for threshold in (0.5, 0.3, 0.0):
        note = idle_threshold(pair.with_background(threshold), threshold)
        assert f"the threshold {threshold:g} cannot act" in note and "above 0.5" in note
    assert idle_threshold(pair, 0.3)
    assert not idle_threshold(pair.with_background(0.51), 0.51)
    assert not idle_threshold(pair, 0.0)  # that of most protocols
    assert not idle_threshold(Vocabulary.parse("bus|coach, owl").with_background(0.4), 0.4)


# --- through the engine and the command -------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:one word alone", "ignore:.*never learned")
def test_a_single_word_through_the_predictor(vit, picture):
    model = load("naclip", tower=vit, templates="name", refine=[], cache=False)
    result = model(picture, "bus")
    assert result.names == ("background", "bus") and len(result.vocabulary.prompts) == 1 + len(BACKGROUND)
    assert (model(picture, Vocabulary.parse("bus").with_background(1.0)).labels == 0).all()
    with pytest.warns(UserWarning, match="every pixel becomes 'bus'"):
        assert (model(picture, Vocabulary.parse("bus").with_background("none")).labels == 0).all()
    with pytest.warns(UserWarning, match="threshold 0.5 cannot act"):
        model.set_classes(Vocabulary.parse("bus, owl").with_background(0.5))
    protocol = load("naclip", tower=vit, templates="name", refine=[], cache=False, threshold=0.2)
    with pytest.warns(UserWarning, match="threshold 0.2 cannot act"):
        protocol.set_classes("bus, owl, tree")


def test_one_word_on_the_command_line(ovseg, photo, tmp_path):  # noqa: F811
    shares = {}
    for background in ((), ("--background", "0.99"), ("--background", "none")):
        code, out, err = ovseg("predict", photo, "-c", "bus", *background, "--json", *QUICK)
        said = [line for line in err.splitlines() if line.startswith("warning: ")]
        assert code == 0 and len(said) == 1 and "bus" in said[0], err
        shares[background] = json.loads(out)["areas"]
    assert shares[("--background", "none")] == {"bus": 1.0}
    assert shares[()].get("bus", 0) < 1 and shares[("--background", "0.99")].get("bus", 0) < 1


@pytest.mark.parametrize("background", ["0.3", "30%", "0,3"])
def test_a_threshold_is_no_background_of_detections(ovseg, photo, background):  # noqa: F811
    assert_one_paragraph(ovseg("detect", photo, "-c", "cat", "--background", background), "--score 0.3", "number")


def test_the_background_of_detections():
    assert read_stuff(None) is read_stuff("words") is None and read_stuff("none") == []
    assert read_stuff("sea; sand") == ["sea", "sand"]
    with pytest.raises(ValueError, match="background"):
        BoxSettings(background=("0.3",))
