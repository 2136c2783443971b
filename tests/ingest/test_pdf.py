from __future__ import annotations

import pytest

from narwhal.ingest.document import ReadError
from narwhal.ingest.extractors.pdf import _tidy
from narwhal.ingest.limits import Limits
from tests.ingest.conftest import Read
from tests.ingest.files import pdf, text_at


def test_pages_lines_and_boxes_are_where_they_are_drawn(read: Read) -> None:
    document = read(
        pdf(text_at(60, 720, "Upper line") + text_at(60, 80, "Lower line"), ""), "a.pdf"
    )

    first, second = document.pages
    assert document.paged
    assert (first.number, first.width, first.height) == (1, 600, 800)
    assert first.text == "Upper line\n\nLower line"
    assert [first.text[line.start : line.end] for line in first.lines] == [
        "Upper line",
        "Lower line",
    ]
    x0, y0, x1, y1 = first.lines[0].box
    assert x0 == pytest.approx(0.1, abs=0.01)
    assert y1 == pytest.approx(0.1, abs=0.005)  # 80 of 800 points from the top
    assert 0.08 < y0 < y1
    assert x0 < x1 < 0.3
    assert first.lines[1].box[1] > 0.88
    assert (second.number, second.text) == (2, "")


@pytest.mark.parametrize(
    ("rotation", "size", "corner"),
    [
        (90, (800, 600), "top right"),
        (180, (600, 800), "bottom right"),
        (270, (800, 600), "bottom left"),
    ],
)
def test_boxes_turn_with_the_page(
    read: Read, rotation: int, size: tuple[int, int], corner: str
) -> None:
    content = text_at(20, 770, "Corner")  # at the top left before the rotation
    page = read(pdf(content, page_extra=f"/Rotate {rotation}"), "a.pdf").pages[0]

    x0, y0, x1, y1 = page.lines[0].box
    assert (page.width, page.height) == size
    assert (y1 < 0.2) == ("top" in corner)
    assert (x0 > 0.8) == ("right" in corner)
    assert (y0 > 0.8) == ("bottom" in corner)
    assert (x1 < 0.2) == ("left" in corner)


def test_boxes_are_relative_to_a_crop_box_away_from_the_origin(read: Read) -> None:
    content = text_at(150, 480, "Inside")
    page = read(pdf(content, page_extra="/CropBox[100 100 300 500]"), "a.pdf").pages[0]

    assert (page.width, page.height) == (200, 400)
    assert page.lines[0].box[0] == pytest.approx(0.25, abs=0.02)
    assert page.lines[0].box[3] == pytest.approx(0.05, abs=0.01)


def test_words_cut_at_a_line_end_are_joined_again(read: Read) -> None:
    lines = [
        "We measured the ther-",
        "mal drift with state-of-the-",
        "art gear off the South-",
        "East.",
    ]
    content = "".join(text_at(50, 700 - 14 * i, line) for i, line in enumerate(lines))
    page = read(pdf(content), "a.pdf").pages[0]

    assert (
        page.text == "We measured the thermal drift with state-of-the-art gear off the South-East."
    )
    tops = [line.box[1] for line in page.lines]
    assert len(tops) == 4  # each line keeps a box of its own
    assert tops == sorted(tops)


def test_a_locked_pdf_says_so_and_an_empty_password_opens(read: Read) -> None:
    content = text_at(50, 700, "For your eyes")

    with pytest.raises(ReadError) as error:
        read(pdf(content, user_password="sesame"), "a.pdf")
    assert error.value.code == "encrypted_pdf"
    assert read(pdf(content, user_password=""), "a.pdf").pages[0].text == "For your eyes"


