"""Recipes in a file change what they say and nothing else; what is not a recipe is refused with the field named."""

import re
from dataclasses import fields, replace
from pathlib import Path

import pytest

from molmoact2.data.augmentation import Augmentation
from molmoact2.training.config import LossWeights, OptimizerConfig, StageConfig, TrainConfig
from molmoact2.training.recipe_file import read_recipe
from molmoact2.training.recipes import RECIPES, Recipe, Simulation
from molmoact2.training.trainable import PRESETS, TrainableConfig


def write(tmp_path: Path, content: str) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(content)
    return path


def read(tmp_path: Path, content: str, like: str = "fine-tune") -> Recipe:
    return read_recipe(write(tmp_path, f'like = "{like}"\n{content}'))


@pytest.mark.parametrize("name", RECIPES)
def test_a_file_that_says_nothing_is_what_it_is_like(tmp_path: Path, name: str):
    assert read_recipe(name) is RECIPES[name]
    assert read(tmp_path, "", like=name) == RECIPES[name]


def test_everything_that_is_said_is_changed_and_nothing_else(tmp_path: Path):
    recipe = read(
        tmp_path,
        """
        action_mode = "continuous"
        mixture = "droid"
        [train]
        seed = 7
        dtype = "float32"
        compile = true
        [trainable]
        preset = "lora"
        lora_rank = 32
        [stage]
        num_steps = 2_000
        examples_per_step = {robot = 24, questions = 8}
        residual_dropout = 0
        tokens_per_row = "none"
        [stage.optimizer]
        learning_rate = 5e-5
        betas = [0.9, 0.99]
        [stage.losses]
        flow = 2
        [stage.augmentation]
        mode = "photometric"
        [expert]
        conditioning = "head_kv"
        mlp_ratio = 4
        """,
    )
    plain = RECIPES["fine-tune"]
    stage = plain.train.stages[0]
    changed = replace(
        stage,
        num_steps=2_000,
        examples_per_step={"robot": 24, "questions": 8},
        residual_dropout=0.0,
        tokens_per_row=None,
        optimizer=replace(stage.optimizer, learning_rate=5e-5, betas=(0.9, 0.99)),
        losses=replace(stage.losses, flow=2.0),
        augmentation=replace(stage.augmentation, mode="photometric"),
    )
    train = replace(
        plain.train,
        stages=(changed,),
        trainable=replace(PRESETS["lora"], lora_rank=32),
        seed=7,
        dtype="float32",
        compile=True,
    )
    expert = {"conditioning": "head_kv", "mlp_ratio": 4.0}
    assert recipe == replace(plain, train=train, action_mode="continuous", mixture="droid", expert=expert)
    assert type(recipe.train.stages[0].losses.flow) is float
    assert type(recipe.train.stages[0].optimizer.betas) is tuple
    assert RECIPES["fine-tune"] is plain
    assert plain.expert == {}


def test_stages_are_named_where_there_are_several(tmp_path: Path):
    recipe = read(tmp_path, "[stage.act]\nnum_steps = 5\n[stage.act.losses]\nplace = 0.1", like="nano-so101")
    reason, act = RECIPES["nano-so101"].train.stages
    assert recipe.train.stages == (reason, replace(act, num_steps=5, losses=replace(act.losses, place=0.1)))


def test_sections_start_from_what_is_there(tmp_path: Path):
    known = read(tmp_path, "[simulation]\nnum_scenes = 10", like="nano-so101-quick")
    assert known.simulation == replace(RECIPES["nano-so101-quick"].simulation or Simulation(), num_scenes=10)
    assert read(tmp_path, "[simulation]\nnum_scenes = 10").simulation == Simulation(num_scenes=10)
    assert read(tmp_path, 'simulation = "none"', like="nano-so101").simulation is None
    kept = read(tmp_path, '[trainable]\nhead = "freeze"').train.trainable
    assert kept == replace(PRESETS["fine-tuning"], head="freeze")


