"""Policies on disk: a checkpoint directory or a hub repository, read whole or refused, and written whole or not at all.

Code that lies beside released weights is neither downloaded nor read.
"""

import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from molmoact2.depth.codec import load_codec, save_codec
from molmoact2.inference.policy import MolmoAct2Policy
from molmoact2.model.config import ModelConfig, read_config
from molmoact2.model.weights import load_model, save_model
from molmoact2.processing import Processor
from molmoact2.registry import unknown
from molmoact2.tokens import ActionTokenizer
from molmoact2.tokens.reading import parse_json, require
from molmoact2.tokens.vocabulary import Vocabulary, ids_by_field

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
ACTION_TOKENIZER = "action_tokenizer"
"""Folder of a checkpoint in which we keep its action tokenizer; the releases have it in a repository of its own."""
DEPTH_CODEC = "depth_codec"
"""Folder of a checkpoint in which we keep the codec of its depth maps."""
ASSETS = Path(__file__).parents[1] / "assets"
BUNDLED = ("nano-so101", "nano-think")
"""Policies that are part of the package; `load_policy` takes their names."""
DOWNLOADED = ("*.json", "*.safetensors", "*.jinja", "*.txt")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def load_policy(
    path: str | Path,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype = "float32",
    *,
    revision: str | None = None,
    action_tokenizer: str | Path | ActionTokenizer | None = None,
) -> MolmoAct2Policy:
    """Load a checkpoint of any released kind from a directory, by its id from the Hugging Face hub, or a bundled one.

    `dtype` is float32, bfloat16 or float16. `revision` (branch, tag or commit) is for hub ids: the policy reports the
    commit that it came from as `policy.revision`. `action_tokenizer` reads spoken actions: a directory, a hub id, or
    one that is loaded; by default the folder "action_tokenizer" of the checkpoint, where there is one.

    Raises ValueError, naming file and field, for a checkpoint that is incomplete, malformed or contradictory.
    """
    directory, commit = locate(path, revision)
    compute_dtype = resolve_dtype(dtype)
    require((directory / "config.json").is_file(), f"{directory} has no config.json, so it is no checkpoint.")
    config = read_config(parse_json((directory / "config.json").read_bytes(), "config.json"))
    processor = Processor.load(directory)
    config = with_token_ids(config, processor.vocabulary)
    tokenizer = resolve_action_tokenizer(action_tokenizer, directory)
    model = load_model(directory, config, device=device, dtype=compute_dtype)
    codec = load_codec(directory / DEPTH_CODEC) if (directory / DEPTH_CODEC).is_dir() else None
    return MolmoAct2Policy(
        model=model, processor=processor, action_tokenizer=tokenizer, depth_codec=codec, revision=commit
    )


def with_token_ids(config: ModelConfig, vocabulary: Vocabulary) -> ModelConfig:
    """The config with the ids that it does not say, from the tokenizer; those that it says were checked against it."""
    ids = ids_by_field(vocabulary.tokenizer)
    return replace(config, **{field: token for field, token in ids.items() if vars(config)[field] is None})


def save_policy(policy: MolmoAct2Policy, directory: str | Path, *, notes: Mapping[str, bytes] | None = None) -> None:
    """Write a checkpoint in the released format: the same keys, the small files unchanged.

    It appears whole or not at all; a checkpoint that was there before is replaced only then. `notes` are further files
    that go with it, by name, such as how it was trained; nobody reads them back. ValueError if `directory` holds
    anything else.
    """
    with replacing(Path(directory)) as fresh:
        for name, content in (notes or {}).items():
            (fresh / name).write_bytes(content)
        save_model(policy.model, fresh)
        policy.processor.save(fresh)
        if policy.action_tokenizer is not None:
            (fresh / ACTION_TOKENIZER).mkdir()
            policy.action_tokenizer.save(fresh / ACTION_TOKENIZER)
        if policy.depth_codec is not None:
            save_codec(policy.depth_codec, fresh / DEPTH_CODEC)


@contextmanager
def replacing(directory: Path) -> Iterator[Path]:
    """A fresh folder to write to, which takes the place of `directory` when all went well and vanishes otherwise."""
    is_free = not directory.exists() or not any(directory.iterdir()) or (directory / "config.json").is_file()
    require(is_free, f"{directory} holds something that is not a checkpoint. Choose an empty or a new directory.")
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{directory.name}.", dir=directory.parent) as scratch:
        fresh, old = Path(scratch) / "fresh", Path(scratch) / "old"
        fresh.mkdir()
        yield fresh
        directory.mkdir(exist_ok=True)
        directory.rename(old)
        try:
            fresh.rename(directory)
        except OSError:
            old.rename(directory)
            raise


def locate(path: str | Path, revision: str | None) -> tuple[Path, str | None]:
    """The directory of a checkpoint and, for a hub id, the commit that was downloaded."""
    directory = bundled_policy(str(path)) if str(path) in BUNDLED and not Path(path).is_dir() else Path(path)
    if directory.is_dir():
        require(revision is None, f"A revision is for hub ids, but {path} is a directory here.")
        return directory, None
    require(HUB_ID.fullmatch(str(path)), f"{path} is neither a directory nor a hub id such as 'allenai/MolmoAct2'.")
    try:
        snapshot = Path(snapshot_download(str(path), revision=revision, allow_patterns=list(DOWNLOADED)))
    except (HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise ValueError(
            f"{path} is no directory here, and the hub could not give {path} at {revision or 'its newest revision'}: "
            f"{error}"
        ) from error
    return snapshot, snapshot.name


def bundled_policy(name: str = BUNDLED[0]) -> Path:
    """The folder of a bundled policy; ValueError when this installation lacks it."""
    folder = ASSETS / name
    require(
        (folder / "config.json").is_file(),
        f"This installation has no bundled policy at {folder}. Train one with `molmoact2 train {name}` and give its "
        "folder with --policy, or install a release.",
    )
    return folder


def resolve_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """The dtype of a name."""
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise unknown("dtype", name, DTYPES)
    return DTYPES[name]


def resolve_action_tokenizer(given: str | Path | ActionTokenizer | None, directory: Path) -> ActionTokenizer | None:
    """The action tokenizer that the caller names, else that of the checkpoint, else none."""
    own = directory / ACTION_TOKENIZER
    match given:
        case ActionTokenizer():
            return given
        case None:
            return ActionTokenizer.load(own) if own.is_dir() else None
        case _:
            return ActionTokenizer.load(locate(given, None)[0])
