"""Matches the globs of rules, and makes a name that they take."""

import fnmatch
import itertools
import re
import string
from collections.abc import Callable, Iterable, Iterator, Sequence

REPOSITORY = re.compile(r"(?:[a-z0-9]+(?:[._-][a-z0-9]+)*/)*[a-z0-9]+(?:[._-][a-z0-9]+)*")
MAX_REPOSITORY = 256
"""The names of repositories (ECR service model, RepositoryName)."""
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
"""Tags (OCI distribution specification)."""

PIECE = re.compile(r"\*+|\?|\[!?\]?[^\]]*\]|[^*?\[]+|\[")
CHARACTERS = string.ascii_lowercase + string.digits + "-._/" + string.ascii_uppercase


def takes(globs: Sequence[str], text: str) -> bool:
    """Tells whether a text is taken: by a glob, and by none with a leading `!`; only exclusions take the rest."""
    excluded = [glob[1:] for glob in globs if glob.startswith("!")]
    return any(_matches(glob, text) for glob in _included(globs)) and not any(_matches(glob, text) for glob in excluded)


def is_repository(text: str) -> bool:
    """Tells whether ECR takes a text as a repository's name."""
    return 2 <= len(text) <= MAX_REPOSITORY and REPOSITORY.fullmatch(text) is not None


def repositories(globs: Sequence[str], stack: str) -> list[str]:
    """Returns a repository's name for each glob with a `*`, named for the stack, as far as all the globs take it.

    What a glob leaves no choice of is somebody else's.
    """
    words = _words(stack)
    found = (next(_names(glob, words, globs, is_repository), None) for glob in _included(globs) if "*" in glob)
    return list(dict.fromkeys(name for name in found if name))


def tag(globs: Sequence[str], unique: str) -> str | None:
    """Returns a tag that the globs take, unique where they leave a choice; None where there is none."""
    words = (f"0-verify-{unique}", f"verify-{unique}", unique, "verify", "0", "x")
    names = (_names(glob, words, globs, lambda text: TAG.fullmatch(text) is not None) for glob in _included(globs))
    return next(itertools.chain.from_iterable(names), None)


def _included(globs: Sequence[str]) -> list[str]:
    return [glob for glob in globs if not glob.startswith("!")] or ["*"]


def _matches(glob: str, text: str) -> bool:
    return fnmatch.fnmatchcase(text, glob)


def _words(stack: str) -> tuple[str, ...]:
    """Returns what a `*` may stand for, the likeliest first."""
    name = re.sub("-+", "-", stack.lower()).strip("-")
    return (f"{name}-verify", f"verify-{name}", f"{name}-verify/image", "verify", f"{name}-try", "xx", "00")


def _names(glob: str, words: Sequence[str], globs: Sequence[str], usable: Callable) -> Iterator[str]:
    """Yields texts that a glob and all globs together take: one star stands for a word, the others for little."""
    pieces = PIECE.findall(glob)
    stars = [index for index, piece in enumerate(pieces) if piece.startswith("*")]
    for word in words:
        for main in stars or [None]:
            for little in ("", "x", "0"):
                text = "".join(_fill(piece, word if index == main else little) for index, piece in enumerate(pieces))
                if usable(text) and takes(globs, text) and _matches(glob, text):
                    yield text


def _fill(piece: str, star: str) -> str:
    """Returns what a piece of a glob stands for."""
    if piece.startswith("*"):
        return star
    if piece == "?":
        return "x"
    if piece.startswith("[") and len(piece) > 1:
        return next(_taken(piece, CHARACTERS), "")
    return piece


def _taken(piece: str, characters: Iterable[str]) -> Iterator[str]:
    return (character for character in characters if _matches(piece, character))
