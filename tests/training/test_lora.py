"""Adapters: no change at first, the dtype of what they are given, folded into a plain network, saved by themselves."""

from dataclasses import replace

import pytest
import torch
from test_trainable import CONFIG, SMALL_LORA, loss_of, made_up_inputs, make, step

from molmoact2.inference import MolmoAct2Policy, load_policy, save_policy
from molmoact2.model.molmoact2 import MolmoAct2
from molmoact2.model.weights import load_model, save_model
from molmoact2.testing import fake_observation, random_model, tiny_checkpoint
from molmoact2.training import lora
from molmoact2.training.lora import adapters, fold, plain_model
from molmoact2.training.trainable import find_trainable, prepare


def trained_adapters():
    """A network whose adapters have moved."""
    prepared = make(SMALL_LORA)
    step(prepared)
    return prepared


def features(model: MolmoAct2, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    inputs = made_up_inputs()
    return model.logits(model.read(inputs, model.image_features(inputs, (4, 4), dtype)).hidden)


def test_adapters_change_nothing_before_they_have_learned():
    assert torch.equal(loss_of(make(SMALL_LORA).model), loss_of(random_model(CONFIG, 0)))


def test_every_matrix_of_the_chosen_towers_has_an_adapter_and_no_other():
    prepared = make(replace(SMALL_LORA, vision="freeze", head="full"))
    adapted = {name.split(".lora_")[0] for name in adapters(prepared.model)}
    matrices = {
        name
        for name, module in MolmoAct2(CONFIG).named_modules()
        if isinstance(module, torch.nn.Linear) and name.startswith(("connector.", "text.blocks."))
    }
    assert adapted == matrices


def test_adapters_of_one_seed_are_the_same_and_leave_the_global_generator_alone():
    models = [random_model(CONFIG, 0) for _ in range(2)]
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first, second = (prepare(model, SMALL_LORA, seed=3) for model in models)
    assert torch.equal(torch.rand(3), expected)
    other = prepare(random_model(CONFIG, 0), SMALL_LORA, seed=4)
    for name, parameter in adapters(first.model).items():
        assert torch.equal(parameter, adapters(second.model)[name])
        assert ".lora_B." in name or not torch.equal(parameter, adapters(other.model)[name])
    spread = torch.cat([p.flatten() for name, p in adapters(first.model).items() if ".lora_A." in name]).std()
    assert float(spread.detach()) == pytest.approx(1 / SMALL_LORA.lora_rank, rel=0.05)


def test_float32_adapters_compute_in_the_dtype_they_are_given():
    model = trained_adapters().model
    layer = model.get_submodule("text.blocks.0.attention.qkv")
    saved: list[torch.dtype] = []
    x = torch.randn(3, 32, dtype=torch.bfloat16)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: saved.append(tensor.dtype) or tensor, lambda t: t):
        out = layer(x)
    assert out.dtype == torch.bfloat16
    assert set(saved) == {torch.bfloat16}
    assert {p.dtype for p in adapters(model).values()} == {torch.float32}


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.02)])
def test_merged_gives_the_same_outputs(dtype: torch.dtype, tolerance: float):
    prepared = trained_adapters()
    adapted, plain = features(prepared.model, dtype), features(prepared.merged(), dtype)
    before = features(random_model(CONFIG, 0), dtype)
    assert (adapted - plain).norm() < tolerance * adapted.norm()
    assert (adapted - before).norm() > 10 * (adapted - plain).norm()


def test_merged_has_the_names_of_a_fresh_network_and_shares_what_has_no_adapter():
    prepared = trained_adapters()
    plain = prepared.merged()
    assert list(plain.state_dict()) == list(MolmoAct2(CONFIG).state_dict())
    assert not any(parameter.requires_grad for parameter in plain.parameters())
    assert plain.text.embedding.data_ptr() == prepared.model.text.embedding.data_ptr()
    before = random_model(CONFIG, 0)
    base = prepared.model.get_parameter("text.blocks.0.mlp.down.base_layer.weight")
    assert torch.equal(base, before.get_parameter("text.blocks.0.mlp.down.weight"))
    assert not torch.equal(plain.get_parameter("text.blocks.0.mlp.down.weight"), base)


