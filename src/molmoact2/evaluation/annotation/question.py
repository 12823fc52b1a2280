"""What the model is asked about one episode. The wording is ours; the paper describes what its own asks for."""

import hashlib
import json
from dataclasses import dataclass

import numpy as np

from molmoact2.evaluation.annotation.storyboard import Storyboard

TARGET_WORDS = (5, 25)
"""Fewest and most words that are asked for (paper.md 1)."""

WORDING = """\
The pictures show one recorded demonstration of a robot, in the order in which things happened. Write the instruction
that somebody would have given the robot beforehand.

{note}
Rules:
- One sentence in English, an order to the robot that begins with its verb, such as "Push" or "Put".
- Cover everything that is done from the first picture to the last, in its order.
- Tell objects apart by what you see: their colour, and where they are (left, right, near, far, in, on, beside).
- Say that something is grasped, picked up or carried only if a picture shows it held by the gripper; a camera on the
  wrist shows that best. Otherwise say what is seen, such as pushing it or moving towards it.
- Nothing about pictures, cameras, the demonstration or what is unclear.
- About {num_words} words.

Answer with the sentence alone: no quotation marks, no list, no markup, no comment.\
"""
NOTE = """\
Its operator noted: {task}
The note may be vague, incomplete or wrong. Where it contradicts the pictures, believe the pictures.
"""


@dataclass(frozen=True, kw_only=True, eq=False)
class Question:
    """One episode and how long its instruction should be."""

    storyboard: Storyboard
    num_words: int
    complaint: str = ""
    """What was wrong with the answer before."""

    @property
    def text(self) -> str:
        """The words of the question, but for those that say which picture is which."""
        task = " ".join(self.storyboard.task.split())
        note = NOTE.format(task=task) if task else ""
        again = f"\n\nYour answer before was not usable: {self.complaint}. Keep to the rules." if self.complaint else ""
        return WORDING.format(note=note, num_words=self.num_words) + again

    def key(self, settings: str) -> str:
        """32 hex digits that change with the episode, the words, the pictures, the cameras' names and `settings`."""
        cameras = [[camera, *images.shape] for camera, images in self.storyboard.views.items()]
        digest = hashlib.sha256(json.dumps([settings, self.storyboard.episode_index, self.text, cameras]).encode())
        for images in self.storyboard.views.values():
            digest.update(images.tobytes())
        return digest.hexdigest()[:32]


def draw_num_words(seed: int, episode_index: int, exponent: float) -> int:
    """Length to ask for: `n` from 5 to 25 words with probability in proportion to `n ** -exponent`.

    The same seed and episode always give the same length.
    """
    lengths = np.arange(TARGET_WORDS[0], TARGET_WORDS[1] + 1)
    weights = lengths.astype(np.float64) ** -exponent
    return int(np.random.default_rng((seed, episode_index)).choice(lengths, p=weights / weights.sum()))
