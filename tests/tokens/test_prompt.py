"""Instructions and prompts, as training wrote them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from golden_cases import CASES, Case
from molmoact2.tokens.prompt import normalize_language, robot_question, strip_once, video_prefix, wrap

TEXT = st.text(alphabet="ab T:.,!?'\"()[] task-instruction\n", max_size=40)


@pytest.mark.parametrize(
    ("raw", "normal"),
    [
        ("Pick up the red cube.", "pick up the red cube"),
        ('Task: "Put the bowl on the plate."', "put the bowl on the plate"),
        ("  fold \t the\n towel ", "fold the towel"),
        ("pick up the red mug. place it in the sink!", "pick up the red mug; place it in the sink"),
        ("Goal - (Your task is to open [the drawer]!)", "open [the drawer"),
        ("LANGUAGE_INSTRUCTION: stack them…", "stack them"),
        ("move it 2.5 cm", "move it 2; 5 cm"),
        ("…!?", ""),
        ("", ""),
    ],
)
def test_normalize_language(raw: str, normal: str):
    assert normalize_language(raw) == normal


@given(TEXT)
def test_no_layer_is_left_to_strip(text: str):
    normal = normalize_language(text)
    if ";" not in normal:  # joining sentences comes after stripping, and may bring a prefix to the front
        assert strip_once(normal) == normal
    assert normal == normal.lower()
    assert "\n" not in normal


@given(TEXT)
def test_a_second_pass_changes_nothing_in_one_sentence(text: str):
    normal = normalize_language(text)
    if ";" not in normal:
        assert normalize_language(normal) == normal


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_recorded_prompts(case: Case):
    encoded = case.processor.encode(case.observation(), case.tag, think=case.thinks)
    assert encoded.prompt == case.record["prompt"]


def test_state_is_left_out_where_there_are_no_state_tokens():
    question = robot_question(task="wave", setup="an arm", control_mode="pose", state="", style="robot_action")
    assert question == (
        "The task is to wave. The setup is an arm. The expected control mode is pose. "
        "Given these, what action should the robot take to complete the task?"
    )


def test_wrapping_is_done_once_and_never_around_nothing():
    assert wrap("arm", "setup") == "<setup_start>arm<setup_end>"
    assert wrap(wrap("arm", "setup"), "setup") == wrap("arm", "setup")
    assert wrap("", "setup") == ""


def test_video_frames_carry_their_time():
    assert video_prefix([0, 0.55]) == "0.0 <|image|> 0.6 <|image|>"