def test_folding_is_the_formula():
    prepared, name = trained_adapters(), "vision.blocks.0.mlp.up"
    down, up = (prepared.model.get_parameter(f"{name}.lora_{m}.default.weight").detach() for m in "AB")
    base = random_model(CONFIG, 0).get_parameter(f"{name}.weight").detach()
    expected = base + 8 / 4 * up @ down
    torch.testing.assert_close(prepared.merged().get_parameter(f"{name}.weight").detach(), expected)


def test_folding_into_bfloat16_rounds_nothing_away():
    prepared = prepare(random_model(CONFIG, 0), SMALL_LORA, frozen_dtype=torch.bfloat16)
    tiny = {name: p.data.fill_(1e-4) for name, p in adapters(prepared.model).items()}
    assert tiny
    base = prepared.model.get_parameter("text.blocks.0.mlp.down.base_layer.weight")
    plain = prepared.merged().get_parameter("text.blocks.0.mlp.down.weight")
    assert base.dtype == torch.bfloat16
    assert (plain > base.float()).all()


def test_an_average_of_adapted_parameters_folds_like_the_parameters():
    prepared = trained_adapters()
    average = {name: parameter.detach() * 0.5 for name, parameter in prepared.model.named_parameters()}
    plain = plain_model(CONFIG, fold(average, SMALL_LORA.lora))
    down, up = (average[f"lm_head.lora_{matrix}.default.weight"] for matrix in "AB")
    torch.testing.assert_close(plain.lm_head.weight.detach(), average["lm_head.base_layer.weight"] + 2 * up @ down)


def test_a_plain_network_needs_every_parameter():
    tensors = dict(random_model(CONFIG, 0).named_parameters())
    del tensors["text.norm.weight"]
    with pytest.raises(ValueError, match=r"text\.norm\.weight"):
        plain_model(CONFIG, tensors)


def test_a_network_without_adapters_merges_into_itself():
    prepared = make(find_trainable("fine-tuning"))
    assert torch.equal(loss_of(prepared.merged()), loss_of(random_model(CONFIG, 0)))


def test_merged_is_saved_and_loaded_as_an_ordinary_checkpoint(tmp_path):
    plain = trained_adapters().merged()
    save_model(plain, tmp_path)
    again = load_model(tmp_path, CONFIG)
    assert all(torch.equal(p, again.get_parameter(name)) for name, p in plain.named_parameters())


def test_a_policy_with_adapters_folded_in_acts_and_is_loaded_again(tmp_path):
    policy = load_policy(tiny_checkpoint(tmp_path / "before"))
    prepared = prepare(policy.model, SMALL_LORA)
    for parameter in adapters(prepared.model).values():
        parameter.data.normal_(std=0.05, generator=torch.Generator().manual_seed(0))
    merged = MolmoAct2Policy(model=prepared.merged(), processor=policy.processor)
    save_policy(merged, tmp_path / "after")
    actions = load_policy(tmp_path / "after").act(fake_observation(), seed=0).actions
    assert (actions == merged.act(fake_observation(), seed=0).actions).all()
    assert (actions != load_policy(tmp_path / "before").act(fake_observation(), seed=0).actions).any()


def test_adapters_are_put_in_once():
    with pytest.raises(ValueError, match="adapters already"):
        prepare(make(SMALL_LORA).model, SMALL_LORA)


def test_without_peft_the_user_is_told_what_to_install(monkeypatch):
    def missing(name: str):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(lora.importlib, "import_module", missing)
    with pytest.raises(ValueError, match="molmoact2\\[train\\]"):
        make(SMALL_LORA)
    make(find_trainable("expert"))
