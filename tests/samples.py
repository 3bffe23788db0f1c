"""Small files of every kind that is read, made in memory, each with a fact in it."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping

import docx
import pptx
import xlsxwriter  # type: ignore[import-untyped]
from PIL import Image

FACT = "The password is blue whale 4711"
CHINESE = "仓库的密码是蓝鲸四七一一"


def pdf(*pages: str) -> bytes:
    """A PDF whose pages say this, in Latin letters."""
    kids = " ".join(f"{4 + 2 * number} 0 R" for number in range(len(pages)))
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        f"<</Type/Pages/Kids[{kids}]/Count {len(pages)}>>".encode(),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    for number, text in enumerate(pages):
        drawn = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET".encode("latin-1")
        page = f"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents {5 + 2 * number} 0 R"
        objects.append(f"{page}/Resources<</Font<</F1 3 0 R>>>>>>".encode())
        objects.append(b"<</Length %d>>stream\n%s\nendstream" % (len(drawn), drawn))
    return pdf_of(objects)


def chinese_pdf(text: str) -> bytes:
    """A PDF with Chinese text, as it is written where the font is not embedded."""
    drawn = b"BT /F1 12 Tf 72 720 Td <" + text.encode("utf-16-be").hex().encode() + b"> Tj ET"
    system = b"/CIDSystemInfo<</Registry(Adobe)/Ordering(GB1)/Supplement 2>>"
    return pdf_of(
        [
            b"<</Type/Catalog/Pages 2 0 R>>",
            b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
            b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
            b"<</Length %d>>stream\n%s\nendstream" % (len(drawn), drawn),
            b"<</Type/Font/Subtype/Type0/BaseFont/STSong-Light/Encoding/UniGB-UCS2-H/DescendantFonts[6 0 R]>>",
            b"<</Type/Font/Subtype/CIDFontType0/BaseFont/STSong-Light" + system + b"/FontDescriptor 7 0 R>>",
            b"<</Type/FontDescriptor/FontName/STSong-Light/Flags 6/FontBBox[0 0 9 9]/ItalicAngle 0/Ascent 9>>",
        ]
    )


def pdf_of(objects: list[bytes], trailer: bytes = b"") -> bytes:
    """A PDF of these objects, the first of which is its catalog."""
    out = bytearray(b"%PDF-1.7\n")
    places = []
    for number, content in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % place for place in places)
    out += b"trailer<</Size %d/Root 1 0 R%s>>\nstartxref\n%d\n%%%%EOF" % (len(objects) + 1, trailer, table)
    return bytes(out)


def word(*lines: str, table: list[list[str]] | None = None) -> bytes:
    document = docx.Document()
    for line in lines:
        document.add_paragraph(line)
    if table:
        grid = document.add_table(len(table), len(table[0]))
        for row, cells in zip(grid.rows, table, strict=True):
            for cell, text in zip(row.cells, cells, strict=True):
                cell.text = text
    document.add_paragraph("The end.")
    document.sections[0].footer.paragraphs[0].text = "Seen by nobody"
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()


def sheets(rows: list[list[object]], name: str = "Stock") -> bytes:
    out = io.BytesIO()
    book = xlsxwriter.Workbook(out, {"in_memory": True})
    sheet = book.add_worksheet(name)
    for number, row in enumerate(rows):
        sheet.write_row(number, 0, row)
    book.close()
    return out.getvalue()


def slides(*titles: str, notes: str = "") -> bytes:
    show = pptx.Presentation()
    for title in titles:
        slide = show.slides.add_slide(show.slide_layouts[5])
        slide.shapes.title.text = title
    if notes:
        slide.notes_slide.notes_text_frame.text = notes
    out = io.BytesIO()
    show.save(out)
    return out.getvalue()


def html(text: str) -> bytes:
    return f"<!doctype html><title>Ship's log</title><script>x='y'</script><p>{text}<br>next</p>".encode()


def image(kind: str = "PNG", size: tuple[int, int] = (40, 30)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, "navy").save(out, kind)
    return out.getvalue()


def archive(members: Mapping[str, bytes], packing: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", packing) as opened:
        for name, content in members.items():
            opened.writestr(name, content)
    return out.getvalue()


def members_of(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def replaced(data: bytes, name: str, change: Callable[[bytes], bytes]) -> bytes:
    """An Office file with one of its parts changed."""
    members = members_of(data)
    return archive(members | {name: change(members[name])})


SAMPLES: dict[str, Callable[[], tuple[str, bytes, str]]] = {
    "pdf": lambda: ("log.pdf", pdf("Cover", FACT), FACT),
    "pdf-chinese": lambda: ("log.pdf", chinese_pdf(CHINESE), CHINESE),
    "docx": lambda: ("log.docx", word("Cover", FACT), FACT),
    "docx-chinese": lambda: ("日志.docx", word(CHINESE), CHINESE),
    "docx-table": lambda: ("t.docx", word("x", table=[["key", "fact"], ["a", FACT]]), f"key\tfact\na\t{FACT}"),
    "docx-footer": lambda: ("f.docx", word("x"), "Seen by nobody"),
    "xlsx": lambda: ("s.xlsx", sheets([["item", "n"], [CHINESE, 3], [FACT, 2.5]]), f"{CHINESE}\t3\n{FACT}\t2.5"),
    "xlsx-sheet-name": lambda: ("s.xlsx", sheets([["a"]], "库存"), "# Sheet: 库存\na"),
    "pptx": lambda: ("p.pptx", slides("Cover", FACT), f"# Slide 2\n{FACT}"),
    "pptx-notes": lambda: ("p.pptx", slides("Cover", notes=FACT), f"Notes: {FACT}"),
    "html": lambda: ("p.html", html(FACT), f"Ship's log\n{FACT}\nnext"),
    "html-unnamed": lambda: ("page", html(CHINESE), CHINESE),
    "text-gb18030": lambda: ("facts.txt", CHINESE.encode("gb18030"), CHINESE),
    "text-big5": lambda: ("facts.txt", "倉庫的密碼是藍鯨".encode("big5"), "倉庫的密碼是藍鯨"),
    "text-utf16": lambda: ("facts.txt", CHINESE.encode("utf-16"), CHINESE),
    "text-utf8": lambda: ("facts.md", FACT.encode(), FACT),
    "csv": lambda: ("facts.csv", f"a,b\r\n1,{CHINESE}".encode("gbk"), f"a,b\n1,{CHINESE}"),
    "json": lambda: ("facts.json", b'{"fact": "%s"}' % FACT.encode(), f'{{"fact": "{FACT}"}}'),
    "code": lambda: ("facts.py", b"print('%s')" % FACT.encode(), FACT),
}
"""By name: a file's name, its bytes, and what its text must hold."""
