"""`molmoact2 tokenizer encode INPUT`: action chunks become lists of token ids."""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional


@dataclass(frozen=True)
class Encode:
    """Turn action chunks into tokens.

    Writes a line of JSON per chunk: {"ids": [5, 17, ...], "horizon": 15, "action_dim": 6}. A chunk that the tokenizer
    cannot write is an error, and then no file is written.
    """

    input: Positional[str]
    """.npy or .npz file of chunks [n, horizon, action_dim] in [-1, 1]; or a dataset (a folder or hub id): the second
    from every frame on is a chunk, normalised with the dataset's own 1 and 99 % quantiles."""
    tokenizer: Path
    """Folder of the action tokenizer."""
    output: Path
    """.jsonl file to write."""
    embodiment: str | None = None
    """Tag or card of a dataset's robot; by default the dataset says it."""

    def run(self) -> None:
        """Encode everything."""
        from rich.console import Console
        from rich.progress import track

        from molmoact2.data.chunk_stream import choose_mixture, chunks_in_order, open_sources
        from molmoact2.evaluation.token_files import CHUNK_FILES, read_chunks, write_token_lists
        from molmoact2.tokens import ActionTokenizer

        tokenizer = ActionTokenizer.load(self.tokenizer)
        if self.input.endswith(CHUNK_FILES):
            batches = [read_chunks(Path(self.input))]
        else:
            (source,) = open_sources(choose_mixture(None, [self.input], self.embodiment), num_chunks=1)
            batches = chunks_in_order(source)
        shown = track(batches, "Encoding", console=Console(stderr=True), transient=True)
        written = ((tokenizer.encode(batch), *batch.shape[1:]) for batch in shown)
        num_chunks, num_tokens = write_token_lists(self.output, written)
        mean = f"{num_tokens / num_chunks:.2f} tokens each"
        Console().print(f"{num_chunks:,} chunks, {mean}: {self.output}", soft_wrap=True)
