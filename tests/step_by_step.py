"""Slow twins of what is said: one pass of the network for every token."""

import numpy as np

from molmoact2.inference.decoding import Speech
from molmoact2.tokens.vocabulary import TokenFamily


def think_step_by_step(
    speech: Speech, family: TokenFamily, *, previous: np.ndarray, changed: np.ndarray
) -> tuple[np.ndarray, int]:
    """Say `<depth_start>` and the codes after a prompt, and return the codes and the number of passes.

    Where `changed`, the likeliest depth token is said, elsewhere the previous code; known tokens wait until a decision
    needs them.
    """
    codes, waiting, passes = previous.copy(), [family.start], 0
    for cell in range(len(codes)):
        if changed[cell]:
            speech.say(waiting)
            codes[cell] = int(speech.logits[family.first : family.first + family.count].argmax())
            waiting, passes = [], passes + 1
        waiting.append(family.first + int(codes[cell]))
    speech.say(waiting)
    return codes, passes + 1


def say_restricted(speech: Speech, *, first_id: int, num_ids: int, count: int) -> list[int]:
    """Say exactly `count` tokens, the likeliest of ids [first_id, first_id + num_ids) each."""
    for _ in range(count):
        speech.say([first_id + int(speech.logits[first_id : first_id + num_ids].argmax())])
    return speech.generated[len(speech.generated) - count :]
