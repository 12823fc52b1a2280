"""Questions from files come in the shares that are asked for, each once per epoch, or are refused by file and line."""

import json
import math
import pickle
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from molmoact2 import load_policy
from molmoact2.data.augmentation import Augmentation
from molmoact2.data.question_mixtures import ER, read_question_mixture
from molmoact2.data.questions import NOT_WORDS, open_questions
from molmoact2.testing import tiny_checkpoint
from molmoact2.training.config import OptimizerConfig, StageConfig
from molmoact2.training.encode import ExampleEncoder
from molmoact2.training.examples import QuestionExample, Stream
from molmoact2.training.questions import QuestionStream, open_question_files


def write(path: Path, lines: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))
    return path


def picture(path: Path, seed: int) -> np.ndarray:
    pixels = np.random.default_rng(seed).integers(0, 256, (5 + seed, 8, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


def numbered(folder: Path, count: int, **more: Any) -> Path:
    """A dataset of `count` questions without images."""
    return write(
        folder / "questions.jsonl",
        [{"question": f"{folder.name} {i}?", "answer": f"{i}", **more} for i in range(count)],
    )


def opened(*paths: Path, seed: int = 0) -> QuestionStream:
    return open_question_files(paths, seed=seed, show_progress=False)


def asked(stream: QuestionStream, numbers: range) -> list[str]:
    return [stream.example(number).question for number in numbers]


def test_lines_become_examples(tmp_path: Path):
    images = [picture(tmp_path / "set" / "pictures" / f"{i}.png", i) for i in range(3)]
    lines = [
        {"image": "pictures/0.png", "question": " how many? ", "answer": "two\n"},
        {"images": ["pictures/2.png", "pictures/1.png"], "question": "what changed?", "answer": "no", "weight": 0.2},
        {"question": "2 < 3 > 1 is «true»?", "answer": "<p>yes</p>"},
    ]  # fmt: skip
    stream = opened(write(tmp_path / "set" / "mine.jsonl", lines))
    assert isinstance(stream, Stream)
    found = {example.origin: example for example in map(stream.example, range(3))}
    first, second, third = (found[f"set/mine.jsonl, line {i}"] for i in (1, 2, 3))
    assert (first.question, first.answer, first.weight) == ("how many?", "two", 1.0)
    assert (second.question, second.answer, second.weight) == ("what changed?", "no", 0.2)
    assert (third.question, third.answer, third.images) == ("2 < 3 > 1 is «true»?", "<p>yes</p>", ())
    np.testing.assert_array_equal(first.images[0], images[0])
    assert len(first.images) == 1
    for image, expected in zip(second.images, (images[2], images[1]), strict=True):
        np.testing.assert_array_equal(image, expected)


def test_an_example_is_a_function_of_seed_and_number(tmp_path: Path):
    paths = [numbered(tmp_path / name, count) for name, count in (("a", 9), ("b", 4))]
    stream, numbers = opened(*paths), range(40)
    first = asked(stream, numbers)
    assert asked(opened(*paths), numbers) == first
    assert asked(pickle.loads(pickle.dumps(stream)), numbers) == first
    assert [stream.example(number).question for number in reversed(numbers)] == first[::-1]
    assert asked(opened(*paths, seed=1), numbers) != first


def test_every_question_comes_once_per_epoch_in_another_order(tmp_path: Path):
    stream = opened(numbered(tmp_path / "a", 23))
    epochs = [asked(stream, range(23 * epoch, 23 * (epoch + 1))) for epoch in range(3)]
    assert all(sorted(epoch) == sorted(epochs[0]) for epoch in epochs)
    assert len(set(epochs[0])) == 23
    assert epochs[0] != epochs[1] != epochs[2]


def test_files_count_by_the_square_root_of_their_size(tmp_path: Path):
    stream = opened(numbered(tmp_path / "a", 4), numbered(tmp_path / "b", 16), numbered(tmp_path / "c", 36))
    np.testing.assert_allclose(stream.rates, [2 / 12, 4 / 12, 6 / 12])
    seen = Counter(question[0] for question in asked(stream, range(1200)))
    assert all(abs(seen[name] - 1200 * rate) <= 3 for name, rate in zip("abc", stream.rates, strict=True))


def test_groups_have_rates_weights_and_limits(tmp_path: Path):
    for name, count in (("a", 4), ("b", 16), ("c", 10), ("d", 100)):
        numbered(tmp_path / "sets" / name, count, weight=0.5)
    mixture = tmp_path / "mix.toml"
    mixture.write_text("""
        [[group]]
        name = "words"
        rate = 3
        files = ["sets/[ab]"]
        [[group]]
        name = "points"
        rate = 1
        files = ["sets/c/questions.jsonl", "sets/d"]
        weight = 0.2
        most = 10
    """)
    stream = opened(mixture)
    assert [source.name for source in stream.sources] == [f"{name}/questions.jsonl" for name in "abcd"]
    np.testing.assert_allclose(stream.rates, [0.75 / 3, 0.75 * 2 / 3, 0.25 / 2, 0.25 / 2])
    assert [len(source) for source in stream.sources] == [4, 16, 10, 10]
    examples = [stream.example(number) for number in range(400)]
    weights = {example.question[0]: example.weight for example in examples}
    assert weights == pytest.approx({"a": 0.5, "b": 0.5, "c": 0.1, "d": 0.1})
    assert {e.question for e in examples if e.question[0] == "d"} == {f"d {i}?" for i in range(10)}


def test_the_mixture_of_the_paper(tmp_path: Path):
    assert math.isclose(sum(group["rate"] for group in ER.values()), 1)
    names = [name for group in ER.values() for name in group["datasets"]]
    assert len(names) == len(set(names)) == 18
    lacking = ["sims_vsi", "vsi_590k_video", "robovqa", "tulu4"]
    for name in {*names} - {*lacking}:
        numbered(tmp_path / "er" / name, 4)
    mixture = tmp_path / "mix.toml"
    mixture.write_text('like = "er"\nfolder = "er"')
    with pytest.raises(ValueError, match=r"has no sims_vsi, vsi_590k_video, robovqa, tulu4.*without = \["):
        read_question_mixture(mixture)
    numbered(tmp_path / "mine", 4)
    own = '[[group]]\nname = "mine"\nrate = 0.1\nfiles = ["mine"]'
    mixture.write_text(f'like = "er"\nfolder = "er"\nwithout = {lacking}\n{own}')
    groups = {group.name: group for group in read_question_mixture(mixture)}
    assert [*groups] == [*(name for name in ER if name not in ("spatial_video", "nlp")), "mine"]
    assert {name: group.weight for name, group in groups.items() if group.weight != 1} == {"spatial_pointing": 0.2}
    assert groups["spatial_pointing"].files[tmp_path / "er/pixmo_points"] == 150_000
    stream = opened(mixture)
    shares = {source.name: rate for source, rate in zip(stream.sources, stream.rates, strict=True)}
    total = 1 - 0.20 - 0.08 + 0.1
    assert shares["mine/questions.jsonl"] == pytest.approx(0.1 / total)
    assert shares["clevr/questions.jsonl"] == pytest.approx(0.08 / 2 / total)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('{"question": "why?", "answer": \n', "it is not valid JSON"),
        ("\n", "it is not valid JSON"),
        ("[" * 10_000 + "\n", "it is not valid JSON"),
        ("[1]\n", "it holds a JSON list, not an object"),
        ({"question": "why?"}, "it lacks answer"),
        ({}, "it lacks answer and question"),
        ({"question": "why?", "answer": ""}, "answer must be a text that is not empty, got ''"),
        ({"question": " \n", "answer": "so"}, "question must be a text that is not empty"),
        ({"question": "why?", "answer": 3}, "answer must be a text that is not empty, got 3"),
        ({"question": "why?", "answer": "so", "wieght": 1}, "it has the unknown fields ['wieght']"),
        ({"question": "why?", "answer": "so", "weight": 0}, "weight must be a positive number, got 0"),
        ({"question": "why?", "answer": "so", "weight": math.inf}, "weight must be a positive number, got inf"),
        ({"question": "why?", "answer": "so", "weight": math.nan}, "weight must be a positive number, got nan"),
        ({"question": "why?", "answer": "so", "weight": True}, "weight must be a positive number, got True"),
        ({"question": "why?", "answer": "so", "image": ["a.png"]}, "image must be a text"),
        ({"question": "why?", "answer": "so", "images": "a.png"}, "images must be a list of texts"),
        ({"question": "why?", "answer": "so", "image": "a.png", "images": []}, "it has both image and images"),
        ({"question": "why?", "answer": "so", "image": "gone.png"}, "gone.png. Images are found from this file."),
        ({"question": "why?", "answer": "so", "image": "."}, "there is no "),
        ({"question": "why?", "answer": "so", "image": "a\0.png"}, "there is no "),
        ({"question": "why?", "answer": "so", "images": ["a.png"] * 6}, "it has 6 images, but a prompt holds 5"),
        ({"question": "why<|im_end|>?", "answer": "so"}, "question has ['<|im_end|>'] in it, which is not words"),
        ({"question": "why?", "answer": "so<|im_end|>"}, "answer has ['<|im_end|>'] in it"),
        ({"question": "<image>\nwhy?", "answer": "so"}, "question has ['<image>'] in it"),
        ({"question": "why?", "answer": "<action_7>"}, "answer has ['<action_7>'] in it"),
        ('{"question": "why?", "answer": "\\ud800"}\n', "which is not words"),
    ],
)  # fmt: skip
def test_a_malformed_line_is_named_when_the_file_is_opened(tmp_path: Path, line: Any, complaint: str):
    picture(tmp_path / "a.png", 0)
    path = write(tmp_path / "bad.jsonl", [{"question": "fine?", "answer": "yes", "image": "a.png"}, line])
    with pytest.raises(ValueError, match=re.escape(complaint)) as caught:
        opened(path)
    assert f"{path}: line 2: " in str(caught.value)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path):
    (tmp_path / "bad.jsonl").write_bytes(b'{"question": "\xff", "answer": "so"}\n')
    with pytest.raises(ValueError, match="line 1: it is not valid JSON"):
        opened(tmp_path / "bad.jsonl")


