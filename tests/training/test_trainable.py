"""What trains and what does not, by gradients and by what a step moves, whole and sharded over processes."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.multiprocessing.spawn import spawn

from molmoact2.model.config import ModelConfig
from molmoact2.model.inputs import ModelInputs
from molmoact2.model.losses import flow_loss
from molmoact2.model.molmoact2 import MolmoAct2
from molmoact2.testing import TINY, made_up_statistics, random_model, vary
from molmoact2.tokens.vocabulary import Vocabulary
from molmoact2.training.fresh import add_robot_tokens, make_processor, train_tokenizer
from molmoact2.training.lora import adapters
from molmoact2.training.trainable import (
    PRESETS,
    Prepared,
    TrainableConfig,
    added_rows,
    find_trainable,
    part_of,
    parts,
    prepare,
)

FROZEN = PRESETS["expert"]
SMALL_LORA = replace(PRESETS["lora"], lora_rank=4, lora_alpha=8, lora_dropout=0.0)


def make_vocabulary() -> tuple[ModelConfig, Vocabulary]:
    from molmoact2.embodiments import SO101_TABLETOP

    tokenizer = train_tokenizer(["pick up the cube"], num_merges=8)
    config = add_robot_tokens(tokenizer, vary(TINY, {"num_state_tokens": 8, "num_action_tokens": 8}))
    tags = {SO101_TABLETOP.tag: made_up_statistics(SO101_TABLETOP)}
    return config, make_processor(config, tokenizer, tags).vocabulary


CONFIG, VOCABULARY = make_vocabulary()
ROWS = added_rows(VOCABULARY, CONFIG.text_config.vocab_size)


def make(config: TrainableConfig, **changes) -> Prepared:
    model = random_model(replace(CONFIG, **changes), seed=0)
    return prepare(model, config, added_rows=ROWS)


def made_up_inputs(config: ModelConfig = CONFIG) -> ModelInputs:
    """Two prompts of one image of four tokens each, and every kind of token."""
    generator = torch.Generator().manual_seed(0)
    token_ids = torch.randint(0, config.text_config.vocab_size, (2, 40), generator=generator)
    token_ids[:, 4:20] = ROWS.nonzero()[:16, 0]
    token_ids[:, :4] = config.image_patch_id
    image_mask = torch.zeros(2, 40, dtype=torch.bool)
    image_mask[:, :4] = True
    windows = torch.arange(16).view(2, 2, 2, 2).transpose(1, 2).reshape(4, 4)
    return ModelInputs(
        token_ids=token_ids,
        image_mask=image_mask,
        valid=torch.ones(2, 40, dtype=torch.bool),
        crops=torch.rand(2, 16, 14 * 14 * 3, generator=generator) * 2 - 1,
        pooling=torch.cat((windows, windows + 16)),
    )


def loss_of(model: MolmoAct2, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Language and flow loss of made-up inputs."""
    inputs, generator = made_up_inputs(), torch.Generator().manual_seed(1)
    encoding = model.read(inputs, model.image_features(inputs, (4, 4), dtype))
    logits = model.logits(encoding.hidden[:, :-1])
    words = F.cross_entropy(logits.flatten(0, 1), inputs.token_ids[:, 1:].clamp(max=logits.shape[-1] - 1).flatten())
    context = model.expert_context(encoding.layers, inputs.token_ids, inputs.valid)
    x_t, target = torch.randn(2, 2, 3, 5, CONFIG.max_action_dim, generator=generator)
    valid, t = torch.ones(2, 5, dtype=torch.bool), torch.rand(2, 3, generator=generator)
    assert model.action_expert is not None
    velocity = model.action_expert.velocity(x_t, model.modulation(t, dtype), context, valid)
    return words + flow_loss(velocity, target, valid, torch.tensor([6, 6]))


def step(prepared: Prepared, dtype: torch.dtype = torch.float32) -> None:
    """One step of AdamW, as the trainer makes it."""
    learning = [p for p in prepared.model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=0.1, weight_decay=0.0)
    for _ in range(2):
        optimizer.zero_grad()
        loss_of(prepared.model, dtype).backward()
        prepared.keep_added_rows()
        nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()


def moved_parts(prepared: Prepared) -> dict[str, set[bool]]:
    """Part -> whether its parameters moved from where they began."""
    before = random_model(CONFIG, seed=0)
    moved: dict[str, set[bool]] = {}
    for name, parameter in prepared.merged().named_parameters():
        moved.setdefault(part_of(name), set()).add(not torch.equal(parameter, before.get_parameter(name)))
    return moved


