"""What is written to the network: the words of a prompt, exactly as in training.

    <|im_end|>Image 1⟦image⟧Image 2⟦image⟧<|im_start|>user\\n…<|im_end|>\\n<|im_start|>assistant\\n<action_output>

The first token is added by the processor, not written here. Facts: training.md B, deployment.md 7.1.
"""

import re
from collections.abc import Sequence
from typing import Literal, TypeAlias

from molmoact2.tokens.vocabulary import IMAGE_PLACEHOLDER

Style: TypeAlias = Literal["robot_action", "robot_depth", "robot_depth_action"]

QUESTIONS: dict[Style, str] = {
    "robot_action": "what action should the robot take to complete the task?",
    "robot_depth": "what is the depth map of the main image?",
    "robot_depth_action": "first predict the depth map of the main image and then predict the action the robot "
    "should take to complete the task?",
}
TRIGGERS: dict[Style, str] = {
    "robot_action": "<action_output>",
    "robot_depth": "<depth_output>",
    "robot_depth_action": "<depth_output><action_output>",
}
"""What each style's prompt ends with: it asks for the answer that follows."""

SURROUNDING = "\"'`“”‘’[](){}"  # noqa: RUF001 (typographic quotes are meant)
CLOSERS = "\"'”’)]}"  # noqa: RUF001
PUNCTUATION = ".,!?;:…"
PREFIXES = (
    re.compile(r"^(task|instruction|language[_ ]instruction|goal)\s*[:\-]\s*", re.IGNORECASE),
    re.compile(r"^(the task is to|your task is to)\s+", re.IGNORECASE),
)
SENTENCE_ENDS = re.compile(r"[.!?]+")


def normalize_language(text: str) -> str:
    """Return an instruction as it stands in a prompt: bare, lower-case, sentences joined by "; ".

    >>> normalize_language('Task: "Put the bowl on the plate."')
    'put the bowl on the plate'
    """
    text = " ".join(text.split())
    while (shorter := strip_once(text)) != text:
        text = shorter
    sentences = [sentence.strip() for sentence in SENTENCE_ENDS.split(text) if sentence.strip()]
    return ("; ".join(sentences) if len(sentences) > 1 else text).lower()


def strip_once(text: str) -> str:
    """Remove one layer of quotes, prefixes and closing punctuation."""
    text = text.strip().strip(SURROUNDING).strip()
    for prefix in PREFIXES:
        text = prefix.sub("", text)
    for characters in (PUNCTUATION, CLOSERS, PUNCTUATION):
        text = text.rstrip(characters).rstrip()
    return text


def wrap(text: str, name: str) -> str:
    """Put `<name_start>` and `<name_end>` around a text that is not empty and has none yet."""
    return text if not text or text.startswith(f"<{name}_start>") else f"<{name}_start>{text}<{name}_end>"


def robot_question(*, task: str, setup: str, control_mode: str, state: str, style: Style) -> str:
    """The user's turn. `state` is the written state span, or empty where the checkpoint has no state tokens."""
    state_clause = f" The current state of the robot is {state}." if state else ""
    return (
        f"The task is to {task}. The setup is {setup}.{state_clause} The expected control mode is {control_mode}. "
        f"Given these, {QUESTIONS[style]}"
    )


def image_prefix(num_images: int) -> str:
    """One placeholder per image; several images are numbered."""
    if num_images == 1:
        return IMAGE_PLACEHOLDER
    return "".join(f"Image {number}{IMAGE_PLACEHOLDER}" for number in range(1, num_images + 1))


def video_prefix(times_s: Sequence[float]) -> str:
    """One placeholder per frame, after the time at which it was taken."""
    return " ".join(f"{time_s:.1f} {IMAGE_PLACEHOLDER}" for time_s in times_s)


def chat(question: str, *, prefix: str = "", trigger: str = "") -> str:
    """One turn of the user and the beginning of the answer."""
    return f"{prefix}<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n{trigger}"