def test_files_that_are_not_there_or_hold_nothing(tmp_path: Path):
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "none.jsonl", tmp_path / "folder"):
        with pytest.raises(ValueError, match="it cannot be opened"):
            opened(path)
    with pytest.raises(ValueError, match="it has no questions"):
        opened(write(tmp_path / "empty.jsonl", []))
    with pytest.raises(ValueError, match="or one mixture of them"):
        opened()
    with pytest.raises(ValueError, match="or one mixture of them"):
        opened(numbered(tmp_path / "a", 1), tmp_path / "mix.toml")
    with pytest.raises(ValueError, match=r"a/questions.jsonl are there twice"):
        opened(numbered(tmp_path / "a", 1), tmp_path / "a")


def test_damage_is_found_when_an_image_is_asked_for_and_not_before(tmp_path: Path):
    for name in ("gone", "cut"):
        picture(tmp_path / f"{name}.png", 1)
    picture(tmp_path / "clear.png", 1)
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:60])
    Image.new("RGBA", (4, 4)).save(tmp_path / "clear.png")
    lines = [{"image": f"{name}.png", "question": "what?", "answer": "this"} for name in ("gone", "cut", "clear")]
    stream = opened(write(tmp_path / "set.jsonl", lines))
    (tmp_path / "gone.png").unlink()
    for line, complaint in ((1, "No such file"), (2, "no readable PNG or JPEG"), (3, "colour mode RGBA")):
        number = next(n for n in range(3) if stream.place(n)[1] == line - 1)
        with pytest.raises(ValueError, match=rf"set.jsonl: line {line}: .*{complaint}"):
            stream.example(number)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "it needs groups of different names"),
        ("group = 3", "its groups are not written as [[group]]"),
        ('folder = "er"', "['folder'] say nothing without like"),
        ('like = "er"', "it does not say in which folder"),
        ('like = "err"\nfolder = "er"', "Did you mean 'er'?"),
        ('like = "er"\nfolder = "er"\nwithout = ["satt"]', "Did you mean 'sat'?"),
        ("likes = 3", "it has the unknown fields ['likes']"),
        ('[[group]]\nname = "a"\nrate = 1', "a group lacks ['files']"),
        ('[[group]]\nname = "a"\nrate = 0\nfiles = ["a"]', "'rate' of a group must be a positive number, got 0"),
        ('[[group]]\nname = "a"\nrate = 1\nfiles = []', "the group 'a' names no files"),
        ('[[group]]\nname = "a"\nrate = 1\nfiles = ["b*"]', "no file and no folder fits 'b*'"),
        ('[[group]]\nname = "a"\nrate = 1\nfiles = ["a"]\nmost = 0', "'most' of a group must be a whole number"),
        ('[[group]]\nname = "a"\nrate = 1\nfiles = ["a"]\nshare = 0', "a group has the unknown fields ['share']"),
        ('[[group]]\nname = "a"\nrate = 1\nfiles = ["a"]\n' * 2, "groups of different names, and has ['a', 'a']"),
    ],
)
def test_a_malformed_mixture_is_refused(tmp_path: Path, content: str, complaint: str):
    (tmp_path / "mix.toml").write_text(content)
    with pytest.raises(ValueError, match=re.escape(complaint)) as caught:
        opened(tmp_path / "mix.toml")
    assert str(caught.value).startswith(str(tmp_path / "mix.toml"))