def test_a_mixture_file_lies_beside_the_recipe(tmp_path: Path):
    assert read(tmp_path, 'mixture = "robots.toml"').mixture == str(tmp_path / "robots.toml")
    assert read(tmp_path, 'mixture = "none"', like="pretrain").mixture is None
    assert read(tmp_path, "", like="pretrain").mixture == "pre_post_train"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("[stage]\nnum_step = 5", "Unknown field of stage 'num_step'. Did you mean 'num_steps'?"),
        ("[stage.optimiser]\nlearning_rate = 1e-4", "Did you mean 'optimizer'?"),
        ("[stage.optimizer]\nlearningrate = 1e-4", "Unknown field of stage.optimizer 'learningrate'. Did you mean"),
        ("[stages]\nnum_steps = 5", "Unknown field of a recipe 'stages'."),
        ("sead = 3", "Unknown field of a recipe 'sead'"),
        ("[train]\nstages = []", "Unknown field of train 'stages'"),
        ("[trainable]\ndecodr = 'lora'", "Did you mean 'decoder'?"),
        ("[expert]\nhidden = 8", "Unknown field of expert 'hidden'. Did you mean 'hidden_size'?"),
        ('[trainable]\npreset = "Lora"', "Unknown choice of what trains 'Lora'. Did you mean 'lora'?"),
        ("[trainable]\npreset = 3", "trainable.preset must be a text, got 3"),
        ('[stage]\nnum_steps = "many"', "stage.num_steps must be a whole number, got 'many'"),
        ("[stage]\nnum_steps = 5.0", "stage.num_steps must be a whole number, got 5.0"),
        ("[stage]\nnum_steps = true", "stage.num_steps must be a whole number, got True"),
        ("[stage]\nnum_steps = 0", "stage: Stage 'fine-tune': num_steps must be at least 1"),
        ("[stage]\ninsulate = 1", "stage.insulate must be true or false, got 1"),
        ('[stage]\ntokens_per_row = "all"', "stage.tokens_per_row must be a whole number, got 'all'"),
        ("[stage]\nexamples_per_step = 4", "stage.examples_per_step must be a table"),
        ('[stage]\nexamples_per_step = {robot = "4"}', "stage.examples_per_step.robot must be a whole number"),
        ("[stage]\nexamples_per_step = {robot = 0}", "at least one example per step"),
        ("[stage]\noptimizer = 4", "stage.optimizer must be a section, got 4"),
        ("[stage.optimizer]\nlearning_rate = inf", "stage.optimizer.learning_rate must be a finite number"),
        ("[stage.optimizer]\nlearning_rate = nan", "stage.optimizer.learning_rate must be a finite number"),
        ("[stage.optimizer]\nbetas = [0.9]", "stage.optimizer.betas must be a list of 2, got [0.9]"),
        ("[stage.optimizer]\nbetas = 0.9", "stage.optimizer.betas must be a list, got 0.9"),
        ('[stage.optimizer]\nbetas = [0.9, "x"]', "stage.optimizer.betas must be a finite number, got 'x'"),
        ("[stage.augmentation]\ncrop = 2", "stage.augmentation: crop must be above 0"),
        (
            '[stage.augmentation]\nmode = "photo"',
            "Unknown stage.augmentation.mode 'photo'. Did you mean 'photometric'?",
        ),
        ('[train]\ndtype = "float16"', "Unknown train.dtype 'float16'"),
        ('action_mode = "neither"', "Unknown action_mode 'neither'"),
        ("train = 3", "train must be a section [train], got 3"),
        ("mixture = 3", "mixture must be a text, got 3"),
        ('[expert]\nconditioning = "kv"', "Unknown expert.conditioning 'kv'"),
        ("[trainable]\nlora_rank = 0", "trainable: lora_rank and lora_alpha must be at least 1"),
    ],
)
def test_mistakes_name_the_file_and_the_field(tmp_path: Path, content: str, complaint: str):
    with pytest.raises(ValueError, match=re.escape(complaint)) as caught:
        read(tmp_path, content)
    assert str(caught.value).startswith(str(tmp_path / "mine.toml"))


@pytest.mark.parametrize("content", ["[stage]\nnum_steps = 5", "[stage.akt]\nnum_steps = 5", "[stage]\nact = 5"])
def test_a_stage_among_several_must_be_named(tmp_path: Path, content: str):
    with pytest.raises(ValueError, match=r"There are several stages: write \[stage.NAME\].* Known: act, reason"):
        read(tmp_path, content, like="nano-so101")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "must say like = one of er, pretrain"),
        ("like = 3", "must say like"),
        ('like = "fine-tun"', "Did you mean 'fine-tune'?"),
        ("like = ", "not valid TOML"),
    ],
)
def test_a_file_says_what_it_is_like(tmp_path: Path, content: str, complaint: str):
    with pytest.raises(ValueError, match=re.escape(complaint)):
        read_recipe(write(tmp_path, content))


def test_unknown_names_and_missing_files(tmp_path: Path):
    with pytest.raises(ValueError, match=r"Did you mean 'fine-tune'.*\.toml file"):
        read_recipe("finetune")
    with pytest.raises(ValueError, match="the file is missing"):
        read_recipe(tmp_path / "none.toml")


def test_every_field_can_be_said(tmp_path: Path):
    """Each field of each class of a recipe, written as it is, gives the same recipe: no type of field is forgotten."""

    def said(value: object) -> str:
        match value:
            case bool():
                return str(value).lower()
            case None:
                return '"none"'
            case str():
                return f'"{value}"'
            case tuple():
                return f"[{', '.join(map(said, value))}]"
            case dict():
                return "{" + ", ".join(f"{name} = {said(item)}" for name, item in value.items()) + "}"
        return repr(value)

    def section(title: str, value: object, kind: type, *but: str) -> str:
        lines = [f"{field.name} = {said(vars(value)[field.name])}" for field in fields(kind) if field.name not in but]
        return "\n".join([f"[{title}]", *lines])

    plain = RECIPES["post-train"]
    stage = plain.train.stages[0]
    content = [
        f'action_mode = "{plain.action_mode}"\nmixture = "{plain.mixture}"',
        section("train", plain.train, TrainConfig, "stages", "trainable"),
        section("trainable", plain.train.trainable, TrainableConfig),
        section("stage", stage, StageConfig, "optimizer", "losses", "augmentation"),
        section("stage.optimizer", stage.optimizer, OptimizerConfig),
        section("stage.losses", stage.losses, LossWeights),
        section("stage.augmentation", stage.augmentation, Augmentation),
    ]
    assert read(tmp_path, "\n".join(content), like="post-train") == plain
    simulated = read(tmp_path, section("simulation", Simulation(), Simulation), like="nano-so101")
    assert simulated == RECIPES["nano-so101"]
