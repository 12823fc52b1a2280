"""Questions in a file: one JSON object per line, images beside it.

    {"image": "kitchen/0.jpg", "question": "how many mugs are there?", "answer": "two"}
    {"images": ["a.png", "b.png"], "question": "what has changed?", "answer": "the door is open", "weight": 0.5}
    {"question": "what is 2 + 2?", "answer": "4"}

The whole file is checked when it is opened, and that its images are there; an image is decoded when it is asked for. In
memory there is one number per line. A dataset may be named by its folder, which then holds `questions.jsonl`.
"""

import hashlib
import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from molmoact2.data.card import LABELS, MOST_CAMERAS, TEXT, Kind
from molmoact2.data.errors import expect, malformed
from molmoact2.data.pictures import decode_picture
from molmoact2.tokens.reading import is_a

QUESTIONS_FILE = "questions.jsonl"
"""The file of a dataset that is named by its folder."""
WEIGHT = Kind("a positive number", lambda value: is_a(value, float) and 0 < value < math.inf, float)
KINDS: dict[str, Kind] = {"image": TEXT, "images": LABELS, "question": TEXT, "answer": TEXT, "weight": WEIGHT}
"""Field of a line -> what it may hold."""
NOT_WORDS = re.compile(
    r"<\|[^<>]*\|>|</?(?:image|video|think|tool_call|tool_response)>|<(?:low_res_)?im_\w+>|<frame_\w+>|<extra_\d+>"
    r"|<(?:setup|control|state|action|depth)_(?:start|end|output|\d+)>|[\ud800-\udfff]"
)
"""What a tokenizer would not read as words, or not at all; images stand before a question without being written."""
BLOCK_BYTES = 1 << 22
FIX = f"A line has a question, an answer, and perhaps image or images and weight: {', '.join(KINDS)}."


@dataclass(frozen=True, kw_only=True)
class Question:
    """One line."""

    images: tuple[Path, ...]
    """None for a question of text alone."""
    question: str
    answer: str
    weight: float
    """Factor on its share of the loss."""


@dataclass(frozen=True, kw_only=True, eq=False)
class QuestionFile:
    """A file of questions that has been checked."""

    path: Path
    offsets: NDArray[np.int64] = field(repr=False)
    """[questions] first byte of each line."""
    fingerprint: str
    """16 hex digits that change with the text, and with the size of any image."""

    def __len__(self) -> int:
        """Number of questions."""
        return len(self.offsets)

    def __getitem__(self, index: int) -> Question:
        """One question. Raises ValueError, naming file and line, when the file has been damaged since it was opened."""
        with open_file(self.path) as file:
            file.seek(self.offsets[index])
            return read_line(file.readline(), self.path, index + 1)

    def images(self, question: Question, index: int) -> tuple[NDArray[np.uint8], ...]:
        """The images [h, w, 3] RGB of question `index`.

        Raises:
            ValueError: naming file and line, for an image that is missing, or no PNG or JPEG of 8 bits.
        """
        return tuple(self._image(path, index + 1) for path in question.images)

    def _image(self, path: Path, line: int) -> NDArray[np.uint8]:
        try:
            return decode_picture(path.read_bytes())
        except (OSError, ValueError) as error:
            raise malformed(self.path, f"line {line}: {path}: {error}", "Restore or convert the image.") from error


def open_questions(path: Path, *, show_progress: bool = True) -> QuestionFile:
    """Check a file of questions, or the one in a folder.

    Raises:
        ValueError: naming file and line, for one that is no question, has no answer, has markup in its words, or names
            an image that is not there or too many of them; or the file is missing or empty.
    """
    path = path / QUESTIONS_FILE if path.is_dir() else path
    digest, lengths = hashlib.sha256(), []
    with (
        open_file(path) as file,
        Progress(console=Console(stderr=True), transient=True, disable=not show_progress) as bar,
    ):
        task = bar.add_task(f"Checking {path.name}", total=path.stat().st_size)
        for lines in iter(lambda: file.readlines(BLOCK_BYTES), []):
            for line in lines:
                lengths.append(len(line))
                digest.update(line)
                digest.update(repr(image_sizes(read_line(line, path, len(lengths)), path, len(lengths))).encode())
            bar.advance(task, sum(map(len, lines)))
    expect(bool(lengths), path, "it has no questions", FIX)
    offsets = np.cumsum([0, *lengths[:-1]], dtype=np.int64)
    return QuestionFile(path=path, offsets=offsets, fingerprint=digest.hexdigest()[:16])


def open_file(path: Path) -> BinaryIO:
    """A file for reading bytes; ValueError if it cannot be opened."""
    try:
        return path.open("rb")
    except OSError as error:
        raise malformed(path, f"it cannot be opened ({error.strerror})", "Check the path.") from error


def read_line(line: bytes, path: Path, number: int) -> Question:
    """What line `number` (from 1) of a file says. Raises ValueError, naming both, when it is no question."""

    def check(is_right: bool, problem: str, fix: str = FIX) -> None:
        expect(is_right, path, f"line {number}: {problem}", fix)

    try:
        said: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise malformed(path, f"line {number}: it is not valid JSON ({error})", FIX) from error
    check(isinstance(said, dict), f"it holds a JSON {type(said).__name__}, not an object")
    other, missing = sorted(said.keys() - KINDS.keys()), sorted({"question", "answer"} - said.keys())
    check(not other, f"it has the unknown fields {other}")
    check(not missing, f"it lacks {' and '.join(missing)}")
    check(not {"image", "images"} <= said.keys(), "it has both image and images", "Name all of them as images.")
    for name, value in said.items():
        check(KINDS[name].is_right(value), f"{name} must be {KINDS[name].words}, got {value!r}")
    for name in ("question", "answer"):
        markup = NOT_WORDS.findall(said[name])
        check(not markup, f"{name} has {markup[:1]} in it, which is not words", "Write plain words; images come first.")
    images = [said["image"]] if "image" in said else said.get("images", [])
    check(
        len(images) <= MOST_CAMERAS, f"it has {len(images)} images, but a prompt holds {MOST_CAMERAS}", "Choose some."
    )
    return Question(
        images=tuple(path.parent / image for image in images),
        question=said["question"].strip(),
        answer=said["answer"].strip(),
        weight=WEIGHT.convert(said.get("weight", 1.0)),
    )


def image_sizes(question: Question, path: Path, number: int) -> list[int]:
    """Bytes of each image of a question. Raises ValueError, naming file and line, for one that is not there."""
    missing = [str(image) for image in question.images if not image.is_file()]
    expect(not missing, path, f"line {number}: there is no {', '.join(missing)}", "Images are found from this file.")
    return [image.stat().st_size for image in question.images]
