"""Paths that a config names inside its model's folder: Triton opens them as they are, and dies of a folder."""


def path_problem(path: str) -> str | None:
    """Return why `path` cannot name a file below a model's folder, None where it can. Whether it is there is not asked.

    A whole path of digits is a version's folder.
    """
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\0" in path:
        return "must be a plain path below the model's folder"
    return "is a version's folder, not a file" if path.isdigit() else None
