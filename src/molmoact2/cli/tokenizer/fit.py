"""`molmoact2 tokenizer fit`: an OpenFAST action tokenizer for your own robots."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Fit an OpenFAST action tokenizer to the action chunks of datasets.

    A chunk is one second of actions at the rate of its dataset. The tokenizer is written as tokenizer.json and
    processor_config.json. It can write every chunk within the normalised range, also what was not in the data.

    One dataset:     molmoact2 tokenizer fit --dataset my_data --embodiment so101_tabletop --output my_tokenizer
    Several robots:  molmoact2 tokenizer fit --mixture my_mixture.toml --output my_tokenizer
    """

    output: Path
    """Folder to write; it must not exist yet."""
    mixture: str | None = None
    """Name of a mixture ("openfast" is that of the paper) or a mixture file."""
    dataset: tuple[str, ...] = ()
    """Datasets of one embodiment, instead of a mixture: folders or hub ids."""
    embodiment: str | None = None
    """Tag or card of the robot of --dataset; by default the datasets say it."""
    chunks: int = 1_000_000
    """Chunks to learn from, shared by the rates of the mixture; at most as many as there are frames."""
    vocab_size: int = 2048
    """Number of tokens. The released checkpoints have room for 2048."""
    scale: float = 10.0
    """Levels per unit of a cosine coefficient: more for smaller errors and more tokens."""
    dead_zone: float = 0.6
    """Part of a level that still becomes 0, from 0.5 (plain rounding) to 1: more for fewer tokens and larger errors."""
    layout: str = "dimension"
    """Order of the levels: dimension by dimension, or frequency by frequency as the reference implementation reads."""
    longest_horizon: int | None = None
    """Steps of the longest chunk that will ever be written; by default of the longest one in the data."""
    hold_out: int = 0
    """Leave out every so-many-th episode, for `tokenizer eval` to measure on; 0 leaves out none."""
    seed: int = 0
    """Decides which chunks are drawn."""

    def run(self) -> None:
        """Fit and write, with a progress bar."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        from molmoact2.data.chunk_stream import Episodes, choose_mixture, chunk_batches, open_sources
        from molmoact2.data.convert import appearing
        from molmoact2.data.errors import require
        from molmoact2.tokens.action_fit import fit_action_tokenizer

        require(not self.output.exists(), f"{self.output} exists already. Choose a new folder.")
        require(self.chunks > 0, f"--chunks must be at least 1, got {self.chunks}.")
        episodes = Episodes(every=self.hold_out)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            opening = progress.add_task("Looking through the data", total=None)
            mixture = choose_mixture(self.mixture, self.dataset, self.embodiment)
            sources = open_sources(mixture, num_chunks=self.chunks, episodes=episodes)
            progress.remove_task(opening)
            num_chunks = sum(source.num_chunks for source in sources)
            reading = progress.add_task("Chunks read", total=num_chunks)
            learning = progress.add_task("Tokens learnt", total=self.vocab_size)

            def followed():
                for batch in chunk_batches(sources, seed=self.seed, episodes=episodes):
                    yield batch
                    progress.advance(reading, len(batch))

            tokenizer = fit_action_tokenizer(
                followed(),
                vocab_size=self.vocab_size,
                scale=self.scale,
                longest_horizon=self.longest_horizon or max(part.horizon for s in sources for part in s.parts),
                layout=self.layout,
                dead_zone=self.dead_zone,
                on_token=lambda count: progress.update(learning, completed=count),
            )
        with appearing(self.output) as folder:
            tokenizer.save(folder)
        console = Console()
        for source in sources:
            console.print(f"{source.robot.tag}: {source.num_chunks:,} chunks of {len(source.parts)} datasets")
        console.print(f"{tokenizer.table.size} tokens, {-2 * tokenizer.min_token + 1} of them single levels")
        console.print(f"Tokenizer: {self.output}", soft_wrap=True)
