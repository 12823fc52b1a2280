"""What is served, in words that say nothing about this computer's folders."""

from pathlib import Path

from molmoact2.inference.checkpoint import locate
from molmoact2.inference.fingerprint import digest_of


def name_of(checkpoint: str) -> str:
    """A hub id as it is, the last part of a folder's path, the name of a bundled policy."""
    return Path(checkpoint).resolve().name if Path(checkpoint).is_dir() else checkpoint


def revision_of(checkpoint: str, commit: str | None) -> str:
    """The commit of a hub id, or a digest of all files of a folder."""
    return commit if commit is not None else digest_of(locate(checkpoint, None)[0])
