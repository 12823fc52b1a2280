"""Whether an answer is an instruction: one plain sentence that gives an order.

These are rules of thumb about form. Whether an instruction is true of the episode is for the review.
"""

import re
import unicodedata

NUM_WORDS = (3, 30)
"""Fewest and most words of an instruction; lengths from 5 to 25 are asked for, and a model cannot count exactly."""

PAIRS = ('""', "''", "“”", "«»")
"""Quotation marks around a whole answer, which are taken off."""

NOT_AN_ORDER = frozenset(
    {
        "a",
        "an",
        "the",
        "this",
        "that",
        "these",
        "there",
        "here",
        "its",
        "it",
        "it's",
        "they",
        "we",
        "you",
        "your",
        "our",
    }
    | {"i", "i'd", "i'll", "i'm", "i've", "ai", "as", "assistant", "robot", "robotic", "what", "based", "to", "and"}
    | {"", "yes", "no", "none", "sure", "ok", "okay", "certainly", "sorry", "unfortunately", "unable", "can", "can't"}
    | {"cannot", "instruction", "answer", "final", "note", "image", "images", "picture", "pictures", "video", "unclear"}
)
"""First words of descriptions, refusals and chatter; nothing but a sign counts as no word."""
ORDERS_IN_ING = frozenset({"bring", "cling", "fling", "ring", "sling", "spring", "string", "swing", "using", "wring"})
"""Words in -ing with which an order may begin."""

SPECIAL_TOKEN = re.compile(r"<\|.*?\|>|<[/!]?\w[^<>]*>|\[/?[A-Z_]+\]")
MARKUP = re.compile(r"[<>{}\[\]|`*#\\_~=]|https?:")
END_OF_SENTENCE = re.compile(r"[.!?…。](?=\s+\S)")
LABEL = re.compile(r"[^\W\d]+(\s+[^\W\d]+)?\s*:")


def cleaned(answer: str) -> str:
    """The answer without white space and quotation marks around it; nothing else is changed."""
    text = answer.strip()
    is_quoted = len(text) > 1 and text[0] + text[-1] in PAIRS and not set(text[0] + text[-1]) & set(text[1:-1])
    return text[1:-1].strip() if is_quoted else text


def complaint_about(text: str) -> str:
    """What keeps a cleaned answer from being an instruction, in words for the model and for people; "" if nothing."""
    words = text.split()
    first = "".join(words[:1]).replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").strip("-'.,;:!?()").lower()
    complaints = {
        "it is empty": not text,
        "it has special tokens or tags": bool(SPECIAL_TOKEN.search(text)),
        "it has line breaks or control characters": any(unicodedata.category(letter)[0] == "C" for letter in text),
        "it is not plain text": bool(MARKUP.search(text)),
        "it is a question": text.endswith("?"),
        "it has a label in front": bool(LABEL.match(text)),
        "it is more than one sentence": bool(END_OF_SENTENCE.search(text)),
        f"it has {len(words)} words, not {NUM_WORDS[0]} to {NUM_WORDS[1]}": not in_limits(len(words)),
        "it is not an order that begins with its verb": first in NOT_AN_ORDER or is_inflected(first),
    }
    return next((complaint for complaint, applies in complaints.items() if applies), "")


def complaint_about_wording(text: str) -> str:
    """What a person's own wording may not have: the rules that protect training, not those of style."""
    is_plain = not SPECIAL_TOKEN.search(text) and not any(unicodedata.category(letter)[0] == "C" for letter in text)
    complaints = {"it is empty": not text.strip(), "it has special tokens, tags or line breaks": not is_plain}
    return next((complaint for complaint, applies in complaints.items() if applies), "")


def in_limits(num_words: int) -> bool:
    """Whether an instruction may have so many words."""
    return NUM_WORDS[0] <= num_words <= NUM_WORDS[1]


def is_inflected(word: str) -> bool:
    """Whether a first word looks like "picking" or "picks" rather than "pick"."""
    in_ing = word.endswith("ing") and word not in ORDERS_IN_ING
    in_s = word.endswith("s") and not word.endswith(("ss", "us", "'s", "wards"))
    return in_ing or in_s
