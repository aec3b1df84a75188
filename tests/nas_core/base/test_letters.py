"""Letters of other alphabets that look like Latin ones."""

import unicodedata

import pytest

from nas_core.base.errors import NasError
from nas_core.base.letters import _LATIN, as_seen, spelt_out


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("tr\u0430in/a.png", r"tr\u0430in/a.png"),
        ("\u041d\u041e\u041c\u0415 HOM\u0395", "\u041d\u041e\u041c\u0415 HOM" + r"\u0395"),
        ("\uff54rain", r"\uff54rain"),
        ("\u0434\u043e\u0440\u043e\u0433\u0430", "\u0434\u043e\u0440\u043e\u0433\u0430"),
        ("\u0441\u043e\u0440", "\u0441\u043e\u0440"),
        ("gr\xfcn cafe\u0301 m\xb2 \u03b1x \u8def", "gr\xfcn cafe\u0301 m\xb2 \u03b1x \u8def"),
        ("\u0444\u043e\u0442\u043e_camvid", "\u0444\u043e\u0442\u043e_camvid"),
    ],
)  # fmt: skip
def test_words_that_mix_alphabets_are_spelt_out(text: str, shown: str) -> None:
    assert spelt_out(text) == shown
    assert str(NasError(f"{text}: unknown")) == f"{shown}: unknown"


def test_each_letter_looks_like_one_of_its_case() -> None:
    assert len(_LATIN) == 47
    for number, latin in _LATIN.items():
        letter = chr(number)
        assert as_seen(letter) == chr(latin) and letter.isalpha() and not letter.isascii()
        case = "CAPITAL" if chr(latin).isupper() else "SMALL"
        assert case in unicodedata.name(letter) or letter == "\u04cf"
