"""`molmoact2 data annotate DATASET`: new instructions for its episodes, by a model that looks at them."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tyro.conf import Positional

if TYPE_CHECKING:
    from molmoact2.evaluation.annotation.answering import Annotator
    from molmoact2.evaluation.annotation.asking import Asking


@dataclass(frozen=True, kw_only=True)
class Annotate:
    """Write new instructions with a vision-language model.

    The model sees twelve moments of every camera that moves, and the recorded instruction, and writes one order of a
    length that is drawn anew for each episode. Answers that are no instruction are asked for again. Writes
    meta/tasks_annotated.parquet and meta/task_to_episode.parquet, which training reads; nothing else of the dataset is
    touched. A run that was stopped goes on with the same command and asks nothing twice. Give --endpoint and --model,
    or --checkpoint; or --apply-review with what was decided on the page that a run leaves.

    With --endpoint, pictures of the episodes are sent there.
    """

    dataset: Positional[Path]
    """Folder of a LeRobot dataset."""
    endpoint: str | None = None
    """OpenAI-compatible address, such as http://localhost:8000/v1."""
    model: str | None = None
    """What the endpoint calls the model."""
    api_key_file: Path | None = None
    """File of one line with the endpoint's key. The key is not written anywhere."""
    request: str = "{}"
    """Further fields of every request as JSON; null takes a field out. For instance
    '{"chat_template_kwargs": {"enable_thinking": false}}'."""
    timeout_s: float = 120.0
    """Longest silence of the endpoint, in seconds, before a request is sent again."""
    workers: int = 4
    """Requests at the same time."""
    checkpoint: str | None = None
    """Folder or hub id of a checkpoint that answers questions, in place of an endpoint."""
    device: str = "cpu"
    """Where the checkpoint computes."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision in which the checkpoint computes."""
    seed: int = 0
    """Of the lengths that are asked for."""
    exponent: float = 2.0
    """Lengths n from 5 to 25 words are asked for in proportion to n to the power of minus this."""
    image_side: int = 448
    """Longest side of the pictures, in pixels."""
    attempts: int = 3
    """Times that an episode is asked about before it counts as failed."""
    episodes: int | None = None
    """Only the first so many, to try it out; all by default."""
    preview: bool = False
    """Say what would be asked for, and stop."""
    review: int = 100
    """Episodes on the review page."""
    apply_review: Path | None = None
    """Apply the decisions in this file, which the review page saved, and ask nothing."""
    output: Path | None = None
    """Folder of the ledger and the review page; by default beside the dataset, with ".annotation" after its name."""

    def __post_init__(self) -> None:
        ways = [self.endpoint, self.checkpoint, self.apply_review]
        if sum(way is not None for way in ways) != 1:
            raise ValueError("Give one of --endpoint (with --model), --checkpoint and --apply-review.")
        if self.endpoint and not self.model:
            raise ValueError("An endpoint needs --model, the name by which it knows the model.")
        if min(self.workers, self.timeout_s, self.review + 1, self.episodes or 1) <= 0:
            raise ValueError("--workers, --timeout-s and --episodes must be more than 0, and --review at least 0.")

    def run(self) -> None:
        """Ask for what is missing, store it, and write the review page; or apply a review; or say what it takes."""
        from rich.console import Console

        from molmoact2.data.annotated_tasks import ANNOTATIONS_PATH
        from molmoact2.data.reader import LeRobotDataset
        from molmoact2.evaluation.annotation.decisions import apply_review
        from molmoact2.evaluation.annotation.diversity import before_and_after, diversity_table
        from molmoact2.evaluation.annotation.estimate import estimate, sentence
        from molmoact2.evaluation.annotation.place import folder_beside
        from molmoact2.evaluation.annotation.review import write_review
        from molmoact2.evaluation.annotation.run import run_annotation, say_failures

        console, dataset = Console(), LeRobotDataset(self.dataset)
        folder = self.output or folder_beside(dataset)
        if self.apply_review:
            counts = apply_review(dataset, folder, self.apply_review)
            console.print(", ".join(f"{name}: {count}" for name, count in counts.items()) or "There were no decisions.")
            return
        asking, episodes = self._asking(), dataset.episodes_with_video[: self.episodes]
        console.print(sentence(estimate(dataset, asking, folder, episodes)), soft_wrap=True)
        if self.preview:
            return
        workers = 1 if self.checkpoint else self.workers
        records = run_annotation(dataset, asking, folder, episodes=episodes, num_workers=workers)
        console.print(diversity_table(*before_and_after(records)))
        page = write_review(dataset, records, folder, num_episodes=self.review)
        console.print(f"Instructions: {dataset.root / ANNOTATIONS_PATH}\nReview page:  {page}", soft_wrap=True)
        console.print(say_failures(records, folder), markup=False, soft_wrap=True)

    def _asking(self) -> "Asking":
        """The model and how it is asked."""
        from molmoact2.evaluation.annotation.asking import Asking, Manner

        manner = Manner(seed=self.seed, exponent=self.exponent, image_side=self.image_side, num_attempts=self.attempts)
        return Asking(annotator=self._annotator(), manner=manner)

    def _annotator(self) -> "Annotator":
        if self.checkpoint:
            from molmoact2.evaluation.annotation.local import load_annotator

            return load_annotator(self.checkpoint, self.device, self.dtype)
        from rich.console import Console

        from molmoact2.evaluation.annotation.endpoint import Endpoint, read_api_key, read_request

        errors = Console(stderr=True)
        return Endpoint(
            url=self.endpoint or "",
            model=self.model or "",
            api_key=read_api_key(self.api_key_file) if self.api_key_file else "",
            request=read_request(self.request),
            timeout_s=self.timeout_s,
            tell=lambda words: errors.print(words, style="dim", markup=False, soft_wrap=True),
        )
