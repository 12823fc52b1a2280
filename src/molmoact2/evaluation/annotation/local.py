"""A checkpoint of ours that is asked about episodes, such as Molmo2-ER.

A question has room for five images, so each camera's moments are one picture, in reading order. Decoding takes the
likeliest token each time, which is a temperature of 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from molmoact2.evaluation.annotation.answering import Answer, NoAnswerError
from molmoact2.evaluation.annotation.question import Question
from molmoact2.evaluation.annotation.storyboard import SHEET_COLUMNS, sheet
from molmoact2.inference import load_policy
from molmoact2.types import Image

MAX_TOKENS = 128
LAYOUT = "Picture {number} is the camera {camera}: {moments} moments in reading order, {columns} in a row."


class Talker(Protocol):
    """What a loaded checkpoint is asked with."""

    def ask(self, question: str, images: Sequence[Image] = (), *, max_tokens: int = 256) -> str:
        """The answer in words."""
        ...


@dataclass(frozen=True, kw_only=True)
class LocalModel:
    """A loaded checkpoint."""

    name: str
    """Its folder or hub id."""
    identity: str
    """Changes when the weights do: holds the commit of a hub id, or sizes and times of a folder's files."""
    policy: Talker = field(repr=False)

    def answer(self, question: Question) -> Answer:
        """Ask about one picture per camera; NoAnswerError for whatever the checkpoint refuses or does not finish."""
        views = question.storyboard.views
        layout = " ".join(
            LAYOUT.format(number=number, camera=camera, moments=len(images), columns=SHEET_COLUMNS)
            for number, (camera, images) in enumerate(views.items(), start=1)
        )
        sheets = [sheet(images) for images in views.values()]
        try:
            text = self.policy.ask(f"{layout}\n{question.text}", sheets, max_tokens=MAX_TOKENS)
        except ValueError as error:
            raise NoAnswerError(str(error)) from error
        return Answer(text=text)


def load_annotator(checkpoint: str, device: str, dtype: str) -> LocalModel:
    """Load a checkpoint from a folder or, by its id, from the hub."""
    policy = load_policy(checkpoint, device, dtype)
    files = sorted(Path(checkpoint).glob("*.safetensors"))
    stamps = [f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in files]
    identity = " ".join([checkpoint, policy.revision or "", LAYOUT, *stamps])
    return LocalModel(name=checkpoint, identity=identity, policy=policy)
