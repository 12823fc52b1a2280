"""What a checkpoint is, in a few characters: two that have the same fingerprint plan the same."""

import hashlib

from molmoact2.inference.checkpoint import locate


def fingerprint(name: str, revision: str | None = None) -> str:
    """The commit of a hub id, or a digest of all files of a directory; ValueError when there is no such checkpoint."""
    directory, commit = locate(name, revision)
    if commit:
        return f"commit:{commit}"
    digest = hashlib.sha256()
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{path.relative_to(directory)} {content}\n".encode())
    return f"sha256:{digest.hexdigest()[:16]}"
