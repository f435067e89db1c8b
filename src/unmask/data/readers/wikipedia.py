"""The visible text of a Wikipedia dump, by the rules of Mahoney's filter, which text8 was made with."""

from __future__ import annotations

import re
from collections.abc import Iterator

_RULES = [
    (re.compile(pattern, flags), instead)
    for pattern, instead, flags in (
        ("<.*>", "", 0),  # the dump's own tags
        ("&amp;", "&", 0),
        ("&lt;", "<", 0),
        ("&gt;", ">", 0),
        ("<ref[^<]*</ref>", "", 0),
        ("<[^>]*>", "", 0),  # tags inside articles
        (r"\[http:[^] ]*", "[", 0),  # addresses; what is shown for them stays
        (r"\|(?:thumb|left|right|\d+px)", "", re.IGNORECASE),  # how images are laid out; captions stay
        (r"\[\[image:[^\[\]]*\|", "", re.IGNORECASE),
        (r"\[\[category:([^|\]]*)[^]]*\]\]", r"[[\1]]", re.IGNORECASE),
        (r"\[\[[a-z\-]*:[^\]]*\]\]", "", 0),  # links to other languages
        (r"\[\[[^\|\]]*\|", "[[", 0),  # targets of links; what is shown for them stays
        (r"\{\{[^}]*\}\}", "", 0),
        (r"\{[^}]*\}", "", 0),
        (r"[\[\]]", "", 0),
        ("&[^;]*;", " ", 0),
    )
]


def visible(xml: str) -> Iterator[str]:
    """The article texts of a dump without markup, in stretches; redirects are left out."""
    inside = False
    for stretch in re.findall("[^>]*>", xml):
        inside = (inside or "<text " in stretch) and "#redirect" not in stretch.lower()
        if not inside:
            continue
        inside = "</text>" not in stretch
        for pattern, instead in _RULES:
            stretch = pattern.sub(instead, stretch)
        yield stretch
