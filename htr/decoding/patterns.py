"""What a text may consist of: a regular expression as an automaton over the network's classes.

Label i is class i + 1; class 0, the blank, is no character.
"""

import re
import warnings
from collections.abc import Callable, Iterable
from re import _constants as sre  # what Python's own expressions consist of
from re import _parser as parser

import numpy as np

from htr.system.scripts import HTRError, printable

MOST_STEPS = 1_000  # of an expression, written out
MOST_STATES = 300  # of the automaton
SPLIT = None  # a step that needs no character
CATEGORIES: dict[int, Callable[[str], bool]] = {
    sre.CATEGORY_DIGIT: str.isdecimal, sre.CATEGORY_NOT_DIGIT: lambda c: not c.isdecimal(),
    sre.CATEGORY_SPACE: str.isspace, sre.CATEGORY_NOT_SPACE: lambda c: not c.isspace(),
    sre.CATEGORY_WORD: lambda c: c.isalnum() or c == "_",
    sre.CATEGORY_NOT_WORD: lambda c: not (c.isalnum() or c == "_"),
}  # fmt: skip


class _Unsupported(Exception):
    """A part of an expression that needs more than an automaton."""


class Pattern:
    """A deterministic automaton of Q states for C classes.

    table: (Q, C), the next state, or -1 where the class may not come. accepting: (Q,), where a text may end. From every
    state some text ends. used: the classes that any text has.
    """

    start = 0

    def __init__(self, expression: str, characters: str):
        """expression: of Python's kind, matched by whole texts. characters: of an alphabet, in the order of its ids.

        Raises HTRError where it is none, asks for what an automaton cannot know, is too large, or allows no text.
        """
        shown = printable(expression, 80)
        try:
            self.table, self.accepting = _automaton(_steps(expression, characters))
        except (re.error, OverflowError, RecursionError) as error:
            raise HTRError(f"{shown!r} is no pattern: {error}") from error
        except _Unsupported as error:
            raise HTRError(
                f"{shown!r} has {error}, which is not understood here: use characters, classes as in [0-9], groups,"
                " alternatives and repetitions"
            ) from error
        if not len(self.table):
            raise HTRError(f"no text of the characters that the network knows is as {shown!r} asks for")
        self.used = np.flatnonzero((self.table >= 0).any(0)) if (self.table >= 0).any() else np.array([1])

    def allows(self, labels: Iterable[int]) -> bool:
        """Whether a text, as label ids, is one of the pattern's."""
        state = self.start
        for label in labels:
            state = self.table[state, label + 1]
            if state < 0:
                return False
        return bool(self.accepting[state])

    def ahead(self, log_probs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """log P(the rest of the frames | where a text is), summed over all ends that the pattern allows.

        log_probs (T, C). Returns (T + 1, Q) for texts whose paths are on a blank before frame t, and (T + 1, Q, C) for
        those on their last character; -inf where the frames that are left do not suffice. The former's [0, start] is
        the probability of all texts that the pattern allows.
        """
        frames, (states, classes) = len(log_probs), self.table.shape
        on_blank, on_label = np.zeros((frames + 1, states)), np.zeros((frames + 1, states, classes), np.float32)
        blank, label = self.accepting.astype(float), np.repeat(self.accepting.astype(float)[:, None], classes, 1)
        scale, column = 0.0, np.arange(classes)
        allowed, following = self.table >= 0, np.maximum(self.table, 0)
        with np.errstate(divide="ignore"):
            on_blank[frames], on_label[frames] = np.log(blank), np.log(label)
            for t in range(frames - 1, -1, -1):
                peak = log_probs[t].max()
                frame = np.exp(log_probs[t].astype(float) - peak)
                begun = np.where(allowed, frame * label[following, column], 0)  # a new character
                others = begun.sum(1, keepdims=True) - begun
                rest = frame[0] * blank
                label = rest[:, None] + frame * label + np.maximum(others, 0)
                blank = rest + begun.sum(1)
                largest = max(blank.max(), label.max()) or 1.0
                blank, label = blank / largest, label / largest
                scale += peak + np.log(largest)
                on_blank[t], on_label[t] = np.log(blank) + scale, np.log(label) + scale
        return on_blank, on_label


def of_characters(characters: str) -> str:
    """The expression of all texts of some characters, given as in `0-9/.`, where a-b is a range."""
    ranges = re.sub(r"([\\\]\[^])", r"\\\1", characters)
    return f"[{ranges}]*"


# ------------------------------------------------------------------------------------------- automata


class _Steps:
    """A nondeterministic automaton (Thompson 1968): from each place, the classes of a step, or SPLIT, and where to."""

    def __init__(self, classes: int):
        self.classes = classes
        self.steps: list[list[tuple[np.ndarray | None, int]]] = []
        self.first = self.last = self.place()

    def place(self) -> int:
        if len(self.steps) >= MOST_STEPS:
            raise OverflowError(f"written out it has more than {MOST_STEPS:,} steps")
        self.steps.append([])
        return len(self.steps) - 1


def _steps(expression: str, characters: str) -> _Steps:
    with warnings.catch_warnings(action="ignore"):  # of what may mean something else one day
        tree = parser.parse(expression)
    if tree.state.flags & ~re.UNICODE.value:
        raise _Unsupported("flags")
    parts = list(tree)
    if parts and parts[0] == (sre.AT, sre.AT_BEGINNING):  # ^ and $, which change nothing there
        del parts[0]
    if parts and parts[-1] == (sre.AT, sre.AT_END):
        del parts[-1]
    steps = _Steps(len(characters) + 1)
    steps.last = _add(steps, parts, steps.first, characters)
    return steps


def _add(steps: _Steps, tree: Iterable, start: int, characters: str) -> int:
    """Add the steps of a part of an expression from a place; returns the place after it."""
    for name, value in tree:
        if name is sre.SUBPATTERN:
            _, added, removed, inner = value
            if added or removed:
                raise _Unsupported("flags")
            start = _add(steps, inner, start, characters)
        elif name is sre.BRANCH:
            ends = []
            for branch in value[1]:
                first = steps.place()
                steps.steps[start].append((SPLIT, first))
                ends.append(_add(steps, branch, first, characters))
            start = steps.place()
            for end in ends:
                steps.steps[end].append((SPLIT, start))
        elif name in (sre.MAX_REPEAT, sre.MIN_REPEAT):
            start = _repeat(steps, *value, start, characters)
        else:
            end = steps.place()
            classes = np.array([False, *map(_is(name, value), characters)])  # (C,)
            steps.steps[start].append((classes, end))
            start = end
    return start


def _repeat(steps: _Steps, least: int, most: int, tree: Iterable, start: int, characters: str) -> int:
    def once(before: int) -> int:
        first = steps.place()
        steps.steps[before].append((SPLIT, first))
        return _add(steps, tree, first, characters)

    for _ in range(least):
        start = once(start)
    end = steps.place()
    if most == sre.MAXREPEAT:
        loop = steps.place()
        steps.steps[start].append((SPLIT, loop))
        steps.steps[once(loop)].append((SPLIT, loop))
        start = loop
    else:
        for _ in range(most - least):
            steps.steps[start].append((SPLIT, end))
            start = once(start)
    steps.steps[start].append((SPLIT, end))
    return end


def _is(name: int, value) -> Callable[[str], bool]:
    """Whether a character is what a part of an expression stands for, which is one character long."""
    if name is sre.ANY:
        return lambda c: True
    if name is sre.LITERAL:
        return lambda c: ord(c) == value
    if name is sre.NOT_LITERAL:
        return lambda c: ord(c) != value
    if name is sre.RANGE:
        return lambda c: value[0] <= ord(c) <= value[1]
    if name is sre.CATEGORY:
        return CATEGORIES[value]
    if name is sre.IN:
        negated = value[0][0] is sre.NEGATE
        members = [_is(*member) for member in value[negated:]]
        return lambda c: any(member(c) for member in members) != negated
    raise _Unsupported(str(name).lower().replace("_", " "))


def _automaton(steps: _Steps) -> tuple[np.ndarray, np.ndarray]:
    """Make it deterministic (Rabin and Scott 1959), without states from which no text ends."""

    def closure(places: Iterable[int]) -> frozenset[int]:
        """Where one can be without a character, of places; those that matter."""
        seen, todo = set(places), list(places)
        while todo:
            for classes, to in steps.steps[todo.pop()]:
                if classes is SPLIT and to not in seen:
                    seen.add(to)
                    todo.append(to)
        return frozenset(at for at in seen if at == steps.last or any(c is not SPLIT for c, _ in steps.steps[at]))

    todo = [closure([steps.first])]
    numbers = {todo[0]: 0}
    rows: list[np.ndarray] = []
    for places in todo:  # which grows
        edges = [edge for at in sorted(places) for edge in steps.steps[at] if edge[0] is not SPLIT]
        row = np.full(steps.classes, -1)
        members = np.array([classes for classes, _ in edges]).reshape(len(edges), steps.classes)
        kinds, kind_of = np.unique(members, axis=1, return_inverse=True)
        for kind, column in enumerate(kinds.T):
            if column.any():
                following = closure([to for is_in, (_, to) in zip(column, edges, strict=True) if is_in])
                if following not in numbers:
                    if len(numbers) >= MOST_STATES:
                        raise OverflowError(f"it needs more than {MOST_STATES} states")
                    numbers[following] = len(numbers)
                    todo.append(following)
                row[kind_of.ravel() == kind] = numbers[following]
        rows.append(row)
    table = np.array(rows)
    accepting = np.array([steps.last in places for places in todo])
    useful = accepting.copy()
    while True:
        more = useful | ((table >= 0) & useful[table]).any(1)
        if (more == useful).all():
            break
        useful = more
    if not useful[0]:
        return np.zeros((0, steps.classes), np.int64), np.zeros(0, bool)
    renumbered = np.where(useful, np.cumsum(useful) - 1, -1)
    table = np.where(table >= 0, renumbered[table], -1)
    return table[useful], accepting[useful]