def test_form_values_ticks_and_notes_follow_the_text(read: Read) -> None:
    widget = "/Subtype/Widget/Rect[50 600 200 620]/P 10 0 R"
    objects = {
        100: f"<</Type/Annot{widget}/FT/Tx/T(iban)/TU(Account)/V(DE89 3704)>>",
        101: f"<</Type/Annot{widget}/FT/Tx/T(pin)/V(0000)/Ff 8192>>",
        102: f"<</Type/Annot{widget}/FT/Tx/T(empty)/V()>>",
        103: "<</Type/Annot/Subtype/Text/Rect[300 300 320 320]/Contents(Please check this)>>",
        104: "<</Type/Annot/Subtype/Text/Rect[1 1 2 2]/F 2/Contents(invisible remark)>>",
    }
    document = read(
        pdf(
            text_at(50, 700, "Order form"),
            page_extra="/Annots[100 0 R 101 0 R 102 0 R 103 0 R 104 0 R]",
            catalog_extra="/AcroForm<</Fields[100 0 R 101 0 R 102 0 R]>>",
            objects=objects,
        ),
        "a.pdf",
    )

    page = document.pages[0]
    assert page.text == "Order form\nAccount: DE89 3704\nPlease check this"
    assert page.lines[1].box == pytest.approx((50 / 600, 180 / 800, 200 / 600, 200 / 800), abs=1e-4)


def test_bookmarks_become_headings_where_their_title_stands(read: Read) -> None:
    objects = {
        100: "<</Type/Outlines/First 101 0 R/Last 101 0 R/Count 1>>",
        101: "<</Title(Methods)/Parent 100 0 R/Dest[10 0 R/Fit]/First 102 0 R/Last 102 0 R>>",
        102: "<</Title(Field work)/Parent 101 0 R/Dest[12 0 R/Fit]/Next 101 0 R>>",  # a loop
    }
    first = (
        text_at(50, 700, "Preface") + text_at(50, 500, "Methods") + text_at(50, 480, "We dived.")
    )
    document = read(
        pdf(
            first,
            text_at(50, 700, "Field work"),
            catalog_extra="/Outlines 100 0 R",
            objects=objects,
        ),
        "a.pdf",
    )

    page = document.pages[0]
    assert [(h.level, h.text, page.text[h.start : h.start + 7]) for h in page.headings] == [
        (1, "Methods", "Methods")
    ]
    assert [(h.level, h.text, h.start) for h in document.pages[1].headings] == [
        (2, "Field work", 0)
    ]


def test_one_broken_page_does_not_spoil_the_others(read: Read) -> None:
    data = pdf(text_at(50, 700, "First"), text_at(50, 700, "Second"), text_at(50, 700, "Third"))
    document = read(data.replace(b"12 0 obj\n<</Type/Page/", b"12 0 obj\n<</Type/Pagf/"), "a.pdf")

    texts = [page.text for page in document.pages]
    assert texts[0] == "First"
    assert texts[-1] == "Third"


def test_the_two_letters_of_an_arabic_ligature_are_in_order(read: Read) -> None:
    mapping = (
        "/CIDInit/ProcSet findresource begin begincmap 1 begincodespacerange <00> <FF> "
        "endcodespacerange 2 beginbfchar <41> <06440627> <42> <0645> endbfchar endcmap"
    )
    objects = {
        3: "<</Type/Font/Subtype/Type1/BaseFont/Helvetica/ToUnicode 100 0 R>>",
        100: f"<</Length {len(mapping)}>>stream\n{mapping}\nendstream",
    }
    page = read(pdf(text_at(50, 700, "AB"), objects=objects), "a.pdf").pages[0]
    assert page.text == "\u0645\u0644\u0627"  # read from the right: B, then both letters of A


def test_presentation_forms_become_the_letters_people_type() -> None:
    assert _tidy("لغةPython و") == "لغة Python و"
    assert _tidy("\ufe8d\ufee7\ufeee\ufe8d\ufecb \ufb01ne") == "انواع fine"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"%PDF-1.7\nnothing more", "corrupt"),
        (pdf(), "corrupt"),
        (pdf(*[""] * 6), "limit_output"),
    ],
    ids=["no objects", "no pages", "too many pages"],
)
def test_what_cannot_be_read_has_a_code(read: Read, data: bytes, code: str) -> None:
    with pytest.raises(ReadError) as error:
        read(data, "a.pdf", Limits(pages=5))
    assert error.value.code == code


def test_a_page_that_unfolds_without_end_is_refused_before_it_is_unfolded(read: Read) -> None:
    with pytest.raises(ReadError) as error:
        read(pdf(" " * (130 * 2**20), compress=True), "a.pdf")
    assert error.value.code == "limit_memory"
    assert read(pdf(text_at(9, 9, "fine") + " " * 2**20, compress=True), "a.pdf").pages[0].text
