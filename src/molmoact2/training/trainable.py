"""What trains: which parts of the network learn, in full, through low-rank adapters, or not at all.

| part       | parameters                                     | may be                        |
|------------|------------------------------------------------|-------------------------------|
| vision     | `vision.*`                                     | full, lora, freeze            |
| connector  | `connector.*`, embeddings of the image tokens  | full, lora, freeze            |
| decoder    | `text.blocks.*`                                | full, lora, freeze            |
| embeddings | `text.embedding`                               | all, added, freeze            |
| head       | `lm_head.*`, `text.norm.*`                     | full, added, lora, freeze     |
| expert     | `action_expert.*`, `depth_gate.*`              | full, freeze                  |

Facts: training.md A.3, F.6; paper section 4. The reference restricts gradients to the added rows with a hook that is
lost when FSDP2 replaces the parameters (training.md L.8); here it is a step between backward pass and clipping.
"""

import re
from dataclasses import dataclass, fields
from typing import Literal

import torch
from jaxtyping import Bool
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from molmoact2.model.molmoact2 import MolmoAct2
from molmoact2.registry import unknown
from molmoact2.tokens.reading import require
from molmoact2.tokens.vocabulary import Vocabulary
from molmoact2.training.lora import LoraConfig, inject, merged

PARTS = {
    "vision.": "vision",
    "connector.": "connector",
    "text.new_embedding": "connector",
    "text.blocks.": "decoder",
    "text.embedding": "embeddings",
    "text.norm.": "head",
    "lm_head.": "head",
    "action_expert.": "expert",
    "depth_gate.": "expert",
}
"""How a parameter's name begins -> the part it belongs to."""

ROBOT_TOKEN = re.compile(r"<(setup|control|state|action|depth)_(start|end|output|\d+)>")
"""The tokens that a robot policy adds to its language model (training.md A.1)."""

TABLES = {"embeddings": "text.embedding", "head": "lm_head.weight"}
"""Part with one row per token -> the parameter."""


@dataclass(frozen=True, kw_only=True)
class TrainableConfig:
    """What each part of the network does while it trains."""

    vision: Literal["full", "lora", "freeze"] = "full"
    connector: Literal["full", "lora", "freeze"] = "full"
    """With the embeddings of the image tokens, which learn in "full" only."""
    decoder: Literal["full", "lora", "freeze"] = "full"
    expert: Literal["full", "freeze"] = "full"
    """With the depth gate."""
    embeddings: Literal["all", "added", "freeze"] = "all"
    """added: only the rows of robot tokens."""
    head: Literal["full", "added", "lora", "freeze"] = "full"
    """Language head and final norm. added: only the rows of robot tokens, and no norm; lora: no norm."""
    lora_rank: int = 64
    lora_alpha: int = 16
    """An adapter's output is multiplied by alpha / rank."""
    lora_dropout: float = 0.05

    def __post_init__(self) -> None:
        require(self.lora_rank >= 1 and self.lora_alpha >= 1, "lora_rank and lora_alpha must be at least 1, got "
                f"{self.lora_rank} and {self.lora_alpha}.")  # fmt: skip
        require(0 <= self.lora_dropout < 1, f"lora_dropout must be in [0, 1), got {self.lora_dropout}.")
        modes = {vars(self)[part] for part in set(PARTS.values())}
        require(
            modes != {"freeze"}, f"Every part is frozen: nothing would train. Parts: {sorted(set(PARTS.values()))}."
        )

    @property
    def lora(self) -> LoraConfig:
        """Size of the adapters."""
        return LoraConfig(rank=self.lora_rank, alpha=self.lora_alpha, dropout=self.lora_dropout)

    def mode(self, name: str) -> str:
        """What the part that holds the parameter `name` does."""
        return vars(self)[part_of(name)]

    def trains(self, name: str) -> bool:
        """Whether a parameter of the plain network learns, in some rows at least."""
        return self.mode(name) in ("full", "all") or (self.mode(name) == "added" and name in TABLES.values())


PRESETS = {
    "full": TrainableConfig(),
    "post-training": TrainableConfig(embeddings="added"),
    "fine-tuning": TrainableConfig(embeddings="freeze"),
    "lora": TrainableConfig(vision="lora", connector="lora", decoder="lora", embeddings="freeze", head="lora"),
    "expert": TrainableConfig(
        vision="freeze", connector="freeze", decoder="freeze", embeddings="freeze", head="freeze"
    ),
}
"""Names for what is usual. post-training: also pre-training, where the added tokens are new; fine-tuning: to one
embodiment, its tokens known; lora: adapters in all matrices, and the expert in full (training.md F.6)."""


