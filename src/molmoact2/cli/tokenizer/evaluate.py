"""`molmoact2 tokenizer eval`: how many tokens action tokenizers need, and how far off what comes back is."""

from dataclasses import dataclass
from pathlib import Path

LEAST_WIDTH = 110
"""Characters of a line; numbers that are cut off help nobody."""


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Compare action tokenizers on the action chunks of datasets.

    The yardstick is a token per number: the bin, of 256 between -1 and 1, that it lies in. Errors are those of the
    chunk that a policy would execute, in robot units.
    """

    tokenizer: tuple[Path, ...] = ()
    """Folders of action tokenizers; each is called by its folder's name."""
    mixture: str | None = None
    """Name of a mixture, or a mixture file."""
    dataset: tuple[str, ...] = ()
    """Datasets of one embodiment, instead of a mixture: folders or hub ids."""
    embodiment: str | None = None
    """Tag or card of the robot of --dataset; by default the datasets say it."""
    chunks: int = 10_000
    """Chunks to measure on, shared by the rates of the mixture; at most as many as there are frames."""
    held_out: int = 0
    """Measure on every so-many-th episode only, those that `tokenizer fit --hold-out` left out; 0 measures on all."""
    seed: int = 0
    """Decides which chunks are drawn."""
    output: Path | None = None
    """Write the numbers to this .json file, and a picture beside it under the same name with .png."""

    def run(self) -> None:
        """Measure, print tables, write files."""
        from rich.console import Console
        from rich.progress import track

        from molmoact2.data.chunk_stream import Episodes, choose_mixture, chunk_batches, open_sources
        from molmoact2.data.errors import require
        from molmoact2.evaluation.tokenizers import (
            NUM_BINS,
            Bins,
            comparison_table,
            dimension_table,
            draw_comparison,
            measure_tokenizer,
            write_comparison,
        )
        from molmoact2.tokens import ActionTokenizer

        names = [folder.resolve().name for folder in self.tokenizer]
        require(len(set(names)) == len(names), f"The tokenizers' folders need different names, got {names}.")
        require(self.output is None or self.output.suffix == ".json", f"--output must be a .json, got {self.output}.")
        tokenizers = {f"{NUM_BINS} bins": Bins()} | {
            name: ActionTokenizer.load(folder) for name, folder in zip(names, self.tokenizer, strict=True)
        }
        episodes = Episodes(every=self.held_out, are_apart=self.held_out > 0)
        mixture = choose_mixture(self.mixture, self.dataset, self.embodiment)
        sources = open_sources(mixture, num_chunks=self.chunks, episodes=episodes)
        contests = [(source, name) for source in sources if source.num_chunks for name in tokenizers]
        measurements = [
            measure_tokenizer(
                name, tokenizers[name], source, chunk_batches([source], seed=self.seed, episodes=episodes)
            )
            for source, name in track(contests, "Measuring", console=Console(stderr=True), transient=True)
        ]
        console = Console(width=max(Console().width, LEAST_WIDTH))
        console.print(comparison_table(measurements))
        for source in sources:
            console.print(dimension_table([m for m in measurements if m.embodiment == source.robot.tag]))
        if self.output is not None:
            write_comparison(self.output, measurements, mixture=mixture.name, chunks=self.chunks, seed=self.seed)
            draw_comparison(self.output.with_suffix(".png"), measurements)
            console.print(f"Numbers and picture: {self.output}, {self.output.with_suffix('.png')}", soft_wrap=True)
