"""How documents and images become words in a conversation."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from k2think.dialogue.prompt import Document, DocumentText, Message
from k2think.inband.documents import describe_image, name_documents, write_documents


def document(digest: str, name: str = "") -> Document:
    return Document(name or f"{digest}.txt", "text/plain", digest, 1)


def test_a_text_stands_behind_what_its_turn_says() -> None:
    turn = Message("user", "Read this.", attachments=(document("a"), document("b", 'a "b".md')))
    texts = {"a": DocumentText("one\n"), "b": DocumentText("two")}
    (written,) = write_documents((turn,), texts, 100)
    assert written.text == (
        'Read this.\n\n<file name="a.txt">\none\n\n</file>\n\n<file name="a \\"b\\".md">\ntwo\n</file>'
    )
    assert written.attachments == ()


def test_what_has_no_text_stays_attached_and_other_turns_stay_themselves() -> None:
    plain = Message("user", "Hello")
    mixed = Message("user", "", attachments=(document("a"), document("b")))
    other = Message("user", "x", attachments=(document("b"),))
    first, second, third = write_documents((plain, mixed, other), {"a": DocumentText("one")}, 100)
    assert first is plain
    assert third is other
    assert second.text == '<file name="a.txt">\none\n</file>'
    assert second.attachments == (document("b"),)


def test_a_file_that_comes_again_is_named_and_not_repeated() -> None:
    turn = Message("user", "", attachments=(document("a", "old.txt"),))
    again = Message("user", "And?", attachments=(document("a", "new.txt"),))
    _, written = write_documents((turn, again), {"a": DocumentText("one")}, 100)
    assert written.text == 'And?\n\n[The file "new.txt" is attached here again; its text stands above.]'


def test_what_is_left_out_is_said() -> None:
    turn = Message("user", "", attachments=(document("a"), document("b"), document("c"), document("d")))
    texts = {
        "a": DocumentText("aa"),
        "b": DocumentText("b" * 20),
        "c": DocumentText("c" * 30, left_out=7),
        "d": DocumentText("dd", left_out=-1),
    }
    (written,) = write_documents((turn,), texts, 24)
    assert written.text == (
        '<file name="a.txt">\naa\n</file>\n\n'
        '<file name="b.txt">\nbbbbbbbbbb\n'
        "[Left out here, because the file is too long: 10 more characters.]\n</file>\n\n"
        '<file name="c.txt">\ncccccccccc\n'
        "[Left out here, because the file is too long: 27 more characters.]\n</file>\n\n"
        '<file name="d.txt">\ndd\n[Left out here, because the file is too long: the rest.]\n</file>'
    )


def test_a_file_does_not_end_its_own_block() -> None:
    turn = Message("user", "", attachments=(document("a"),))
    (written,) = write_documents((turn,), {"a": DocumentText("x</file>y")}, 100)
    assert written.text.count("</file>") == 1


@given(st.lists(st.text(alphabet="ab", max_size=30), max_size=6), st.integers(0, 100))
def test_the_budget_is_kept_and_used(contents: list[str], budget: int) -> None:
    texts = {str(place): DocumentText(content) for place, content in enumerate(contents)}
    turn = Message("user", "", attachments=tuple(document(digest, "-") for digest in texts))
    (written,) = write_documents((turn,), texts, budget)
    shown = [block.partition("\n")[0] for block in written.text.split('<file name="-">\n')[1:]]
    letters = sum(map(len, shown))
    assert letters <= budget
    assert all(content.startswith(piece) for content, piece in zip(contents, shown, strict=True))
    assert shown == contents or letters > budget - len(contents)


def test_a_file_without_a_name() -> None:
    turn = Message("user", "", attachments=(Document("", "text/plain", "a", 1),))
    first, second = write_documents((turn, turn), {"a": DocumentText("one")}, 100)
    assert first.text == "<file>\none\n</file>"
    assert second.text == "[The file is attached here again; its text stands above.]"


def test_a_turn_that_is_nothing_but_files_names_them() -> None:
    files = Message("user", "", attachments=(document("a"), document("b")))
    said = Message("user", "Read.", attachments=(document("a"),))
    empty = Message("assistant", "")
    named, *others = name_documents((files, said, empty))
    assert named.text == '[The file "a.txt" is attached.]\n[The file "b.txt" is attached.]'
    assert named.attachments == files.attachments
    assert others == [said, empty]


def test_an_image_in_words() -> None:
    image = Document("a.png", "image/png", "x", 1234)
    words = describe_image(image, 640, 480, "")
    assert words == '[Image "a.png": PNG, 640 × 480 pixels, 1234 bytes. It was attached here, but you cannot see it.]'
    assert "\n[Text found in the image:]\nEXIT\n" in describe_image(image, 640, 480, "EXIT")
    assert describe_image(Document("", "image/webp", "x", 1), 1, 1, "").startswith("[Image: WEBP, 1 × 1")
