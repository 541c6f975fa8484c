"""What can be seen wrong with a caption without looking at the picture."""

import re
from collections.abc import Sequence

FLAGS = ("empty", "truncated", "repetitive", "prefix_only", "copies_alt_text")

# A caption repeats itself when more than this share of its runs of three words were there before,
# when fewer than this share of its words are distinct, or when one word comes this often in a row.
MAX_REPEATED_TRIGRAMS = 0.3
MIN_DISTINCT_WORDS = 0.3
MAX_SAME_WORD_RUN = 4
# Shares mean little in a short text: below this many words only runs of one word are looked at.
MIN_WORDS_FOR_SHARES = 12
# So many words in the order of the alt-text, or half of it if that is more, are a copy.
MIN_COPIED_WORDS = 6

_WORD = re.compile(r"\w+(?:['\u2019-]\w+)*")


def strip_prefix(text: str, prefixes: Sequence[str]) -> str:
    """`text` without the longest of `prefixes` that it starts with, whatever the prefix's case.

    Only the very start is touched and only once, only whole words are removed, and the rest keeps its
    case: quoted text and names stay as they were read.
    """
    text = text.strip()
    for prefix in sorted((p.strip() for p in prefixes), key=len, reverse=True):
        opening, rest = text[: len(prefix)], text[len(prefix) :]
        if not prefix or opening.casefold() != prefix.casefold():
            continue
        if rest and _is_word(opening[-1]) and _is_word(rest[0]):
            continue
        return rest.lstrip(" \t\n:,")
    return text


def caption_flags(
    caption: str, finish_reason: str, stripped: bool = False, hint: str | None = None
) -> list[str]:
    """The names of FLAGS that hold for a caption, in the order of FLAGS.

    Args:
        caption: the text as stored, after `strip_prefix`.
        finish_reason: "stop" or "length", of the generation.
        stripped: whether a prefix was removed.
        hint: the alt-text if it was part of the request, else None. A captioner that never saw the
            alt-text cannot copy it: equal words are then agreement.
    """
    words = _words(caption)
    found = {
        "empty": not words,
        "truncated": finish_reason == "length",
        "repetitive": is_repetitive(caption),
        "prefix_only": stripped and not words,
        "copies_alt_text": hint is not None and copies(caption, hint),
    }
    return [flag for flag in FLAGS if found[flag]]


def is_repetitive(caption: str) -> bool:
    """Whether a caption repeats itself beyond the bounds above."""
    words = _words(caption)
    if _longest_run(words) >= MAX_SAME_WORD_RUN:
        return True
    if len(words) < MIN_WORDS_FOR_SHARES:
        return False
    distinct = len(set(words)) / len(words)
    return distinct < MIN_DISTINCT_WORDS or repeated_share(words, 3) > MAX_REPEATED_TRIGRAMS


def repeated_share(words: Sequence[str], n: int) -> float:
    """The share of the runs of `n` words that occurred earlier in the text: 0 when none did."""
    runs = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def copies(caption: str, alt_text: str) -> bool:
    """Whether a caption holds a long piece of the alt-text, word for word."""
    words, source = _words(caption), _words(alt_text)
    needed = max(MIN_COPIED_WORDS, -(-len(source) // 2))
    pieces = {tuple(source[i : i + needed]) for i in range(len(source) - needed + 1)}
    return any(tuple(words[i : i + needed]) in pieces for i in range(len(words) - needed + 1))


def _words(text: str) -> list[str]:
    return [word.casefold() for word in _WORD.findall(text)]


def _longest_run(words: Sequence[str]) -> int:
    longest = run = 0
    for i, word in enumerate(words):
        run = run + 1 if i and word == words[i - 1] else 1
        longest = max(longest, run)
    return longest


def _is_word(character: str) -> bool:
    return character.isalnum() or character == "_"