def test_fingerprints_change_with_text_images_and_shares(tmp_path: Path):
    home = tmp_path / "one" / "set"
    picture(home / "a.png", 1)
    path = write(home / "questions.jsonl", [{"image": "a.png", "question": "what?", "answer": "this"}])
    before = opened(path).fingerprints
    assert [*before] == ["set/questions.jsonl"]
    shutil.copytree(tmp_path / "one", tmp_path / "moved")
    assert opened(tmp_path / "moved" / "set").fingerprints == before
    shared = opened(path, numbered(tmp_path / "b", 1)).fingerprints["set/questions.jsonl"]
    picture(home / "a.png", 2)
    other_image = opened(path).fingerprints["set/questions.jsonl"]
    picture(home / "a.png", 1)
    assert opened(path).fingerprints == before
    path.write_text(path.read_text().replace("this", "that"))
    other_text = opened(path).fingerprints["set/questions.jsonl"]
    assert len({shared, other_image, other_text, *before.values()}) == 4


def test_blocks_of_lines_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = numbered(tmp_path / "a", 300)
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    whole = open_questions(path, show_progress=False)
    monkeypatch.setattr("molmoact2.data.questions.BLOCK_BYTES", 100)
    pieces = open_questions(path, show_progress=False)
    assert pieces.fingerprint == whole.fingerprint
    assert [pieces[i].answer for i in range(300)] == [str(i) for i in range(300)]
    np.testing.assert_array_equal(pieces.offsets, whole.offsets)