def test_every_parameter_of_every_network_belongs_to_one_part():
    gated = MolmoAct2(vary(CONFIG, {"action_expert_depth_gate": True}))
    assert {part_of(name) for name, _ in gated.named_parameters()} == set(parts())


@pytest.mark.parametrize(
    ("preset", "learning"),
    [
        ("full", set(parts())),
        ("post-training", set(parts())),
        ("fine-tuning", set(parts()) - {"embeddings"}),
        ("expert", {"expert"}),
    ],
)
def test_presets_move_their_parts_and_leave_the_others_bit_for_bit(preset: str, learning: set[str]):
    prepared = make(find_trainable(preset))
    step(prepared)
    assert {part: True in moved for part, moved in moved_parts(prepared).items()} == {
        part: part in learning for part in parts()
    }
    assert all(moved == {False} for part, moved in moved_parts(prepared).items() if part not in learning)


@pytest.mark.parametrize("part", parts())
def test_one_part_alone_has_gradients_everywhere_and_the_others_none(part: str):
    mode = "all" if part == "embeddings" else "full"
    prepared = make(replace(FROZEN, expert="freeze", **{part: mode}) if part != "expert" else FROZEN)
    loss_of(prepared.model).backward()
    has_gradient = {name: p.grad is not None for name, p in prepared.model.named_parameters()}
    assert has_gradient == {name: part_of(name) == part for name in has_gradient}


def test_image_tokens_learn_with_the_connector():
    prepared = make(replace(FROZEN, expert="freeze", connector="full"))
    assert prepared.model.text.new_embedding.requires_grad
    assert not prepared.model.text.embedding.requires_grad


def test_a_frozen_trunk_records_nothing_for_the_backward_pass():
    prepared = make(FROZEN)
    inputs = made_up_inputs()
    encoding = prepared.model.read(inputs, prepared.model.image_features(inputs, (4, 4)))
    assert not encoding.hidden.requires_grad
    assert not any(tensor.requires_grad for layer in encoding.layers for tensor in layer)


@pytest.mark.parametrize(("part", "table"), [("embeddings", "text.embedding"), ("head", "lm_head.weight")])
def test_added_moves_the_rows_of_robot_tokens_and_no_other(part: str, table: str):
    prepared = make(replace(FROZEN, expert="freeze", **{part: "added"}))
    assert prepared.restricted == (table,)
    step(prepared)
    moved = (prepared.model.get_parameter(table) != random_model(CONFIG, seed=0).get_parameter(table)).any(dim=1)
    used = torch.zeros_like(ROWS)
    used[made_up_inputs().token_ids[made_up_inputs().token_ids < len(used)]] = True
    assert not moved[~ROWS].any()
    assert moved[ROWS & used].all()


def test_without_the_rule_the_other_rows_would_move():
    prepared = make(replace(FROZEN, expert="freeze", embeddings="all"))
    step(prepared)
    moved = (prepared.model.text.embedding != random_model(CONFIG, seed=0).text.embedding).any(dim=1)
    assert moved[~ROWS].any()


def test_gradients_that_are_not_finite_are_forgotten_too():
    prepared = make(replace(FROZEN, embeddings="added"))
    prepared.model.text.embedding.grad = torch.full_like(prepared.model.text.embedding, float("nan"))
    prepared.keep_added_rows()
    gradient = prepared.model.text.embedding.grad
    assert (gradient[~ROWS] == 0).all()
    assert gradient[ROWS].isnan().all()


def test_added_rows_are_the_tokens_of_robots_by_name():
    words = [VOCABULARY.tokenizer.id_to_token(number) for number in ROWS.nonzero()[:, 0].tolist()]
    numbered = [f"<{family}_{i}>" for family, n in (("state", 8), ("action", 8), ("depth", 32)) for i in range(n)]
    ends = [
        f"<{family}_{end}>" for family in ("setup", "control", "state", "action", "depth") for end in ("start", "end")
    ]
    assert sorted(words) == sorted([*numbered, *ends, "<action_output>", "<depth_output>"])


def test_what_learns_is_float32_and_frozen_matrices_may_be_bfloat16():
    prepared = prepare(random_model(CONFIG, 0).bfloat16(), SMALL_LORA, frozen_dtype=torch.bfloat16)
    for name, parameter in prepared.model.named_parameters():
        narrow = not parameter.requires_grad and parameter.dim() == 2
        assert parameter.dtype == (torch.bfloat16 if narrow else torch.float32), name


