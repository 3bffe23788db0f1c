"""How many tokens a text is to K2-Think, estimated: no tokenizer, no vocabulary, a few microseconds.

The text becomes a string of character classes, and the counts of some thirty patterns in it are weighed. The patterns
are where Qwen2.5's byte-level BPE (K2-Think is built on that model) spends more or fewer tokens than the length says;
the weights are a least-squares fit of the relative error on samples of 200 to 3000 characters: prose in English and
Chinese, code, mathematics, Markdown, JSON, web pages, and less of other languages. On samples it was not fitted to, of
English, Chinese, code and mathematics, the mean error is 4 %, and 98 in 100 are within 15 %.
"""

from __future__ import annotations

import re

BLOCK = 2048
"""Characters that a TokenCounter collects before it counts them."""


MAX_BLOCKS = 32
"""Blocks of a long text that are looked at: reading a megabyte would hold up everybody else for 10 ms."""


def estimate_tokens(text: str) -> int:
    """Estimate the tokens of a text; 0 only for an empty one. Of a long one evenly spread blocks speak for the rest."""
    if len(text) <= MAX_BLOCKS * BLOCK:
        return max(1, round(_weigh(text))) if text else 0
    places = range(0, len(text) - BLOCK, len(text) // MAX_BLOCKS)
    sample = [text[place : place + BLOCK] for place in places]
    return round(sum(map(_weigh, sample)) * len(text) / (len(sample) * BLOCK))


class TokenCounter:
    """Estimates a text that comes in pieces. `feed` only collects; a block is counted at once, and then forgotten."""

    __slots__ = ("_collected", "_empty", "_pieces", "_weight")

    def __init__(self) -> None:
        self._weight = 0.0
        self._pieces: list[str] = []
        self._collected = 0
        self._empty = True

    def feed(self, text: str) -> None:
        """Take the next piece, cut anywhere."""
        self._pieces.append(text)
        self._collected += len(text)
        if self._collected >= BLOCK:
            self._count()

    @property
    def total(self) -> int:
        """Tokens of all pieces so far; 0 only if they were empty."""
        if self._collected:
            self._count()
        return 0 if self._empty else max(1, round(self._weight))

    def _count(self) -> None:
        self._weight += _weigh("".join(self._pieces))
        self._pieces.clear()
        self._collected = 0
        self._empty = False


# Classes of characters. UTF-8's leading bytes tell the scripts apart; the bytes behind them are left out, so that a
# character is one byte of the shape.
_CLASSES = (
    (b"a", range(0x61, 0x7B)),  # small letters
    (b"A", range(0x41, 0x5B)),  # capitals
    (b"0", range(0x30, 0x3A)),
    (b"\n", b"\n\r"),
    (b"\t", b"\t\v\f"),
    (b" ", b" "),
    (b"s", b"\xc2"),  # signs and blanks of Latin-1
    (b"l", range(0xC3, 0xCD)),  # Latin letters with accents
    (b"c", range(0xD0, 0xD4)),  # Cyrillic
    (b"r", range(0xD8, 0xDC)),  # Arabic
    (b"i", b"\xe0\xe1"),  # scripts of India and South-East Asia
    (b"q", b"\xe2"),  # typographic and mathematical signs
    (b"j", b"\xe3"),  # kana, and what punctuates Chinese and Japanese
    (b"H", range(0xE4, 0xEA)),  # Han
    (b"k", range(0xEA, 0xEE)),  # Hangul
    (b"e", range(0xF0, 0xF8)),  # emoji and rare signs
    (b"o", (*range(0xCD, 0xD0), *range(0xD4, 0xD8), *range(0xDC, 0xE0), 0xEE, 0xEF)),  # what else is no ASCII
)
_CONTINUATION = bytes(range(0x80, 0xC0))


def _table() -> bytes:
    table = bytearray(b"." * 256)  # ASCII's punctuation
    for name, members in _CLASSES:
        for byte in members:
            table[byte] = name[0]
    return bytes(table)


_SHAPE = _table()

# Han characters that share a token with a neighbour more often than not. Traditional forms are rarely among them.
_EASY_HAN = re.compile(
    "["
    "一万三上下不专世业两严个串主举么之乎也习书买了争事二于云互五亚些交产享京人什今介他付代以们件价任份企众优会"
    "传似但低住体何作你使例供保信們候做停健储像儿充光免党入內全公关兴其具典内决况准减几出函分创初利别到制前力办"
    "功加务动助势動包化北区医华协印历压去参參友发受变口句另只叫可台史右司各合同名后否听启吸告员周味命品响哪售商"
    "器回因团困围国在地场址均型域執基境增士声处备复外多够大天太失奖奥好如始媒子字存学它安完定宝实客宣室家容宽密"
    "富少尔就尽局居展属工左巨己巴币市布师带帮常平并广序应府度座建开强录形影征径待很律得循微德心必志念态怎思性息"
    "您情想意感應戏成我战户房所才打执批承技投护报招拥择括拿持指挑损换据排探接控推描提搜摄操支收改放政故效教整文"
    "料断新方施旅无明易星是智更最有服望期未本术机杂权来构析果架某查标校格框案档检模檔次欢款歌此段每比民气水汇江"
    "汽没油治法泛注活流测济浏海消深添清温游源演激火点热然照爱片牌物特状独率玩环现班球理生用电男界留白百的益监目"
    "直相省看真着督知码研破础硬确示社离种科称移程稳稿究空立站章端符第答策签简算管类精系素索约练组细绍经结络统续"
    "缓编网置美群翻者而职联股育背能自至致航般色花英获营著虑虽融行表被西要观规视览觉角言請警计订认讨让训议讯讲许"
    "论设证评识诉译试详误说请课调谢象資财货质购贷费资赖赛起超越趣足跟路身车软较辑输达过迎运近返还这进述送适透這"
    "通速造遇道避那邮部都配采释里重量金银链销键长開问间闻阅防阳阵阿际降院险隐难需非面音项顺须预领频题额风食饰首"
    "香验高默"
    "]"
)
_PUNCTUATION = re.compile("[\u3000-\u303f\uff00-\uff65]")  # full-width
_KATAKANA = re.compile("[\u30a1-\u30fe]")
_RARE_CYRILLIC = re.compile("[юфщцэхжшчюъёыь]")  # mark Russian, of which the vocabulary has more than of its sisters
_UKRAINIAN = re.compile("[іїєґІЇЄҐ]")


def _weigh(text: str) -> float:
    raw = text.encode(errors="replace")
    shape = raw.translate(_SHAPE, _CONTINUATION)
    count = shape.count
    weight = (
        0.2 * len(text)
        + 0.908 * count(b"0")  # every digit is a token,
        + 0.678 * count(b" 0")  # and so is a blank before one
        + 0.598 * count(b"0a")
        + 0.597 * count(b".")
        - 1.158 * count(b"...")  # runs of punctuation have tokens of their own
        - 6.708 * count(b"................")
        - 0.871 * count(b" ..")
        - 1.667 * count(b".\n\n")
        + 0.416 * count(b"\n")
        + 0.930 * count(b"a\n")
        - 1.332 * count(b"       ")  # so have indentations
        + 0.273 * raw.count(b"\t")
        + 0.884 * count(b"a ")  # a word is a token …
        + 0.356 * count(b"a. ")
        - 0.653 * count(b"aa ")
        - 0.432 * count(b" aaaaaa")  # … and a long one after a blank seldom two
        - 0.288 * count(b"aaaa")
        + 2.908 * count(b"AAa")
        - 0.667 * raw.count(b"tion")  # English, which has most of the vocabulary
        + 1.565 * raw.count(b"en ")  # rather German or Dutch
        + 0.467 * raw.count(b"\\")
        + 0.627 * raw.count(b"$")
        - 0.190 * raw.count(b'"')
    )
    if len(shape) != len(raw):
        weight += _weigh_scripts(text, shape)
    return max(weight, 0.0)


def _weigh_scripts(text: str, shape: bytes) -> float:
    """What characters outside ASCII weigh more or less than others."""
    count = shape.count
    han, hangul, cyrillic, arabic, japanese = count(b"H"), count(b"k"), count(b"c"), count(b"r"), count(b"j")
    weight = (
        0.994 * count(b"s")
        + 1.586 * count(b"la")  # an accent ends a token
        + 1.921 * count(b"l ")
        + 0.577 * count(b"q")
        + 0.928 * count(b"i")
        + 3.215 * count(b"e")
    )
    if han:
        weight += 1.377 * han - 1.629 * count(b"HHH") - 0.665 * len(_EASY_HAN.findall(text))
    if han or japanese or hangul:
        weight += 0.174 * japanese + 0.534 * len(_PUNCTUATION.findall(text)) + 0.262 * len(_KATAKANA.findall(text))
    if hangul:
        weight += 0.298 * hangul + 1.315 * count(b"kkk")
    if cyrillic:
        weight += 0.219 * cyrillic - 0.884 * len(_RARE_CYRILLIC.findall(text)) + 2.605 * len(_UKRAINIAN.findall(text))
    if arabic:
        weight += 0.299 * arabic - 1.505 * text.count("\u0627\u0644")  # the article
    return weight
