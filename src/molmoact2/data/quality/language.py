"""Rules about instructions: there, in words, spelled one way, and more than one."""

import difflib
import re
from collections import Counter, defaultdict
from collections.abc import Iterator

import numpy as np

from molmoact2.data.quality.findings import Found, Rule, Severity, episodes_at
from molmoact2.data.quality.material import Material

FEWEST_WORDS = 2
LIKE_WORDS = 0.75
"""Similarity, as `difflib` measures it, from which two words are one word misspelled."""
MANY_EPISODES = 50
FEWEST_LABELS = 2
PLACEHOLDERS = ("test", "task", "dummy", "tbd", "todo", "none", "null", "nan", "unknown", "n/a", "default")


def words_of(instruction: str) -> tuple[str, ...]:
    """Its words in lower case, without punctuation."""
    return tuple(re.findall(r"\w+", instruction.lower()))


def _episodes(material: Material, wanted: set[str]) -> list[int]:
    return [episode for episode, text in enumerate(material.instructions) if text in wanted]


def is_valid(instruction: str) -> bool:
    """Whether an instruction says something: words, and no placeholder or sentinel such as "<ALL FROZEN FRAMES>"."""
    words = words_of(instruction)
    is_sentinel = re.fullmatch(r"\s*<.*>\s*", instruction) is not None
    return bool(words) and " ".join(words) not in PLACEHOLDERS and not is_sentinel


def empty(material: Material) -> Iterator[Found]:
    """Episodes without a usable instruction."""
    useless = {text for text in set(material.instructions) if not is_valid(text)}
    if useless:
        shown = ", ".join(repr(text) for text in sorted(useless)[:5])
        episodes = _episodes(material, useless)
        yield Found(measured=f"{len(episodes)} episodes say {shown}", places=episodes_at(episodes))


def one_word(material: Material) -> Iterator[Found]:
    """Instructions of a single word."""
    terse = {text for text in set(material.instructions) if is_valid(text) and len(words_of(text)) < FEWEST_WORDS}
    if terse:
        shown = ", ".join(repr(text) for text in sorted(terse)[:5])
        yield Found(measured=f"{len(terse)} instructions: {shown}", places=episodes_at(_episodes(material, terse)))


def spellings(material: Material) -> Iterator[Found]:
    """One instruction in several spellings."""
    pairs = near_pairs(sorted({text for text in material.instructions if is_valid(text)}))
    counts = Counter(material.instructions)
    if pairs:
        rarer = {min(pair, key=lambda text: counts[text]) for pair in pairs}
        shown = "; ".join(f"{a!r} and {b!r}" for a, b in pairs[:3])
        measured = f"{len(pairs)} pairs that differ by a letter, a space or a sign: {shown}"
        yield Found(measured=measured, places=episodes_at(_episodes(material, rarer)))


def near_pairs(texts: list[str]) -> list[tuple[str, str]]:
    """Pairs that are equal but for case, spaces and punctuation, or but for one similar word."""
    by_words: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for text in texts:
        by_words[words_of(text)].append(text)
    pairs = [(group[0], other) for group in by_words.values() for other in group[1:]]
    holes: dict[tuple[str, ...], list[tuple[str, str]]] = defaultdict(list)
    for words, group in by_words.items():
        for place, word in enumerate(words):
            holes[(*words[:place], "", *words[place + 1 :])].append((word, group[0]))
    return pairs + [
        (text, other)
        for members in holes.values()
        for index, (word, text) in enumerate(members)
        for other_word, other in members[index + 1 :]
        if _is_misspelled(word, other_word)
    ]


def _is_misspelled(a: str, b: str) -> bool:
    """Whether two words are probably one: similar letters, and no number that differs."""
    is_word = min(len(a), len(b)) > 2 and not re.search(r"\d", a + b)
    is_swapped = sorted(a) == sorted(b)
    return is_word and (is_swapped or difflib.SequenceMatcher(None, a, b).ratio() >= LIKE_WORDS)


def few_labels(material: Material) -> Iterator[Found]:
    """Many episodes with one instruction."""
    num_labels = len({words_of(text) for text in material.instructions})
    if material.num_episodes >= MANY_EPISODES and num_labels < FEWEST_LABELS:
        yield Found(measured=f"{num_labels} instruction for {material.num_episodes} episodes")


def uneven(material: Material) -> Iterator[Found]:
    """Instructions of which one is far rarer than the others."""
    counts = Counter(words_of(text) for text in material.instructions)
    usual = float(np.median(list(counts.values()))) if counts else 0.0
    rare = {words for words, count in counts.items() if count < 0.1 * usual}
    if rare:
        texts = {text for text in set(material.instructions) if words_of(text) in rare}
        measured = f"{len(rare)} instructions have less than a tenth of the usual {usual:.0f} episodes"
        yield Found(measured=measured, places=episodes_at(_episodes(material, texts)))


RULES = (
    Rule(
        name="no_instruction",
        severity=Severity.ERROR,
        title="Episodes without an instruction",
        why="The policy is told what to do in words. Without them it learns to do something whatever it is told.",
        fix="Write one: molmoact2 data annotate, or leave these episodes out.",
        look=empty,
    ),
    Rule(
        name="one_word",
        severity=Severity.WARNING,
        title="Instructions of one word",
        why="They name an object or a skill, not what to do with it, and are unlike what the policy was trained on.",
        fix="Write imperative sentences: molmoact2 data annotate.",
        look=one_word,
    ),
    Rule(
        name="spelling",
        severity=Severity.WARNING,
        title="One instruction in several spellings",
        why="Probably typing mistakes: they count as different tasks when data are split or balanced.",
        fix="Correct them in the tasks file of meta/.",
        look=spellings,
    ),
    Rule(
        name="one_instruction",
        severity=Severity.NOTE,
        title="One instruction for everything",
        why="The words then carry no information, and the policy learns to ignore them. That is why the authors "
        "had the instructions of the SO-100/101 data written anew (paper section 1).",
        fix="Vary the words: molmoact2 data annotate.",
        look=few_labels,
    ),
    Rule(
        name="rare_instruction",
        severity=Severity.NOTE,
        title="Instructions that hardly occur",
        why="A task with a tenth of the others' episodes is learned last, if at all.",
        fix="Record more of it, or weight it in training.",
        look=uneven,
    ),
)
