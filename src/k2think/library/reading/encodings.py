"""Tells in which encoding a text is. A few words of Chinese must come out right: what is not UTF-8 mostly is Chinese.

Libraries that guess need a page of text. So the East Asian encodings are told by a rule of our own: the few hundred
commonest characters make up half of any text, but hardly ever come out of bytes that were read in the wrong encoding.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping

from charset_normalizer import from_bytes

WINDOW = 8 * 1024
"""Bytes that the encoding is told from: those around the first that is not ASCII."""
BEFORE = 200
"""So many of them before it."""

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_HANS = (
    "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过发后作里用道行所然家种事成方多经么去法学如都同现当没"
    "动面起看定天分还进好小部其些主样理心她本前开但因只从想实日军者意无力它与长把机十民第公此已工使情明性知全三又关点正业外将两高间由问很最重并物手应"
    "战向头文体政美相见被利什二等产或新己制身果加西斯月话合回特代内信表化老给世位次度门任常先海通教儿原东声提立及比员解水名真论处走义各入几口认条平系"
    "气题活更别打女变四神总何电数安少报才结反受目太量再感建务做接必场件计管期市直德资命山金指克许统区保至队形社便空决治展马科司五基眼书非则听白却界达"
    "光放强即像难且权思王象完设式色路记南品住告类求据程北边死张该交规万取拉格望觉术领共确传师观清今切院让识候带导争运号码密价称项上海京收付款单姓"
)
_HANT = (
    "的一是不了在人有我他這個們中來上大為和國地到以說時要就出會可也你對生能而子那得於著下自之年過發後作里裡用道行所然家種事成方多經麼去法學如都同現當沒"
    "動面起看定天分還進好小部其些主樣理心她本前開但因只從想實日軍者意無力它與長把機十民第公此已工使情明性知全三又關點正業外將兩高間由問很最重並物手應"
    "戰向頭文體政美相見被利什二等產或新己制身果加西斯月話合回特代內信表化老給世位次度門任常先海通教兒原東聲提立及比員解水名真論處走義各入幾口認條平系"
    "氣題活更別打女變四神總何電數安少報才結反受目太量再感建務做接必場件計管期市直德資命山金指克許統區保至隊形社便空決治展馬科司五基眼書非則聽白卻界達"
    "光放強即像難且權思王象完設式色路記南品住告類求據程北邊死張該交規萬取拉格望覺術領共確傳師觀清今切院讓識候帶導爭運號碼密價稱項臺灣灣收付款單姓"
)
_HANGUL = (
    "이다는의에가을를하고은로지한기도사어대자아니서리그인시나있수해라게만들보정일것으전제면여과부적주구장상거스오요안마성생우공동원신명유중소비와문방조"
    "무바재실관계말내할간경선용위년모세분연습학못된되았었했없같때더산번호남북년월화목금토시간회의서울특별강점매출작년천백십오육칠팔구름"
)
_KANA = "".join(map(chr, (*range(0x3041, 0x3094), *range(0x30A1, 0x30F7), 0x30FC)))
_KANJI = _HANT + "、。「」・円売働価込枠駅図楽気総経済関東京会社発対実戦変込験区県国産営業田郎藤村川野島"
_PUNCTUATION = "，。、：；？！“”‘’（）《》「」『』【】…—～￥％·＃"

# Of each encoding the characters that make up its texts, and the first bytes of those that its standard calls common.
_EAST_ASIAN: Mapping[str, tuple[frozenset[str], range]] = {
    "gb18030": (frozenset(_HANS + _PUNCTUATION), range(0xB0, 0xD8)),
    "big5hkscs": (frozenset(_HANT + _PUNCTUATION), range(0xA4, 0xC7)),
    "cp932": (frozenset(_KANA + _KANJI), range(0x88, 0x98)),
    "euc_jp": (frozenset(_KANA + _KANJI), range(0xB0, 0xD0)),
    "cp949": (frozenset(_HANGUL), range(0xB0, 0xC9)),
}
COMMON = 1.0
KNOWN = 0.4
BROKEN = -3.0
"""What a character counts: one of the commonest, one of the common ones, bytes that are none. Others count nothing."""
PLAUSIBLE = 0.39
"""What all characters of a text must count on average."""
LIKELIEST = 0.7
"""Added once for simplified Chinese, which most of those who ask here write: in a text of two characters it decides."""

_BEYOND_ASCII = re.compile(rb"[\x80-\xff]")
_ALPHABETS = ["cp1251", "koi8_r", "cp1253", "cp1255", "cp1256", "cp874"]
_LATIN = ["cp1252", "cp1250", "cp1254"]
_LONG = 300
"""Bytes from which on the library tells the Latin encodings apart; in a shorter text it sees what is not there."""


def encoding_of(data: bytes, *, cut: bool = False) -> str:
    """The encoding of a text, as Python calls it. `cut`: `data` is a beginning that may end within a character."""
    for mark, name in _BOMS:
        if data.startswith(mark):
            return name
    first = _BEYOND_ASCII.search(data)
    if not first:
        return "utf-8"
    start = max(0, first.start() - BEFORE)
    sample = data[start : start + WINDOW]
    cut = cut or start + WINDOW < len(data)
    text = _decoded(sample, "utf-8", cut)
    # One broken byte in a long text is a broken byte, and not another encoding.
    if text.count("\ufffd") * 10 <= len(text) - len(text.encode("ascii", "ignore")):
        return "utf-8"
    likeliness, _, name = max((_likeliness(sample, name, cut), -place, name) for place, name in enumerate(_EAST_ASIAN))
    return name if likeliness >= PLAUSIBLE else _western(sample)


def _decoded(sample: bytes, name: str, cut: bool) -> str:
    return codecs.getincrementaldecoder(name)("replace").decode(sample, final=not cut)


def _likeliness(sample: bytes, name: str, cut: bool) -> float:
    foreign = [character for character in _decoded(sample, name, cut) if character > "\x7f"]
    if not foreign:
        return 0.0
    commonest, first_bytes = _EAST_ASIAN[name]
    total = 0.0
    for character in foreign:
        if character in commonest:
            total += COMMON
        elif character == "\ufffd":
            total += BROKEN
        elif len(encoded := character.encode(name)) == 2 and encoded[0] in first_bytes:
            total += KNOWN
    likely = total / len(foreign)
    return likely + LIKELIEST / len(foreign) if name == "gb18030" and likely >= PLAUSIBLE else likely


def _western(sample: bytes) -> str:
    letters = sum(byte > 0xBF or chr(byte).isalpha() for byte in sample if byte < 0x80 or byte > 0xBF)
    beyond_ascii = sum(byte > 0xBF for byte in sample)
    # In a Latin script most letters are ASCII, in another script none are.
    if beyond_ascii * 2 > letters:
        names, usual = _ALPHABETS, "cp1251"
    elif len(sample) < _LONG:
        return "cp1252"
    else:
        names, usual = _LATIN, "cp1252"
    best = from_bytes(sample, cp_isolation=names).best()
    return best.encoding if best else usual
