"""Which classes training must not see: the seen/unseen protocol of the sets that are at hand.

A model trained with ``unseen`` ignores their pixels and never reads their words; at test time it chooses among all
names, and ``OpenVocabIoU`` reports mIoU of seen and unseen classes and their harmonic mean.

The split of the COCO panoptic classes follows the 15 unseen ones usual with COCO-Stuff (SPNet, CVPR 2019) [recalled]:
"wall" stands for wall-concrete, and clouds has no counterpart.  The other two splits are ours.
"""

from .scenes import object_names, stuff_names

UNSEEN_SCENES = (*object_names()[2::5], *stuff_names()[2::4])
UNSEEN_CAMVID = ("sidewalk", "fence", "bicyclist")
UNSEEN_COCO = (
    "cow", "giraffe", "suitcase", "frisbee", "skateboard", "carrot", "scissors",
    "cardboard", "road", "river", "tree", "grass", "playing field", "wall",
)  # fmt: skip
