"""`molmoact2 tokenizer decode INPUT`: lists of token ids become action chunks again."""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional


@dataclass(frozen=True)
class Decode:
    """Turn tokens back into normalised action chunks.

    Writes chunks float64 [n, horizon, action_dim]. Tokens that are no whole chunk are an error, which names their
    lines. An .npz file may hold them: there they are NaN, and "is_valid" says which chunks can be used.
    """

    input: Positional[Path]
    """.jsonl file, as `tokenizer encode` writes it; all its chunks must have one shape."""
    tokenizer: Path
    """Folder of the action tokenizer."""
    output: Path
    """.npy file of the chunks to write, or .npz file of "chunks" and "is_valid"."""

    def run(self) -> None:
        """Decode the whole file."""
        import numpy as np
        from rich.console import Console

        from molmoact2.data.errors import require
        from molmoact2.evaluation.token_files import CHUNK_FILES, read_token_lists, write_chunks
        from molmoact2.tokens import ActionTokenizer

        endings = " or ".join(CHUNK_FILES)
        require(self.output.suffix in CHUNK_FILES, f"The file of chunks must end in {endings}, got {self.output}.")
        token_ids, horizon, action_dim = read_token_lists(self.input)
        tokenizer = ActionTokenizer.load(self.tokenizer)
        chunks, is_valid = tokenizer.decode_batch(token_ids, horizon=horizon, action_dim=action_dim)
        lines = (np.flatnonzero(~is_valid) + 1).tolist()
        require(
            not lines or self.output.suffix == ".npz",
            f"{self.input}: {len(lines)} lines do not hold {horizon} steps of {action_dim} dimensions, the first are "
            f"{lines[:5]}. Write an .npz file to have the others, and a mask.",
        )
        write_chunks(self.output, chunks, is_valid)
        Console().print(f"{is_valid.sum():,} of {len(chunks):,} chunks: {self.output}", soft_wrap=True)
