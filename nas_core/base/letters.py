"""Letters that look like others: a word in which they stand is not what it seems."""

from __future__ import annotations

import re
import unicodedata

# Of Cyrillic, Greek and Armenian those that fonts draw as Latin ones
# (https://www.unicode.org/Public/security/latest/confusables.txt), by number as they look alike.
_LATIN = {
    **str.maketrans(
        "\u0410\u0412\u0415\u0405\u0406\u0408\u041a\u041c\u041d\u041e\u0420\u0421\u0422\u0423\u0425",
        "ABESIJKMHOPCTYX",
    ),
    **str.maketrans(
        "\u0430\u0435\u0455\u0456\u0458\u043e\u0440\u0441\u0443\u0445\u04cf\u0501\u04bb\u051b\u051d",
        "aesijopcyxldhqw",
    ),
    **str.maketrans(
        "\u0391\u0392\u0395\u0396\u0397\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4\u03a5\u03a7",
        "ABEZHIKMNOPTYX",
    ),
    **str.maketrans("\u03bf\u03bd\u0585", "ovo"),
}
_WORD = re.compile(r"\w+")


def as_seen(text: str) -> str:
    """A text in which letters of other alphabets, or of other widths and forms, are the Latin ones
    that they look like."""
    return unicodedata.normalize("NFKC", text).translate(_LATIN)


def escaped(text: str) -> str:
    """A text whose letters beyond ASCII are escapes."""
    return text.encode("ascii", "backslashreplace").decode()


def spelt_out(text: str) -> str:
    r"""A text in which words that mix Latin letters and such that look like them have the latter as
    escapes: tr\u0430in. Words of one alphabet stay as they are."""
    return text if text.isascii() else _WORD.sub(_word, text)


def _word(found: re.Match[str]) -> str:
    word = found[0]
    is_mixed = any(char.isascii() and char.isalpha() for char in word)
    has_others = not word.isascii() and all(char.isascii() or char.isalpha() for char in word)
    if not is_mixed or not has_others or not as_seen(word).isascii():
        return word
    return escaped(word)