def find_trainable(name: str) -> TrainableConfig:
    """The preset of that name; ValueError if there is none."""
    if name not in PRESETS:
        raise unknown("choice of what trains", name, PRESETS)
    return PRESETS[name]


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A network whose parameters know whether they learn."""

    model: MolmoAct2
    config: TrainableConfig
    restricted: tuple[str, ...]
    """Parameters of which some rows only may change. They must not decay: decay moves rows that have no gradient."""
    added_rows: Bool[Tensor, "v"] | None
    """True on the rows that may; None where nothing is restricted."""

    def merged(self) -> MolmoAct2:
        """The plain network with adapters folded in; shares what has none."""
        return merged(self.model, self.config.lora)

    def keep_added_rows(self) -> None:
        """Forget the gradient of all other rows. Call it after the backward pass and before clipping."""
        for name in self.restricted:
            assert self.added_rows is not None
            keep_rows(self.model.get_parameter(name), self.added_rows)


def prepare(
    model: MolmoAct2,
    config: TrainableConfig,
    *,
    added_rows: Bool[Tensor, "v"] | None = None,
    frozen_dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> Prepared:
    """Make the parts of `model` learn as `config` says, in place; before FSDP2 shards it, before an optimiser is made.

    Learning parameters become float32. Frozen matrices become `frozen_dtype`, but for those of expert and depth gate,
    some of which compute in float32. Adapters are drawn from `seed`, the same on every rank.

    Raises:
        ValueError: `added_rows` is missing or does not fit, the network has adapters already, the tables are tied and
            not treated alike, or peft is not installed.
    """
    restricted = tuple(table for part, table in TABLES.items() if vars(config)[part] == "added")
    check_tables(model, config, restricted, added_rows)
    targets = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and config.mode(f"{name}.") == "lora"
    ]
    plain = {name: config.trains(name) for name, _ in model.named_parameters()}
    inject(model, targets, config.lora, seed=seed)
    trained = {name: plain.get(name, "lora_" in name) for name, _ in model.named_parameters()}
    for name, parameter in model.named_parameters():
        keeps = trained[name] or parameter.dim() != 2 or part_of(name) == "expert"
        parameter.data = parameter.data.to(torch.float32 if keeps else frozen_dtype)
        parameter.requires_grad_(trained[name])
    require(any(trained.values()), "Nothing would train: the parts that are not frozen are none of this network's.")
    return Prepared(model=model, config=config, restricted=restricted, added_rows=added_rows)


def check_tables(
    model: MolmoAct2, config: TrainableConfig, restricted: tuple[str, ...], added_rows: Tensor | None
) -> None:
    """ValueError unless the tables of tokens can be treated as `config` asks."""
    text = model.config.text_config
    advice = "Make it with added_rows(vocabulary, vocab_size) from the checkpoint's tokenizer."
    if restricted:
        require(added_rows is not None, f"Only added rows of {', '.join(restricted)} learn: say which. {advice}")
        assert added_rows is not None
        require(added_rows.shape == (text.vocab_size,), f"added_rows must have one entry for each of {text.vocab_size} "
                f"tokens, got shape {list(added_rows.shape)}. {advice}")  # fmt: skip
        require(bool(added_rows.any()), "No row is marked in added_rows: this checkpoint has no robot tokens.")
    alike = config.embeddings == config.head or (config.embeddings, config.head) == ("all", "full")
    require(
        alike or not text.tie_word_embeddings,
        "Embeddings and head of this checkpoint are one table (tie_word_embeddings), which cannot be "
        f"{config.embeddings!r} as embeddings and {config.head!r} as head.",
    )


def part_of(name: str) -> str:
    """The part that a parameter belongs to, by its name."""
    return next(part for beginning, part in PARTS.items() if name.startswith(beginning))


def parts() -> tuple[str, ...]:
    """The parts, in the order of `TrainableConfig`."""
    known = set(PARTS.values())
    return tuple(field.name for field in fields(TrainableConfig) if field.name in known)


def added_rows(vocabulary: Vocabulary, vocab_size: int) -> Bool[Tensor, "v"]:
    """True on the ids of the tokens that robots read and say, by their strings; `vocab_size` rows."""
    added = vocabulary.tokenizer.get_added_tokens_decoder()
    rows = torch.zeros(vocab_size, dtype=torch.bool)
    rows[[number for number, token in added.items() if ROBOT_TOKEN.fullmatch(token.content)]] = True
    return rows


@torch.no_grad()
def keep_rows(parameter: nn.Parameter, rows: Bool[Tensor, "v"]) -> None:
    """Set the gradient to zero in the rows that are not marked; whole parameters and ones sharded by rows alike.

    A sharded gradient is cut where it is: each rank takes its own piece of `rows`, and nothing is sent.
    """
    gradient = parameter.grad
    if gradient is None:
        return
    others = ~rows.to(gradient.device)[:, None]
    if isinstance(gradient, DTensor):
        mesh, placements = gradient.device_mesh, gradient.placements
        others = distribute_tensor(others, mesh, placements, src_data_rank=None).to_local()
        gradient = gradient.to_local()
    gradient.masked_fill_(others, 0.0)
