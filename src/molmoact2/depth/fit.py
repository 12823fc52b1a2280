"""Fitting a depth codec to levels of depth maps.

The loss is that of training.md G: squared error of the map, and 0.25 of the squared distance between a cell's features
and its vector. The vectors follow the features that fall to them by moving averages. A vector that nothing falls to
for a while is given a new place among the features that are worst served.

Which maps a step sees, and where a vector is put, depend on seed and step alone: a run that was stopped goes on from
its checkpoint as if nothing had happened.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int, UInt8
from safetensors import safe_open
from torch import Tensor

from molmoact2.depth.codec import DepthCodec
from molmoact2.depth.codec_config import CodecConfig
from molmoact2.depth.codec_files import EPSILON, read_tensors, write_tensors
from molmoact2.depth.codec_network import Codebook
from molmoact2.depth.scale import DepthScale, check_depth, levels_of
from molmoact2.tokens.reading import require

LOGGED = ("map_error", "code_error", "perplexity", "codes_used")
"""What is written down of every step: the two parts of the loss, and how evenly its cells used the codebook."""
MAP_ERRORS = {"squared": F.mse_loss, "absolute": F.l1_loss}


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """How a codec is fitted."""

    steps: int = 2000
    batch_size: int = 16
    """Maps per step."""
    learning_rate: float = 1e-3
    """Of Adam: linear warm-up, then down to 0 along a cosine."""
    warmup_steps: int = 50
    map_error: Literal["squared", "absolute"] = "squared"
    """Of the map: squared, as the reference, or absolute, which flickers less and loses small things."""
    commitment: float = 0.25
    """Weight of the distance between features and vectors (the reference's)."""
    decay: float = 0.99
    """Of the moving averages of the vectors (the reference's)."""
    revive_after: int = 20
    """Steps without use after which a vector is given a new place."""
    seed: int = 0

    def __post_init__(self) -> None:
        sizes = {"steps": self.steps, "batch_size": self.batch_size, "revive_after": self.revive_after}
        wrong = {name: size for name, size in sizes.items() if size < 1}
        require(not wrong, f"These must be at least 1 to fit a depth codec: {wrong}.")
        good = self.learning_rate > 0 and self.commitment >= 0 and 0 <= self.decay < 1 and self.warmup_steps >= 0
        require(good, f"Rates and weights to fit a depth codec with must be sensible, got {self}.")


class CodebookAverages:
    """Moving averages from which the vectors of a codebook are made."""

    def __init__(self, codebook: Codebook, settings: FitSettings) -> None:
        num_codes = len(codebook.vectors)
        self.codebook, self.settings = codebook, settings
        self.counts = torch.zeros(num_codes)
        """[k] features that fell to each vector, a moving average."""
        self.sums = torch.zeros_like(codebook.vectors)
        """[k, d] their sum."""
        self.idle = torch.full((num_codes,), settings.revive_after)
        """[k] steps since each vector was used; as if never, so that the first batch gives all their place."""

    def state(self) -> dict[str, Tensor]:
        """What goes on from step to step."""
        return {"counts": self.counts, "sums": self.sums, "idle": self.idle}

    @torch.no_grad()
    def revive(self, features: Float[Tensor, "n d"], generator: torch.Generator) -> int:
        """Put unused vectors onto features drawn by squared distance to the nearest used one; returns how many."""
        is_dead = self.idle >= self.settings.revive_after
        num_dead = int(is_dead.sum())
        fresh = spread(features, self.codebook.vectors[~is_dead], min(num_dead, len(features)), generator)
        places = is_dead.nonzero()[: len(fresh), 0]
        self.codebook.vectors[places] = fresh
        self.sums[places] = fresh
        self.counts[places] = 1
        self.idle[places] = 0
        return num_dead

    @torch.no_grad()
    def update(self, features: Float[Tensor, "n d"], codes: Int[Tensor, " n"]) -> None:
        """Take in the features of one step and the codes that they fell to."""
        decay, size = self.settings.decay, len(self.counts)
        used = torch.bincount(codes, minlength=size)
        self.counts.mul_(decay).add_(used.float(), alpha=1 - decay)
        self.sums.mul_(decay).add_(torch.zeros_like(self.sums).index_add_(0, codes, features), alpha=1 - decay)
        total = self.counts.sum()
        smoothed = (self.counts + EPSILON) / (total + size * EPSILON) * total
        self.codebook.vectors.copy_(self.sums / smoothed[:, None])
        self.idle = torch.where(used > 0, 0, self.idle + 1)


def spread(
    features: Float[Tensor, "n d"], taken: Float[Tensor, "k d"], count: int, generator: torch.Generator
) -> Float[Tensor, "m d"]:
    """`count` features, each drawn by its squared distance to the nearest that is taken, as k-means++ does."""
    far = torch.full((len(features),), torch.inf)
    distances = torch.cdist(features, taken).square().amin(dim=1) if len(taken) else far
    chosen = []
    for _ in range(count):
        weights = torch.where(distances.isinf(), 1.0, distances) + 1e-12
        chosen.append(torch.multinomial(weights, 1, generator=generator))
        distances = torch.minimum(distances, (features - features[chosen[-1]]).square().sum(dim=1))
    return features[torch.cat(chosen)] if chosen else features[:0]


class CodecFit:
    """A codec on its way: network, optimiser, averages and what was logged."""

    def __init__(self, config: CodecConfig, settings: FitSettings, levels: UInt8[np.ndarray, "n h w"]) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(settings.seed)
            self.codec = DepthCodec(config).train()
        self.settings, self.levels = settings, levels
        network = self.codec.network
        self.parameters = dict(network.named_parameters())
        self.optimizer = torch.optim.Adam(self.parameters.values(), lr=settings.learning_rate)
        self.averages = CodebookAverages(network.codebook, settings)
        self.log = torch.zeros(settings.steps, len(LOGGED))
        self.step_index = 0

    def step(self) -> Float32[np.ndarray, " logged"]:
        """Learn from one batch; returns its line of the log."""
        levels = self.levels[drawn(len(self.levels), self.step_index, self.settings)]
        network, settings = self.codec.network, self.settings
        for group in self.optimizer.param_groups:
            group["lr"] = settings.learning_rate * learning_rate_factor(self.step_index, settings)
        maps = self.codec.as_input(levels).contiguous(memory_format=torch.channels_last)
        with torch.autocast(maps.device.type, torch.bfloat16):
            grid = network.encoder(maps)
        grid = grid.float().permute(0, 2, 3, 1)
        features = grid.flatten(0, 2)
        generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + self.step_index)
        self.averages.revive(features.detach(), generator)
        codes = network.codebook.nearest(features.detach())
        vectors = network.codebook(codes)
        code_error = F.mse_loss(features, vectors)
        passed = (features + (vectors - features).detach()).view(grid.shape).permute(0, 3, 1, 2)
        with torch.autocast(maps.device.type, torch.bfloat16):
            decoded = network.decoder(passed)
        map_error = MAP_ERRORS[settings.map_error](decoded.float(), maps)
        self.optimizer.zero_grad(set_to_none=True)
        (map_error + settings.commitment * code_error).backward()
        self.optimizer.step()
        self.averages.update(features.detach(), codes)
        usage = code_usage(codes.numpy(), len(network.codebook.vectors))
        line = torch.tensor([map_error.item(), code_error.item(), usage.perplexity, usage.num_used])
        self.log[self.step_index] = line
        self.step_index += 1
        return line.numpy()

    def save(self, path: Path) -> None:
        """Write everything that the next step needs into one file, whole or not at all."""
        states = {name: self.optimizer.state[parameter] for name, parameter in self.parameters.items()}
        moments = {f"adam.{key}.{name}": value for name, state in states.items() for key, value in state.items()}
        averages = {f"averages.{name}": value for name, value in self.averages.state().items()}
        network = {f"network.{name}": value for name, value in self.codec.network.state_dict().items()}
        notes = {"made_by": json.dumps(self.made_by()), "step": str(self.step_index)}
        write_tensors(path, {**network, **moments, **averages, "log": self.log}, notes)

    def made_by(self) -> dict[str, object]:
        """What a run must have in common with its checkpoint."""
        some = np.linspace(0, len(self.levels) - 1, 16).astype(int)
        data = hashlib.sha256(str(self.levels.shape).encode() + self.levels[some].tobytes()).hexdigest()[:16]
        return {"config": self.codec.config.as_json(), "settings": asdict(self.settings), "data": data}

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint. ValueError when it is damaged or of another run."""
        tensors = read_tensors(path)
        with safe_open(path, "pt") as file:
            notes = file.metadata() or {}
        before = json.loads(notes.get("made_by", "{}"))
        differing = [name for name, value in self.made_by().items() if before.get(name) != value]
        require(
            not differing,
            f"{path} was written by a run with other {' and '.join(differing)}. Use those of that run, or remove it.",
        )
        part = {kind: {name.removeprefix(kind): tensor for name, tensor in tensors.items() if name.startswith(kind)}
                for kind in ("network.", "adam.", "averages.")}  # fmt: skip
        self.codec.network.load_state_dict(part["network."])
        for name, parameter in self.parameters.items():
            self.optimizer.state[parameter] = {
                key: part["adam."][f"{key}.{name}"] for key in ("step", "exp_avg", "exp_avg_sq")
            }
        averages = part["averages."]
        self.averages.counts, self.averages.sums = averages["counts"], averages["sums"]
        self.averages.idle = averages["idle"]
        self.log = tensors["log"]
        self.step_index = int(notes["step"])


def fit_codec(
    config: CodecConfig,
    levels: UInt8[np.ndarray, "n h w"],
    *,
    settings: FitSettings,
    checkpoint: Path | None = None,
    checkpoint_every: int = 200,
    on_step: Callable[[int, Float32[np.ndarray, " logged"]], None] = lambda _step, _line: None,
) -> tuple[DepthCodec, Float32[np.ndarray, "steps logged"]]:
    """Fit a codec to depth maps that are levels already (`levels_of`, `store_levels`); an array or a memory map.

    Goes on from `checkpoint` where that file exists, and writes it now and then. Returns the codec and the log, a line
    per step with the columns `LOGGED`. `on_step` is told the number of steps done and the last line.
    """
    require(len(levels), "There are no depth maps to fit a codec to.")
    fit = CodecFit(config, settings, levels)
    if checkpoint is not None and checkpoint.exists():
        fit.resume(checkpoint)
    while fit.step_index < settings.steps:
        line = fit.step()
        if checkpoint is not None and fit.step_index % checkpoint_every == 0:
            fit.save(checkpoint)
        on_step(fit.step_index, line)
    return fit.codec.eval().requires_grad_(False), fit.log.numpy()


def drawn(num_maps: int, step: int, settings: FitSettings) -> np.ndarray:
    """Which maps a step sees, in order of their place."""
    return np.sort(np.random.default_rng([settings.seed, step]).integers(num_maps, size=settings.batch_size))


def learning_rate_factor(step: int, settings: FitSettings) -> float:
    """Share of the learning rate at a step."""
    warm = min(1.0, (step + 1) / (settings.warmup_steps + 1))
    return warm * 0.5 * (1 + np.cos(np.pi * step / settings.steps))


class CodeUsage(NamedTuple):
    """How evenly codes are used."""

    counts: np.ndarray
    """[k] cells of each code."""
    num_used: int
    """Codes that occur."""
    perplexity: float
    """How many evenly used codes would say as much, 2 to the power of `bits`."""
    bits: float
    """Entropy of one cell's code, without regard to its neighbours."""