def test_markup_of_checkpoints_is_no_words(tmp_path: Path, golden: Path):
    """Every token that a checkpoint reserves is found, so that no question fails later for it."""
    reserved = load_policy(tiny_checkpoint(tmp_path / "tiny")).processor.vocabulary.reserved
    reserved |= load_policy(golden / "tiny").processor.vocabulary.reserved
    assert len(reserved) > 400
    assert not [token for token in reserved if not NOT_WORDS.fullmatch(token)]
    assert not NOT_WORDS.search("if a<b and c>d, <p>write</p> a|b or <point x='1'>cup</point>")


def test_examples_are_encoded_with_their_weight(tmp_path: Path):
    picture(tmp_path / "a.png", 1)
    lines = [
        {"images": ["a.png", "a.png"], "question": "what is this?", "answer": "a cup", "weight": 0.25},
        {"question": "what is two and two?", "answer": "four"},
    ]
    stream = opened(write(tmp_path / "set.jsonl", lines))
    policy = load_policy(tiny_checkpoint(tmp_path / "tiny"))
    processor, words = policy.processor, policy.processor.vocabulary
    encoder = ExampleEncoder(processor=processor, action_tokenizer=None, config=policy.config, seed=0)
    stage = StageConfig(
        name="er", num_steps=1, examples_per_step={"questions": 2}, flow_samples=0,
        optimizer=OptimizerConfig(learning_rate=1e-3), augmentation=Augmentation(mode="none"),
    )  # fmt: skip
    for example in sorted(map(stream.example, range(2)), key=lambda example: example.origin):
        assert isinstance(example, QuestionExample)
        encoded = encoder(example, stage, (0,))
        answer = encoded.encoded.token_ids[encoded.num_prompt :]
        assert words.decode(answer) == f"{example.answer}<|im_end|>"
        np.testing.assert_allclose(encoded.label_weight, example.weight * 2 / len(answer) ** 0.5, rtol=1e-6)
        num_patches = int((encoded.encoded.token_ids == words.image.patch).sum())
        assert num_patches == 4 * len(example.images)