def test_frozen_matrices_in_bfloat16_change_nothing_that_is_computed_in_bfloat16():
    wide, narrow = make(FROZEN), prepare(random_model(CONFIG, 0), FROZEN, frozen_dtype=torch.bfloat16)
    assert torch.equal(loss_of(wide.model, torch.bfloat16), loss_of(narrow.model, torch.bfloat16))


@pytest.mark.parametrize(
    ("config", "changes", "message"),
    [
        ({"embeddings": "added"}, {}, "say which"),
        ({"embeddings": "added"}, {"added_rows": torch.ones(3, dtype=torch.bool)}, "one entry for each"),
        ({"embeddings": "added"}, {"added_rows": torch.zeros_like(ROWS)}, "no robot tokens"),
    ],
)
def test_rows_that_do_not_fit_are_refused(config: dict, changes: dict, message: str):
    with pytest.raises(ValueError, match=message):
        prepare(random_model(CONFIG, 0), TrainableConfig(**config), **changes)


def test_contradictions_are_refused_before_there_is_a_network():
    with pytest.raises(ValueError, match="nothing would train"):
        replace(FROZEN, expert="freeze")
    with pytest.raises(ValueError, match="lora_rank"):
        TrainableConfig(lora_rank=0)
    with pytest.raises(ValueError, match="lora_dropout"):
        TrainableConfig(lora_dropout=1.0)
    with pytest.raises(ValueError, match="Did you mean 'expert'"):
        find_trainable("experts")


def test_an_expert_that_is_not_there_cannot_be_all_that_trains():
    with pytest.raises(ValueError, match="none of this network"):
        prepare(MolmoAct2(vary(CONFIG, {"add_action_expert": False, "action_expert_config": None})), FROZEN)


def test_tied_tables_are_treated_alike_or_refused():
    tied = vary(CONFIG, {"text_config": {"tie_word_embeddings": True}})
    with pytest.raises(ValueError, match="one table"):
        prepare(MolmoAct2(tied), find_trainable("fine-tuning"))
    prepared = prepare(MolmoAct2(tied), find_trainable("full"))
    assert prepared.model.lm_head.weight is prepared.model.text.embedding


class Losing(nn.Module):
    """A network whose forward pass is its loss, so that FSDP2 can gather it."""

    def __init__(self, model: MolmoAct2) -> None:
        super().__init__()
        self.model = model

    def forward(self) -> torch.Tensor:
        return loss_of(self.model)


def sharded_gradients(rank: int, num_ranks: int, folder: str) -> None:
    """One of `num_ranks` processes: gradients of the restricted tables under FSDP2, saved whole."""
    torch.set_num_threads(1)
    rendezvous = f"file://{folder}/rendezvous"
    torch.distributed.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=num_ranks)
    prepared = make(replace(FROZEN, embeddings="added", head="added"))
    losing = fully_shard(Losing(prepared.model), mesh=init_device_mesh("cpu", (num_ranks,)))
    losing().backward()
    prepared.keep_added_rows()
    whole = {}
    for name in prepared.restricted:
        gradient = prepared.model.get_parameter(name).grad
        assert isinstance(gradient, DTensor)
        assert gradient.to_local().shape[0] < len(ROWS)
        whole[name] = gradient.full_tensor()
    torch.save(whole, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_added_rows_hold_when_fsdp_has_sharded_the_gradient(tmp_path):
    num_ranks = 2
    assert len(ROWS) % num_ranks, "the processes have unequal shares of the rows"
    spawn(sharded_gradients, (num_ranks, str(tmp_path)), nprocs=num_ranks)
    prepared = make(replace(FROZEN, embeddings="added", head="added"))
    loss_of(prepared.model).backward()
    prepared.keep_added_rows()
    for rank in range(num_ranks):
        for name, gradient in torch.load(tmp_path / f"{rank}.pt").items():
            torch.testing.assert_close(gradient, prepared.model.get_parameter(name).grad)
            assert (gradient[~ROWS] == 0).all()
            assert (gradient[ROWS] != 0).any()


def test_lora_leaves_the_base_alone_and_moves_the_adapters():
    prepared, before = make(SMALL_LORA), random_model(CONFIG, seed=0)
    step(prepared)
    for name, parameter in prepared.model.named_parameters():
        plain = name.replace(".base_layer.", ".")
        if name not in adapters(prepared.model) and part_of(plain) != "expert":
            assert torch.equal(parameter, before.get_parameter(plain)), name
    assert all(p.requires_grad and p.abs().sum() > 0 for p in adapters(prepared.model).values())
    assert True in moved_parts(prepared)["decoder"]
