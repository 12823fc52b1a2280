"""What is served, in words that say nothing about this computer's folders."""

import hashlib
from pathlib import Path

from molmoact2.inference.checkpoint import locate


def name_of(checkpoint: str) -> str:
    """A hub id as it is, the last part of a folder's path, the name of a bundled policy."""
    return Path(checkpoint).resolve().name if Path(checkpoint).is_dir() else checkpoint


def revision_of(checkpoint: str, commit: str | None) -> str:
    """The commit of a hub id, or a digest of all files of a folder."""
    return commit if commit is not None else f"sha256:{digest_of(locate(checkpoint, None)[0])}"


def digest_of(directory: Path) -> str:
    """The first 16 digits of a digest of all files below a folder and of their names."""
    digest = hashlib.sha256()
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{path.relative_to(directory)} {content}\n".encode())
    return digest.hexdigest()[:16]
