"""Writing from right to left: texts in the order in which they are pictured, and in that in which they are read.

CTC reads a line from left to right, as it is pictured (visual order); tables hold texts as they are read (logical
order). For Hebrew, Arabic, Persian or Urdu, with numbers and Latin words in them, these are two orders, and the Unicode
Bidirectional Algorithm leads from one to the other (Unicode Standard Annex 9). Other texts are the same in both.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache

# Hebrew, Arabic, Syriac, Thaana, N'Ko, ..., with their digits; forms of letters; historic and newer scripts.
RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\U00010800-\U00010fff\U0001e800-\U0001efff]")
# One picture may be that of several texts: "abc" left of a Hebrew word comes first in a line that is read from the
# left, and last in one that is read from the right; and a number between them belongs to either. A way back is the
# direction of the line, and whether numbers stand by themselves.
WAYS: tuple[tuple[str, bool], ...] = (("R", False), ("R", True), ("L", False), ("L", True))
USUAL = tuple(range(len(WAYS)))
APART = str.maketrans("0123456789", "\u0660\u0661\u0662\u0663\u0664\u0665\u0666\u0667\u0668\u0669")


def _levels(text: str, direction: str | None) -> list[int]:
    """The embedding level of each character of a line (UAX 9, X1 to I2); even ones run from left to right."""
    from bidi import get_display

    described = get_display(text, base_dir=direction, debug=True)  # of each byte in UTF-8
    described = described[described.rindex("levels: [") : described.rindex("paragraphs: [")]
    of_bytes, levels, place = [int(level) for level in re.findall(r"Level\(\s*(\d+)", described)], [], 0
    for character in text:
        levels.append(of_bytes[place])
        place += len(character.encode())
    return levels


def _order(levels: Sequence[int]) -> list[int]:
    """The characters' places from left to right: runs are reversed from the highest level down (UAX 9, L2)."""
    order = list(range(len(levels)))
    for level in range(max(levels, default=0), 0, -1):
        start = 0
        while start < len(order):
            end = start
            while end < len(order) and levels[order[end]] >= level:
                end += 1
            order[start:end] = order[start:end][::-1]
            start = end + 1
    return order


def _shown(text: str, levels: Sequence[int], order: Sequence[int]) -> str:
    """The characters in their order, with brackets that open to the other side mirrored (UAX 9, L4)."""
    from bidi.mirror import MIRRORED

    return "".join(MIRRORED.get(text[n], text[n]) if levels[n] % 2 else text[n] for n in order)


def to_visual(text: str) -> str:
    """A text from left to right as it is pictured. The direction of its line is that of its first letter (P2, P3)."""
    return text if RIGHT_TO_LEFT.search(text) is None else _to_visual(text)


@lru_cache(maxsize=100_000)  # labels come back every epoch
def _to_visual(text: str) -> str:
    levels = _levels(text, None)
    return _shown(text, levels, _order(levels))


def to_logical(visual: str, ways: Sequence[int] = USUAL) -> tuple[str, list[int]]:
    """The text that is pictured as `visual`, and the place there of each of its characters.

    Of several texts that look the same the one that the first of `ways` finds. What is no picture of any text, as an
    untrained network may read it, is turned in the first of the ways.
    """
    if RIGHT_TO_LEFT.search(visual) is None:
        return visual, list(range(len(visual)))
    found = [_turned(visual, *WAYS[way]) for way in ways]
    return next((turned for turned in found if to_visual(turned[0]) == visual), found[0])


def _turned(visual: str, direction: str, apart: bool) -> tuple[str, list[int]]:
    # Turning what is turned gives what there was, as long as its parts are told apart as before.
    levels = _levels(visual.translate(APART) if apart else visual, direction)
    order = _order(levels)
    return _shown(visual, levels, order), order


def usual_ways(texts: Iterable[str]) -> tuple[int, ...]:
    """All ways back, those first that lead from the pictures of the most texts to these texts."""
    hits = Counter(dict.fromkeys(USUAL, 0))
    for text in texts:
        if RIGHT_TO_LEFT.search(text):
            visual = to_visual(text)
            hits.update(way for way in USUAL if _turned(visual, *WAYS[way])[0] == text)
    return tuple(way for way, _ in hits.most_common())
