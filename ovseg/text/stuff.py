"""Names of stuff: what ``--background words``, a single word and detection set against the words of the user."""

from collections.abc import Collection, Iterable, Sequence

from ovseg.text.names import fold

# The stuff names with which SCLIP (Wang et al., ECCV 2024) and others describe class 0 of VOC21 and COCO-Object.
STUFF_WORDS = tuple(
    (
        "sky, wall, tree, wood, grass, road, sea, river, mountain, sands, desk, bed, building, cloud, lamp, door, "
        "window, wardrobe, ceiling, shelf, curtain, stair, floor, hill, rail, fence"
    ).split(", ")
)
MORE_STUFF = (
    "sand, snow, dirt, gravel, water, rock, leaves, pavement, tiles, rug, brick wall, stone wall, wood floor".split(
        ", "
    )
)
BACKGROUND = (*STUFF_WORDS, *MORE_STUFF)
"""What detection and a single word are set against."""

_SYNONYMS = {
    "sky": "blue sky, cloudy sky",
    "tree": "forest, woods, foliage",
    "wood": "forest, woods",
    "grass": "lawn, meadow, turf, field",
    "road": "street, asphalt, tarmac, highway",
    "sea": "ocean, water",
    "river": "water, stream",
    "water": "sea, ocean, river, lake, pond",
    "mountain": "mountain range",
    "sands": "sand, beach, desert",
    "sand": "sands, beach, desert",
    "desk": "table",
    "bed": "bunk, mattress",
    "building": "house, skyscraper",
    "lamp": "light, lantern",
    "window": "windowpane",
    "wardrobe": "closet, cupboard",
    "shelf": "bookshelf, bookcase, shelves",
    "curtain": "drapes",
    "stair": "staircase, stairway",
    "floor": "ground, wood floor, floorboards, parquet",
    "rail": "railway, railroad, railing",
    "fence": "railing, picket fence, wooden fence",
    "snow": "snowfield",
    "dirt": "soil, earth, mud, ground",
    "gravel": "pebbles",
    "rock": "stone, boulder",
    "leaves": "leaf, foliage",
    "pavement": "sidewalk",
    "tiles": "tiled wall, ceramic tiles",
    "rug": "carpet",
    "brick wall": "wall, bricks, brickwork, masonry",
    "stone wall": "wall, masonry",
    "wood floor": "wooden floor, floor, floorboards, parquet",
}


def stuff_without(
    named: Iterable[str], known: Collection[str] | None = None, words: Sequence[str] = BACKGROUND
) -> tuple[str, ...]:
    """Names of stuff that mean something else than the words of the user.

    Args:
        named: the words of the user, synonyms included.
        known: lower-case words that the weights have learned, where they are limited to some.
        words: the names of stuff to choose from; one of them leaves if it, another word for it, or the plural of
            either is among ``named``.
    """
    named = {_singular(word) for word in named}
    return tuple(
        word
        for word in words
        if (known is None or word.casefold() in known)
        and not named & {_singular(each) for each in (word, *_SYNONYMS.get(word, "").split(", "))}
    )


def _singular(word: str) -> str:
    return fold(word.replace("_", " ")).removesuffix("s")
