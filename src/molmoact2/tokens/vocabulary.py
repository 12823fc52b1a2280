"""The tokens of a checkpoint, resolved by their strings and checked against the ids in its config.

Ids differ between releases, so none is written down here: `tokenizer.json` says which id a string has, `config.json`
says which id the network was trained with, and the two must agree. Facts: architecture.md 1 and 4, training.md A.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int
from tokenizers import Tokenizer

from molmoact2.tokens.reading import parse_json, read_field, read_optional, require

END_OF_TURN = "<|im_end|>"
"""Ends every turn; also what the text begins with, since Qwen3 has no token for the beginning."""
IMAGE_PLACEHOLDER = "<|image|>"
MARKUP = re.compile("<.+>")


@dataclass(frozen=True, kw_only=True)
class TokenFamily:
    """Consecutive tokens that stand for the numbers 0 … count-1, and the tokens around a run of them."""

    name: str
    output: int | None
    """Asks for such a run, at the end of a prompt; None for the family that is only read (state)."""
    start: int
    end: int
    first: int
    """Id of the token for 0."""
    count: int

    def span(self, numbers: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n+2"]:
        """Token ids of start, the numbers, end."""
        self.check(numbers, "number")
        return np.concatenate(([self.start], np.asarray(numbers, np.int64) + self.first, [self.end]))

    def numbers(self, token_ids: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """The numbers that token ids of this family stand for; ValueError for an id of another family."""
        numbers = np.asarray(token_ids, np.int64) - self.first
        self.check(numbers, "token")
        return numbers

    def text(self, numbers: Int[np.ndarray, " n"]) -> str:
        """The span as it is written in a prompt."""
        inner = "".join(f"<{self.name}_{number}>" for number in numbers.tolist())
        return f"<{self.name}_start>{inner}<{self.name}_end>"

    def check(self, numbers: np.ndarray, what: str) -> None:
        """ValueError unless all numbers have a token."""
        wrong = numbers[(numbers < 0) | (numbers >= self.count)]
        last = f"<{self.name}_{self.count - 1}>"
        require(
            not wrong.size,
            f"A {self.name} {what} stands for {wrong[:1]}, but this checkpoint has <{self.name}_0> to {last}.",
        )


@dataclass(frozen=True, kw_only=True)
class ImageTokens:
    """Ids of the tokens that lay out images and video frames."""

    start: int
    low_res_start: int
    end: int
    patch: int
    column: int
    low_res: int
    frame_start: int
    frame_end: int
    placeholder: int
    """Stands in a prompt for one whole image; replaced before the network sees it."""

    @property
    def attending_both_ways(self) -> tuple[int, ...]:
        """Ids that count as image tokens in the attention mask."""
        return (
            self.patch,
            self.column,
            self.start,
            self.low_res_start,
            self.frame_start,
            self.end,
            self.frame_end,
            self.low_res,
        )


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """What a checkpoint can read and say."""

    tokenizer: Tokenizer
    end_of_turn: int
    """Also the id at position 0 of every prompt."""
    image: ImageTokens
    state: TokenFamily | None
    action: TokenFamily | None
    depth: TokenFamily | None
    wraps_setup: bool
    """Whether the setup text stands between `<setup_start>` and `<setup_end>`."""
    wraps_control: bool
    """Whether the control mode stands between `<control_start>` and `<control_end>`."""
    reserved: frozenset[str]
    """The tokens that lay out a prompt, such as `<|image|>`; they must not occur in what a user writes."""

    @classmethod
    def read(cls, tokenizer_json: str, config: Mapping[str, Any]) -> "Vocabulary":
        """Resolve the tokens of `tokenizer.json` and check them against the ids of `config.json`.

        Raises ValueError naming token, config id and tokenizer id where the two disagree or a token has no embedding.
        """
        tokenizer = read_tokenizer(tokenizer_json, "tokenizer.json")
        resolve, added_tokens = Resolver(tokenizer, config), tokenizer.get_added_tokens_decoder()
        end_of_turn = resolve.required(END_OF_TURN, "eos_token_id")
        resolve.required(END_OF_TURN, "bos_token_id")
        return cls(
            tokenizer=tokenizer,
            end_of_turn=end_of_turn,
            image=resolve.image_tokens(),
            state=resolve.family("state", has_output=False),
            action=resolve.family("action"),
            depth=resolve.family("depth"),
            wraps_setup=resolve.wrapper("setup"),
            wraps_control=resolve.wrapper("control"),
            reserved=frozenset(filter(MARKUP.fullmatch, (added.content for added in added_tokens.values()))),
        )

    def encode(self, text: str) -> Int[np.ndarray, " s"]:
        """Token ids of `text`, with nothing added."""
        return np.array(self.tokenizer.encode(text, add_special_tokens=False).ids, np.int64)

    def decode(self, token_ids: Int[np.ndarray, " s"]) -> str:
        """The text of token ids, special tokens included."""
        return self.tokenizer.decode(np.asarray(token_ids).tolist(), skip_special_tokens=False)


def read_tokenizer(text: str | bytes, file: str) -> Tokenizer:
    """The tokenizer described by the content of a `tokenizer.json`; ValueError if it is not one."""
    document = parse_json(text, file)
    read_field(document, "model", dict, file)
    return Tokenizer.from_str(text if isinstance(text, str) else text.decode())


def ids_by_field(tokenizer: Tokenizer) -> dict[str, int | None]:
    """The id fields of a config, resolved by token string; None for families that the tokenizer lacks."""
    strings = {
        "bos_token_id": "<|im_end|>",
        "eos_token_id": "<|im_end|>",
        "pad_token_id": "<|endoftext|>",
        "image_start_token_id": "<im_start>",
        "image_end_token_id": "<im_end>",
        "image_patch_id": "<im_patch>",
        "image_col_id": "<im_col>",
        "low_res_image_start_token_id": "<low_res_im_start>",
        "image_low_res_id": "<im_low>",
        "frame_start_token_id": "<frame_start>",
        "frame_end_token_id": "<frame_end>",
    }
    for family in ("state", "action", "depth"):
        strings |= {f"{family}_{end}_token_id": f"<{family}_{end}>" for end in ("start", "end")}
        strings[f"{family}_token_start_id"] = f"<{family}_0>"
    strings |= {f"{family}_output_token_id": f"<{family}_output>" for family in ("action", "depth")}
    return {field: tokenizer.token_to_id(token) for field, token in strings.items()}


class Resolver:
    """Looks tokens up by string and holds them against the config."""

    def __init__(self, tokenizer: Tokenizer, config: Mapping[str, Any]):
        self.tokenizer = tokenizer
        self.config = config
        text_config = read_field(config, "text_config", dict, "config.json")
        self.num_predicted = read_field(text_config, "vocab_size", int, "config.json text_config")
        additional = read_field(text_config, "additional_vocab_size", int, "config.json text_config")
        self.num_embedded = self.num_predicted + additional

    def required(self, token: str, *config_names: str) -> int:
        """Id of `token`, which must have an embedding and agree with every config field that is set."""
        found = self.tokenizer.token_to_id(token)
        advice = "Use the tokenizer the checkpoint came with."
        require(found is not None, f"tokenizer.json has no token {token!r}. {advice}")
        assert found is not None
        for name in config_names:
            declared = read_optional(self.config, name, int, "config.json")
            require(
                declared in (None, found),
                f"Token {token!r} has id {declared} in config.json ({name}) but {found} in tokenizer.json. {advice}",
            )
        too_large = f"Token {token!r} has id {found}, but there are only {self.num_embedded} embeddings."
        require(found < self.num_embedded, too_large)
        return found

    def predicted(self, token: str, *config_names: str) -> int:
        """Like `required`, for a token that the network must also be able to say."""
        found = self.required(token, *config_names)
        too_large = f"Token {token!r} has id {found}, but the network predicts only {self.num_predicted} ids."
        require(found < self.num_predicted, too_large)
        return found

    def wrapper(self, name: str) -> bool:
        """Whether the prompt wraps this text in its start and end tokens."""
        if not read_optional(self.config, f"add_{name}_tokens", bool, "config.json"):
            return False
        self.required(f"<{name}_start>")
        self.required(f"<{name}_end>")
        return True

    def family(self, name: str, *, has_output: bool = True) -> TokenFamily | None:
        """The numbered tokens `<name_0>` …, or None where neither tokenizer nor config has them."""
        declared = read_optional(self.config, f"{name}_token_start_id", int, "config.json")
        if declared is None and self.tokenizer.token_to_id(f"<{name}_start>") is None:
            return None
        count = read_field(self.config, f"num_{name}_tokens", int, "config.json")
        require(count >= 1, f"config.json: num_{name}_tokens must be at least 1, got {count}.")
        first = self.predicted(f"<{name}_0>", f"{name}_token_start_id")
        last = f"<{name}_{count - 1}>"
        require(
            self.predicted(last) == first + count - 1,
            f"Token {last!r} has id {self.tokenizer.token_to_id(last)} in tokenizer.json, but config.json's "
            f"num_{name}_tokens = {count} from id {first} puts it at {first + count - 1}.",
        )
        return TokenFamily(
            name=name,
            output=self.predicted(f"<{name}_output>", f"{name}_output_token_id") if has_output else None,
            start=self.predicted(f"<{name}_start>", f"{name}_start_token_id"),
            end=self.predicted(f"<{name}_end>", f"{name}_end_token_id"),
            first=first,
            count=count,
        )

    def image_tokens(self) -> ImageTokens:
        """The tokens of images and video frames, which every checkpoint has."""
        return ImageTokens(
            start=self.required("<im_start>", "image_start_token_id"),
            low_res_start=self.required("<low_res_im_start>", "low_res_image_start_token_id"),
            end=self.required("<im_end>", "image_end_token_id"),
            patch=self.required("<im_patch>", "image_patch_id", "image_high_res_id"),
            column=self.required("<im_col>", "image_col_id"),
            low_res=self.required("<im_low>", "image_low_res_id"),
            frame_start=self.required("<frame_start>", "frame_start_token_id"),
            frame_end=self.required("<frame_end>", "frame_end_token_id"),
            placeholder=self.required(IMAGE_PLACEHOLDER),
        )
