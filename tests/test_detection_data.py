"""Datasets of boxes: what an item holds, what training does not see, what is missing."""

import json

import numpy as np
import pytest
import torch

import ovseg  # noqa: F401
from ovseg.datasets import detection
from ovseg.datasets.scenes import SceneComposer
from ovseg.datasets.splits import BASE_COCO, NOVEL_COCO
from ovseg.registry import DATASETS


def truth(item):
    found = item["data_samples"].gt_instances
    return found.bboxes.tensor.numpy(), found.labels.numpy(), found.masks.to_ndarray()


@pytest.mark.slow
def test_boxes_hold_their_masks():
    dataset = detection.SceneBoxes(count=4)
    for item in dataset:
        boxes, labels, masks = truth(item)
        assert item["inputs"].shape == (3, 128, 128) and item["inputs"].dtype == torch.uint8
        assert len(boxes) == len(labels) == len(masks) > 0
        for box, mask in zip(boxes, masks, strict=True):
            rows, columns = np.nonzero(mask)
            assert np.allclose(box, [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


def test_the_pictures_are_those_of_the_segmentation_set():
    boxes = detection.SceneBoxes(count=2, first_seed=7)[1]
    scene = SceneComposer(size=128)(8)
    assert np.array_equal(boxes["inputs"].numpy(), scene.image[..., ::-1].transpose(2, 0, 1))


def test_what_is_hardly_visible_is_ignored():
    dataset = detection.SceneBoxes(count=60)
    named = [SceneComposer(size=128)(seed).visible() for seed in dataset.seeds]
    hidden = 0
    for item, labels in zip(dataset, named, strict=True):
        assert set(item["data_samples"].gt_instances.labels.tolist()) <= set(labels)
        hidden += len(item["data_samples"].ignored_instances.labels)
    assert hidden > 0


def test_training_does_not_see_novel_objects():
    everything, base = (detection.SceneBoxes(count=30, base_only=only) for only in (False, True))
    novel = {everything.metainfo["classes"].index(name) for name in everything.metainfo["novel_classes"]}
    seen = [set(item["data_samples"].gt_instances.labels.tolist()) for item in everything]
    kept = [set(item["data_samples"].gt_instances.labels.tolist()) for item in base]
    assert novel & set.union(*seen) and not novel & set.union(*kept)
    assert [labels - novel for labels in seen] == kept


def test_the_truth_loaded_after_a_resize_is_that_of_the_picture():
    resize = [dict(type="ovseg.LoadScenePicture"), dict(type="mmdet.Resize", scale=(160, 160), keep_ratio=True)]
    rest = [dict(type="ovseg.LoadSceneBoxes"), dict(type="mmdet.PackDetInputs")]
    resized = DATASETS.build(dict(type="SceneBoxes", count=1, pipeline=resize + rest))[0]
    plain = detection.SceneBoxes(count=1)[0]
    assert resized["inputs"].shape[1:] == (160, 160)
    assert np.array_equal(truth(resized)[0], truth(plain)[0])


def test_coco_mini(data, monkeypatch):
    monkeypatch.setenv("OVSEG_DATA", str(data))
    dataset = detection.COCOMiniBoxes()
    assert len(dataset) == 100 and len(dataset.metainfo["classes"]) == 80
    boxes, labels, masks = truth(dataset[0])
    height, width = dataset[0]["data_samples"].ori_shape
    assert masks.shape[1:] == (height, width) and (boxes[:, 2] <= width).all() and (labels < 80).all()


def test_base_and_novel_coco():
    names = detection.OVCOCO.METAINFO["classes"]
    assert len(BASE_COCO) == 48 and len(NOVEL_COCO) == 17 and len(names) == 65
    assert set(names) == {*BASE_COCO, *NOVEL_COCO}


@pytest.mark.parametrize(
    "kind, options, error, says",
    [
        ("SceneBoxes", dict(styles="old"), ValueError, "styles 'seen' or 'unseen'"),
        ("SceneBoxes", dict(ann_file="x.json"), ValueError, "reads no files"),
        ("COCOMiniBoxes", dict(split="test"), ValueError, "splits train, val"),
        ("OVCOCO", dict(data_root="nowhere", ann_file="x.json"), FileNotFoundError, "there is no nowhere/x.json"),
    ],
)
def test_errors(kind, options, error, says):
    with pytest.raises(error, match=says):
        DATASETS.build(dict(type=kind, **options))


def grounding(tmp_path, images, annotations):
    path = tmp_path / "set.json"
    path.write_text(json.dumps(dict(images=images, annotations=annotations)))
    kind = dict(type="GroundingPhrases", ann_file=str(path), data_prefix=dict(img_path=str(tmp_path)))
    return DATASETS.build(kind)


def test_phrases_of_a_caption(tmp_path):
    image = dict(id=1, file_name="a.jpg", width=50, height=40, caption="a cat and two dogs")
    image["tokens_positive_eval"] = [[[0, 5]], [[10, 18]]]
    boxes = [dict(image_id=1, bbox=[0, 0, 9, 9], phrase_ids=7), dict(image_id=1, bbox=[9, 0, 9, 9], phrase_ids=9)]
    boxes.append(dict(image_id=1, bbox=[20, 0, 9, 9], phrase_ids=9))
    found = grounding(tmp_path, [image], boxes).get_data_info(0)["phrases"]
    assert [each["phrase"] for each in found] == ["a cat", "two dogs"]
    assert found[1]["truth"].tolist() == [[9, 0, 18, 9], [20, 0, 29, 9]]


def test_a_caption_that_is_the_phrase(tmp_path):
    image = dict(id=1, file_name="a.jpg", width=50, height=40, caption="the left cat")
    found = grounding(tmp_path, [image], [dict(image_id=1, bbox=[0, 0, 9, 9])]).get_data_info(0)["phrases"]
    assert [(each["phrase"], each["truth"].tolist()) for each in found] == [("the left cat", [[0, 0, 9, 9]])]


def test_other_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match="another layout than MDETR's"):
        grounding(tmp_path, [dict(id=1)], [])
    with pytest.raises(FileNotFoundError, match="give ann_file|Give ann_file"):
        DATASETS.build(dict(type="GroundingPhrases", ann_file="nowhere.json"))
    with pytest.raises(FileNotFoundError, match="there is no nowhere.json"):
        DATASETS.build(dict(type="OVLVIS", ann_file="nowhere.json"))
