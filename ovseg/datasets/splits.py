"""Which classes training must not see: the seen/unseen protocol of the sets that are at hand.

A model trained with ``unseen`` ignores their pixels and never reads their words; at test time it chooses among all
names, and ``OpenVocabIoU`` reports mIoU of seen and unseen classes and their harmonic mean.

The split of the COCO panoptic classes follows the 15 unseen ones usual with COCO-Stuff (SPNet, CVPR 2019) [recalled]:
"wall" stands for wall-concrete, and clouds has no counterpart.  Those of scenes (every fifth object, every fourth kind
of stuff) and CamVid are ours.

Detection on COCO has the 48 base and 17 novel classes of Bansal et al. (ECCV 2018), as all later work.
"""

from ovseg.text.vocabulary import Vocabulary

UNSEEN_SCENES = Vocabulary.parse("scenes_unseen").names
UNSEEN_CAMVID = ("sidewalk", "fence", "bicyclist")
UNSEEN_COCO = (
    "cow", "giraffe", "suitcase", "frisbee", "skateboard", "carrot", "scissors",
    "cardboard", "road", "river", "tree", "grass", "playing field", "wall",
)  # fmt: skip

NOVEL_COCO = Vocabulary.parse("ov_coco_novel").names
BASE_COCO = tuple(name for name in Vocabulary.parse("ov_coco").names if name not in NOVEL_COCO)
NOVEL_SCENES = Vocabulary.parse("scene_objects_novel").names
