"""The stages of the paper one after the other, by the commands a user gives, on a tiny vision-language model."""

import json
from pathlib import Path

import pytest

from molmoact2.cli.main import main
from molmoact2.inference import load_policy
from molmoact2.testing import fake_observation, tiny_checkpoint

WITHOUT_ROBOTS = {
    "add_action_expert": False,
    "action_expert_config": None,
    "max_action_dim": 0,
    "max_action_horizon": 0,
    "action_mode": "continuous",
    "add_setup_tokens": False,
    "add_control_tokens": False,
    "num_depth_codes": 0,
    **{f"num_{family}_tokens": 0 for family in ("state", "action", "depth")},
}
SMALL = "[train]\nlog_every = 1\nnum_workers = 0\n[stage]\nnum_steps = 2\ntokens_per_row = 400\n"
RECIPES = {
    "er": 'like = "er"\n' + SMALL + "examples_per_step = {questions = 2}\n",
    "pretrain": 'like = "pretrain"\n' + SMALL + "examples_per_step = {robot = 3, questions = 2}\n",
    "post-train": 'like = "post-train"\n' + SMALL + "examples_per_step = {robot = 3, questions = 2}\n"
    "[expert]\nhidden_size = 32\nnum_heads = 4\n",
    "fine-tune": 'like = "fine-tune"\n[trainable]\npreset = "lora"\nlora_rank = 4\n' + SMALL
    + "examples_per_step = {robot = 3}\n",
}  # fmt: skip
QUESTIONS = ({"question": "two and two?", "answer": "four"}, {"question": "red or blue?", "answer": "red"})


@pytest.mark.slow
def test_from_words_to_a_policy_that_flows_and_speaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    tiny_checkpoint("vlm", **WITHOUT_ROBOTS)
    for name, recipe in RECIPES.items():
        Path(f"{name}.toml").write_text(recipe)
    Path("q.jsonl").write_text("".join(json.dumps(question) + "\n" for question in QUESTIONS))
    Path("robots.toml").write_text('[[group]]\nembodiment = "so101_tabletop"\nrate = 1.0\ndatasets = ["cubes"]\n')
    robots, words = ["--mixture", "robots.toml"], ["--questions", "q.jsonl"]
    main(["record", "--output", "cubes", "--tasks", "pick", "--episodes", "2", "--workers", "1"])
    main(["tokenizer", "fit", "--dataset", "cubes", "--output", "tok", "--longest-horizon", "30"])

    main(["train", "er.toml", "--start", "vlm", *words, "--output", "er"])
    spoken = [*robots, *words, "--action-tokenizer", "tok"]
    main(["train", "pretrain.toml", "--start", "er/checkpoint", *spoken, "--output", "pre"])
    assert load_policy("pre/checkpoint").modes == ("discrete",)
    main(["train", "post-train.toml", "--start", "pre/checkpoint", *robots, *words, "--output", "post"])
    main(["train", "fine-tune.toml", "--start", "post/checkpoint", *robots, "--output", "fine"])

    policy = load_policy("fine/checkpoint")
    assert policy.modes == ("continuous", "discrete")
    assert policy.act(fake_observation(), seed=0).actions.shape == (12, 6)
    assert policy.act(fake_observation(), mode="discrete", guided=True).actions.shape == (12, 6)
    history = json.loads(Path("fine/checkpoint/training.json").read_text())
    assert history["start"] == "post/checkpoint"
    assert list(history["data"]) == [f"{tmp_path.name}/cubes"]


def test_a_stage_without_a_start_says_so(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["train", "post-train"])
    assert "--start" in capsys.readouterr().err


def test_a_plan_allocates_nothing_and_says_what_it_takes(capsys: pytest.CaptureFixture[str]):
    main(["train", "fine-tune", "--plan", "--gpus", "8"])
    assert "It fits" in capsys.readouterr().out