def code_usage(codes: Int[np.ndarray, "*n"], num_codes: int) -> CodeUsage:
    """Count codes."""
    counts = np.bincount(codes.ravel(), minlength=num_codes)
    shares = counts[counts > 0] / max(1, counts.sum())
    bits = float(-(shares * np.log2(shares)).sum())
    return CodeUsage(counts, int((counts > 0).sum()), 2**bits, bits)


class Stored(NamedTuple):
    """Depth maps of many episodes as levels in a file."""

    levels: UInt8[np.ndarray, "n h w"]
    """A memory map."""
    limits: Float32[np.ndarray, "n 2"]
    """Depth of the lowest and of the highest level."""
    episodes: list[slice]
    """Where each episode stands."""


def store_levels(episodes: Iterable[Float32[np.ndarray, "n h w"]], scale: DepthScale, path: Path) -> Stored:
    """Turn the depth maps of episodes into levels, in a file, so that they need not fit into memory.

    All must have the same height and width. ValueError for bad maps, which names episode and frame.
    """
    limits: list[np.ndarray] = []
    sizes: list[tuple[int, ...]] = []
    with path.open("wb") as file:
        for depth in _checked(episodes):
            limits.append(scale.limits(depth))
            sizes.append(depth.shape)
            file.write(levels_of(depth, limits[-1]).tobytes())
    require(sizes, "There are no episodes to fit a depth codec to.")
    require(
        len({size[1:] for size in sizes}) == 1,
        f"Depth maps must all have the same size, got {sorted({size[1:] for size in sizes})}. Fit one size at a time.",
    )
    ends = np.cumsum([size[0] for size in sizes])
    places = [slice(int(end) - size[0], int(end)) for end, size in zip(ends, sizes, strict=True)]
    return Stored(np.memmap(path, np.uint8, "r", shape=(int(ends[-1]), *sizes[0][1:])), np.concatenate(limits), places)


def _checked(episodes: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    for index, depth in enumerate(episodes):
        try:
            check_depth(depth)
        except ValueError as error:
            raise ValueError(f"Episode {index}: {error}") from error
        yield depth
