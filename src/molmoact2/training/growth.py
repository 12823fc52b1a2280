"""A vocabulary that grows: robot tokens for a network that has none, or has too few of them.

    before    base tokens | <extra_*>                                         | image tokens
    after     base tokens | setup control state action depth | <extra_*>      | image tokens
              rows kept     rows drawn, or kept if known       rows drawn     | rows kept
                                          one table, with logits              | another, without

Ids of tokens that stand behind others change, and every file follows them. The first table ends at a multiple of 1,024;
`<extra_*>` fill it, because a tokenizer cannot leave ids out. Facts: training.md A.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from molmoact2.model.config import ModelConfig, config_as_json
from molmoact2.model.molmoact2 import MolmoAct2
from molmoact2.processing.processor import Processor
from molmoact2.tokens.reading import parse_json, read_field, require
from molmoact2.tokens.vocabulary import ids_by_field, read_tokenizer
from molmoact2.training.trainable import ROBOT_TOKEN

PAD_MULTIPLE = 1024
PADDING = re.compile(r"<extra_\d+>")
SMALLEST_STD = 0.02
"""Of new rows in a feature in which all base rows are alike."""
TABLES = ("text.embedding", "lm_head.weight")
"""Parameters with one row for each token that can be said."""
PLAIN = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
TOKENIZER, TOKENIZER_SETTINGS, ADDED, GENERATION = (
    "tokenizer.json", "tokenizer_config.json", "added_tokens.json", "generation_config.json"
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Grown:
    """A vocabulary with more tokens, and where the ones that were known have gone."""

    tokenizer_json: str
    added: tuple[Mapping[str, Any], ...]
    """Its added tokens, in the order of their ids, as `tokenizer.json` describes them."""
    vocab_size: int
    """Rows of the first table."""
    old_rows: Int[np.ndarray, " k"]
    """Rows of the old first table that mean something: base tokens, then robot tokens that were known."""
    new_rows: Int[np.ndarray, " k"]
    """Where they go."""
    num_base: int
    """How many of them are of base tokens."""
    moved: Mapping[int, int]
    """Old id -> new id, of the added tokens whose id changes."""


def robot_tokens(*, num_state: int, num_action: int, num_depth: int) -> list[str]:
    """The tokens a robot policy adds to its language model, in their order (training.md A.1, A.2).

    A family of 0 is left out.
    """
    counts = {"state": num_state, "action": num_action, "depth": num_depth}
    require(min(counts.values()) >= 0, f"Numbers of tokens must not be negative, got {counts}.")
    ends = {"state": ("start", "end"), "action": ("output", "start", "end"), "depth": ("output", "start", "end")}
    wrappers = [f"<{name}_{end}>" for name in ("setup", "control") for end in ("start", "end")]
    present = {name: count for name, count in counts.items() if count}
    families = [[f"<{name}_{part}>" for part in (*ends[name], *range(count))] for name, count in present.items()]
    return [*wrappers, *(token for family in families for token in family)]


def grow(
    model: MolmoAct2, processor: Processor, counts: Mapping[str, int], *, seed: int, multiple: int = PAD_MULTIPLE
) -> tuple[MolmoAct2, Processor]:
    """A network and its processor with all robot tokens; rows of those it did not know are drawn from `seed`.

    `counts` are the arguments of `robot_tokens`. All weights but the two tables are shared with `model`. A network that
    knows exactly these tokens is given back as it is.

    Raises:
        ValueError: the network has robot tokens that are not asked for, so that what it learned of them would be lost.
    """
    old, text = model.config, model.config.text_config
    tokenizer_json, tokens = processor.files[TOKENIZER].decode(), robot_tokens(**counts)
    known = filter(ROBOT_TOKEN.fullmatch, processor.vocabulary.tokenizer.get_vocab())
    if {*known} == {*tokens}:
        return model, processor
    grown = grow_vocabulary(tokenizer_json, text.vocab_size, tokens, multiple=multiple)
    ids = ids_by_field(read_tokenizer(grown.tokenizer_json, TOKENIZER))
    config = replace(
        old,
        text_config=replace(text, vocab_size=grown.vocab_size),
        add_setup_tokens=True,
        add_control_tokens=True,
        **{f"{name}_tokens": count for name, count in counts.items()},
        **{**ids, "pad_token_id": with_moved_ids(old.pad_token_id, grown.moved, "pad_token_id")},
    )
    files = {**processor.files, **grown_files(processor.files, grown)}
    fitted = replace(processor, files=files).with_config(config_as_json(config))
    return grow_model(model, config, grown, seed=seed), fitted


def grow_vocabulary(tokenizer_json: str, vocab_size: int, tokens: Sequence[str], *, multiple: int) -> Grown:
    """A `tokenizer.json` with robot tokens behind the base tokens; the old one has `vocab_size` rows with logits.

    Raises:
        ValueError: the tokenizer has robot tokens that are not among `tokens`, or numbers its tokens unlike a release.
    """
    document = parse_json(tokenizer_json, TOKENIZER)
    first = len(read_field(read_field(document, "model", dict, TOKENIZER), "vocab", dict, TOKENIZER))
    added = sorted(read_field(document, "added_tokens", list, TOKENIZER), key=lambda token: token["id"])
    images = [token["content"] for token in added if token["id"] >= vocab_size]
    said = [token["content"] for token in added if first <= token["id"] < vocab_size]
    base = [name for name in said if not ROBOT_TOKEN.fullmatch(name) and not PADDING.fullmatch(name)]
    robot = [name for name in said if ROBOT_TOKEN.fullmatch(name)]
    lost = [name for name in robot if name not in tokens]
    require(
        not lost,
        f"The checkpoint has {len(lost)} robot tokens that are not asked for, such as {lost[:1]}. Ask for at least as "
        "many of each family as it has.",
    )
    size = -(-(vocab_size + len(tokens) - len(robot)) // multiple) * multiple
    padding = [f"<extra_{i}>" for i in range(size - first - len(base) - len(tokens))]
    described = {name: {**PLAIN, "special": False} for name in tokens} | {
        name: {**PLAIN, "special": True} for name in padding
    }
    described |= {token["content"]: token for token in added}
    names = (*base, *tokens, *padding, *images)
    inside = [token for token in added if token["id"] < first]
    placed = [{**described[name], "content": name, "id": number} for number, name in enumerate(names, start=first)]
    content = json.dumps({**document, "added_tokens": [*inside, *placed]}, ensure_ascii=False)
    tokenizer, old = read_tokenizer(content, TOKENIZER), {token["content"]: token["id"] for token in added}
    at = {name: size + old[name] - vocab_size for name in images} | {
        name: number for number, name in enumerate(names, start=first) if name not in images
    }
    wrong = [name for name in names if tokenizer.token_to_id(name) != at[name]]
    require(not wrong, f"{TOKENIZER} numbers {', '.join(wrong[:3])} as no release does, so it cannot grow.")
    known = [*base, *robot]
    return Grown(
        tokenizer_json=content,
        added=(*inside, *placed),
        vocab_size=size,
        old_rows=np.array([*range(first), *(old[name] for name in known)], np.int64),
        new_rows=np.array([*range(first), *(at[name] for name in known)], np.int64),
        num_base=first + len(base),
        moved={old[name]: at[name] for name in old.keys() & at.keys() if old[name] != at[name]},
    )


def grown_files(files: Mapping[str, bytes], grown: Grown) -> dict[str, bytes]:
    """The small files that speak of ids of tokens, for the grown vocabulary; those that `files` has."""
    ids = {token["content"]: token["id"] for token in grown.added}
    decoder = {
        str(token["id"]): {name: value for name, value in token.items() if name != "id"} for token in grown.added
    }
    said = {name: parse_json(files[name], name) for name in files if name.endswith(".json") and name != TOKENIZER}
    new = {name: with_moved_ids(said[name], grown.moved) for name in ("config.json", GENERATION) if name in said}
    new |= {name: ids for name in (ADDED,) if name in said}
    new |= {name: {**said[name], "added_tokens_decoder": decoder} for name in (TOKENIZER_SETTINGS,)
            if "added_tokens_decoder" in said.get(name, {})}  # fmt: skip
    return {TOKENIZER: grown.tokenizer_json.encode()} | {
        name: json.dumps(content, indent=1, ensure_ascii=False).encode() for name, content in new.items()
    }


def with_moved_ids(content: Any, moved: Mapping[int, int], field: str = "") -> Any:
    """JSON in which the fields that hold ids of tokens (`…_id`, `…_ids`) hold the new ones."""
    match content:
        case dict():
            return {name: with_moved_ids(value, moved, name) for name, value in content.items()}
        case list():
            return [with_moved_ids(value, moved, field) for value in content]
        case int() if field.endswith(("_id", "_ids")):
            return moved.get(content, content)
    return content


def grow_model(model: MolmoAct2, config: ModelConfig, grown: Grown, *, seed: int) -> MolmoAct2:
    """The network with larger tables, of the same dtype and on the same device; everything else is shared."""
    parameters, is_tied = dict(model.named_parameters()), config.text_config.tie_word_embeddings
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        larger = MolmoAct2(config)
    for name, parameter in larger.named_parameters():
        parameter.requires_grad_(parameters[name].requires_grad)  # loading makes those it is given like these
    tables = {name: grow_table(parameters[name], grown, generator) for name in TABLES if name in parameters}
    larger.load_state_dict(parameters | tables, strict=not is_tied, assign=True)
    if is_tied:
        larger.lm_head.weight = larger.text.embedding
    return larger.train(model.training)


@torch.no_grad()
def grow_table(table: Float[Tensor, "v d"], grown: Grown, generator: torch.Generator) -> Float[Tensor, "larger d"]:
    """The known rows where they belong now, and between them rows like those of base tokens.

    New rows are normal, each feature with mean and standard deviation of the base rows (training.md A.3).
    """
    old, new = torch.from_numpy(grown.old_rows), torch.from_numpy(grown.new_rows)
    base = table[old[: grown.num_base].to(table.device)].float().cpu()
    std, mean = torch.std_mean(base, dim=0)
    std = torch.where(std > 0, std, SMALLEST_STD)
    rows = mean + std * torch.randn(grown.vocab_size, table.shape[1], generator=generator)
    rows = rows.to(table)
    rows[new.to(table.device)] = table[old.to(table.device)]
    return rows
