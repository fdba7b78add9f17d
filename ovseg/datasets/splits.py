"""Which classes training must not see: the seen/unseen protocol of the sets that are at hand.

A model trained with ``unseen`` ignores their pixels and never reads their words; at test time it chooses among all
names, and ``OpenVocabIoU`` reports mIoU of seen and unseen classes and their harmonic mean.

The split of the COCO panoptic classes follows the 15 unseen ones usual with COCO-Stuff (SPNet, CVPR 2019) [recalled]:
"wall" stands for wall-concrete, and clouds has no counterpart.  Those of scenes and CamVid are ours.

Detection on COCO has the 48 base and 17 novel classes of Bansal et al. (ECCV 2018), as all later work.
"""

from .scenes import object_names, stuff_names

UNSEEN_SCENES = (*object_names()[2::5], *stuff_names()[2::4])
UNSEEN_CAMVID = ("sidewalk", "fence", "bicyclist")
UNSEEN_COCO = (
    "cow", "giraffe", "suitcase", "frisbee", "skateboard", "carrot", "scissors",
    "cardboard", "road", "river", "tree", "grass", "playing field", "wall",
)  # fmt: skip

BASE_COCO = (
    "person", "bicycle", "car", "motorcycle", "train", "truck", "boat", "bench", "bird", "horse", "sheep", "bear",
    "zebra", "giraffe", "backpack", "handbag", "suitcase", "frisbee", "skis", "kite", "surfboard", "bottle", "fork",
    "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli", "carrot", "pizza", "donut", "chair", "bed",
    "toilet", "tv", "laptop", "mouse", "remote", "microwave", "oven", "toaster", "refrigerator", "book", "clock",
    "vase", "toothbrush",
)  # fmt: skip
NOVEL_COCO = (
    "airplane", "bus", "cat", "dog", "cow", "elephant", "umbrella", "tie", "snowboard", "skateboard", "cup", "knife",
    "cake", "couch", "keyboard", "sink", "scissors",
)  # fmt: skip
