"""What tells a checkpoint's folder from any other."""

import hashlib
from pathlib import Path


def digest_of(directory: Path) -> str:
    """`sha256:` and the first 16 digits of a digest of all files below a folder and of their names."""
    digest = hashlib.sha256()
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{path.relative_to(directory)} {content}\n".encode())
    return f"sha256:{digest.hexdigest()[:16]}"
