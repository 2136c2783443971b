"""Makes the binary samples beside this file; the text ones are written by hand.

Not part of set-up: the made files are committed. To change one, edit it here and run, in a
throw-away environment:  pip install python-docx python-pptx openpyxl && python make.py
"""

from __future__ import annotations

import math
import textwrap
from pathlib import Path

from docx import Document
from openpyxl import Workbook
from pptx import Presentation
from pptx.util import Pt

HERE = Path(__file__).resolve().parent

# one string a page; '# ' a title, '## ' a heading, a blank line between paragraphs
ANNUAL_REPORT = [
    """# Skerrow Marine Station
## Annual report 2025

Skerrow Marine Station has watched one small piece of the North Atlantic since 1931. Nineteen
people live and work in the old lighthouse keepers' houses, together with a research vessel, nine
buoys, a kelp nursery and, from November to January, rather more grey seals than the kitchen
garden can bear.

## The year in five sentences

We listened to the sea for 8,412 hours and heard minke whales on 203 days. The kelp nursery filled
its last empty line. Grey seals raised 318 pups, the highest count since records began. The RV
Petrel spent 141 days at sea and only two in the repair dock. And the kettle in the common room,
in service since 1968, was finally replaced.

Dr Ailsa Renwick, director""",
    """## 1. The Long Ear: what the hydrophones heard

The Long Ear is a line of twelve hydrophones on the sea floor between Skerrow and the Hollow Bank.
It records everything from snapping shrimp to the evening ferry.

The most important result of the year came by accident. From 3 May to 21 June the ferry company ran
its boats at eleven knots instead of sixteen, because of an engine fault. The sea became six
decibels quieter, and harbour porpoises came back into the sound within nine days. When the
ferries returned to full speed, the porpoises left again. We have asked the company to keep the
slower timetable in summer; passengers would lose fourteen minutes.

Minke whales called mostly between two and five in the morning. One animal, known by a falling
three-note call, was heard in every month but February. The bioacoustics group, led by Dr Mei-Lin
Zhao, has named it Cello.""",
    """## 2. Kelp: the last empty line

The nursery now holds forty lines of sugar kelp. Young plants settle on twine in the warm-water
tanks in October and go out to the sheltered side of the island in December. Growth was best on the
six lines nearest the freshwater spring, and nobody yet knows why.

Storm Ingrid tore loose four lines on 9 January. All four were found by fishermen and returned, one
of them with a lumpsucker living in it.

Restored kelp forest covers 5.3 hectares, up from 3.9 the year before. Young cod were counted in it
for the first time: eleven of them, each about the length of a thumb.""",
    """## 3. Seals and seabirds

Grey seals raised 318 pups on the western beaches, 27 more than in 2024. Two were found
underweight, fed at the station for three weeks and released.

Kittiwakes had a poor summer. Of 1,140 nests only 412 fledged a chick, most likely because sandeels
arrived late. Puffins did better: burrows in use rose to 2,260, and the new boardwalk keeps
visitors' boots away from them.

A single gyrfalcon stayed for eleven days in March and frightened everyone equally.""",
    """## 4. Water and weather

The mean temperature of the surface water was 10.9 degrees, the second warmest of our series. A
marine heatwave from 12 July to 2 August lifted it to 16.4 degrees at buoy 3, and the mussel ropes
on the south side lost about a third of their crop.

Oxygen at the bottom of the Hollow Bank trench never fell below 5.8 milligrams a litre, which is
good news: in 2019 it touched 4.1.

The tide gauge in the harbour recorded a sea level 3.4 millimetres above the year before.""",
    """## 5. Money and people

Income was 2.41 million crowns, of which 1.52 million came from the state, 0.61 million from
research grants and the rest from visitors and gifts. Keeping the RV Petrel at sea is our largest
cost: fuel, crew and insurance took 38 of every 100 crowns.

Jonas Petersen joined as engineer for the buoys. Oona Kerr, who ran the stores for thirty-one
years, retired in September and left behind a card index that the whole station still relies on.

The partnership with Wattwerk Norderholm on eelgrass was extended to 2028, and that with the
dolphin watch at Qingyu began with a visit of four colleagues in October.""",
]

ATLAS = [
    """# Seabed atlas of the Skerrow shelf
## Second edition

The plates in this atlas were drawn from 214 lines of multibeam sonar that the RV Petrel ran in
2023 and 2024. Depths are metres below the lowest tide. Colours step every 35 metres.

Plate 1 shows the whole shelf. The text after it describes what lies there, from the shore
outward.""",
    None,  # the plate: an uncompressed raster that makes the file larger than 6 MiB
    """## Reading the plate: from the shore to the Hollow Bank

The Skirt is the shallow ring around the island, down to 20 metres: boulders, kelp and sand in
pockets. Anchoring is forbidden on its southern half, where the eelgrass trial is.

East of it the floor falls gently to the Long Field, a plain of shell gravel at 70 to 90 metres.
The hydrophone line crosses it. Old trawl marks can still be seen as pale parallel scratches.

The Hollow Bank rises to 48 metres, and beside it lies its trench, the deepest water on the shelf:
412 metres at 61.214 north, 4.870 west. The trench is 900 metres long and hardly wider than a
street. Cold-water corals grow on its northern wall between 180 and 260 metres.""",
    """## Wrecks and obstacles

Four wrecks are marked. The steamer Corvina, lost in fog in 1917, lies upright at 64 metres and is
covered with dead man's fingers. The trawler Good Intent lies at 83 metres; its nets are still
rigged and dangerous to divers and to remotely operated vehicles.

The third is only an engine block. The fourth turned out to be a basalt pinnacle and keeps its
mark because everybody likes the name: the Bishop.""",
]

HANDBOOK = """# Diving handbook
Rules for every dive from Skerrow Marine Station, in force from 1 February 2026. The diving officer
is Rhona Flett; her word ends every discussion.
## Before the dive
No one dives alone, and no one dives with a cold. The pair checks each other's kit aloud, from the
mask down to the fins. The boat carries oxygen, a spare regulator and the yellow card with the
numbers of the hyperbaric chamber.
Sea state above 4, visibility under two metres or a current above one knot end the plan.
## When somebody runs out of breathing gas
Signal with a flat hand across the throat. The buddy hands over the long hose, holds on to the
harness, and both stop, breathe and look at each other for five breaths before they move. Then they
rise together at nine metres a minute, with a safety stop of three minutes at five metres if the
remaining gas allows it. Never race to the surface.
## Decompression sickness
Pain in a joint, a rash, tingling or unusual tiredness within a day of a dive is decompression
sickness until a doctor says otherwise. Give pure oxygen at fifteen litres a minute, lay the person
flat, let them drink water, and call the chamber in Kirkvoe. No flight for twenty-four hours after
the last dive.
## Seals
A curious seal is not an emergency. Keep the hands close to the body, do not feed it, and accept
that it swims better than you do."""

SEAGRASS = """# Seegraswiesen vor Skerrow: Zwischenbericht
Wattwerk Norderholm, gemeinsam mit der Meeresstation Skerrow. Verfasst von Dr. Henrike Lüders und
Tomasz Brandl, März 2026.
## Warum das Seegras zurückkehrt
Seit das Ankern auf der Südseite verboten ist, wächst das Seegras wieder. Die Fläche hat sich in
zwei Jahren von 1,2 auf 2,9 Hektar vergrößert. Entscheidend war nicht die Pflanzung allein, sondern
das klare Wasser: Die Muschelbänke filtern den Schlick, und mehr Licht erreicht den Boden.
## Aussaat und Pflanzung
Im September wurden 48.000 Samen in Jutesäckchen ausgelegt. Nach sechs Monaten waren 31 Prozent
gekeimt. Die von Hand gesetzten Sprosse überstanden den Wintersturm besser, kosten aber das
Zwanzigfache an Arbeit.
## Tiere in der Wiese
Gezählt wurden Grasnadeln, junge Seehasen und erstmals ein Seepferdchen. Ringelgänse fressen im
Herbst etwa ein Zehntel der Blätter; das schadet der Wiese nicht."""

SLIDES = [
    (
        "Voyage to the Hollow Bank",
        [
            "RV Petrel, 4 to 19 May 2026",
            "Chief scientist: Dr Tomasz Brandl",
            "Eleven berths, all taken",
        ],
        "Welcome everyone. Remind them that the galley closes at nine.",
    ),
    (
        "What we want to know",
        [
            "Do the corals on the northern wall still grow?",
            "How fast does sand move along the trench?",
            "Who makes the knocking sound at 300 hertz?",
        ],
        "The knocking was first recorded in 2022. The best guess is haddock, but nobody has seen "
        "the singer yet.",
    ),
    (
        "The route",
        [
            "Day 1 and 2: hydrophones 5 to 12",
            "Day 3 to 11: trench and bank",
            "Day 12 to 15: way home along the Long Field",
        ],
        "If the wind goes above force 8 we shelter behind the island of Muckle Tarn.",
    ),
    (
        "Permits and safety",
        [
            "Sampling permit NP-2291-K: at most 12 coral fragments",
            "No anchoring above the coral wall",
            "Man overboard drill on the first evening",
        ],
        "Permit NP-2291-K expires on 31 May 2026. The ministry wants the sample list within ten "
        "days of our return.",
    ),
    (
        "Who sleeps where",
        [
            "Forward cabin: bioacoustics",
            "Middle cabins: geology and corals",
            "Aft: crew and the snorers",
        ],
        "Earplugs are in the drawer under the chart table.",
    ),
]

BUDGET = {
    "Summary": [
        ["Skerrow Marine Station: budget 2026, in thousand crowns"],
        ["Area", "Planned", "Spent in 2025", "Change"],
        ["Research vessel", 940, 916, 24],
        ["Laboratory", 310, 288, 22],
        ["Buoys and hydrophones", 265, 301, -36],
        ["Kelp nursery", 120, 96, 24],
        ["Buildings and kitchen", 205, 198, 7],
        ["People", 610, 587, 23],
        ["Total", 2450, 2386, 64],
    ],
    "Vessel": [
        ["Item", "Planned", "Note"],
        ["Marine diesel, 310,000 litres", 402, "price fixed until September"],
        ["Crew of six", 298, "includes relief captain"],
        ["Insurance", 91, "premium fell after the new fire doors"],
        ["Dry dock in Kirkvoe", 118, "propeller shaft, every fifth year"],
        ["Winch cable", 31, "the old one has 4,000 metres left in it, on paper"],
    ],
    "Buoys": [
        ["Buoy", "Battery changed", "Next service", "Planned"],
        ["Buoy 3", "2025-06-12", "2026-06-10", 18],
        ["Buoy 7", "2026-03-16", "2026-09-01", 44],
        ["Buoy 9", "2024-10-30", "2026-04-22", 27],
        ["Hydrophones 1 to 12", "2025-05-02", "2026-05-04", 176],
    ],
}


def pdf_text(text: str) -> bytes:
    """One page of text as PDF drawing commands (Helvetica, A4)."""
    styles = {"# ": ("F2", 24, 40), "## ": ("F2", 15, 60), "": ("F1", 11, 84)}
    out, y = ["BT"], 780.0
    for block in text.replace("\n## ", "\n\n## ").split("\n\n"):
        block = block.strip()
        prefix = next(mark for mark in styles if block.startswith(mark))
        font, size, width = styles[prefix]
        for line in textwrap.wrap(" ".join(block.removeprefix(prefix).split()), width):
            safe = line.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")
            out.append(f"/{font} {size} Tf 1 0 0 1 60 {y:.0f} Tm ({safe}) Tj")
            y -= size * 1.4
        y -= 10
    return "\n".join([*out, "ET"]).encode("cp1252")


def relief(width: int, height: int) -> bytes:
    """A sea floor in steps of colour, RGB, three bytes a pixel; flat areas pack small."""
    rows = []
    for j in range(height):
        row = bytearray()
        for i in range(width):
            x, y = i / width * 6 - 3, j / height * 4 - 2
            depth = 140 + 60 * x - 130 * math.exp(-((x + 1.8) ** 2) - y**2)
            depth += 230 * math.exp(-9 * (y - 0.3 * x) ** 2 - (x - 1.6) ** 2) + 18 * math.sin(
                2 * y + x
            )
            step = max(0, min(12, int(depth // 35)))
            row += bytes((220 - 16 * step, 235 - 12 * step, 245 - 7 * step))
        rows.append(bytes(row))
    return b"".join(rows)


def write_pdf(name: str, title: str, pages: list[str | None]) -> None:
    """Write a PDF without compression; None among the pages is the atlas's plate."""
    font = b"<< /Type /Font /Subtype /Type1 /BaseFont /%s /Encoding /WinAnsiEncoding >>"
    objects: dict[int, bytes] = {
        1: b"<< /Type /Catalog /Pages 2 0 R >>",
        3: font % b"Helvetica",
        4: font % b"Helvetica-Bold",
        5: f"<< /Title ({title}) /Author (Skerrow Marine Station) >>".encode("cp1252"),
    }

    def add(dictionary: str, stream: bytes) -> int:
        number = max(objects) + 1
        head = f"<< {dictionary} /Length {len(stream)} >>\nstream\n".encode()
        objects[number] = head + stream + b"\nendstream"
        return number

    kids = []
    for text in pages:
        resources = "/Font << /F1 3 0 R /F2 4 0 R >>"
        if text is None:
            width, height = 1900, 1270
            image = add(
                f"/Type /XObject /Subtype /Image /Width {width} /Height {height} "
                "/ColorSpace /DeviceRGB /BitsPerComponent 8",
                relief(width, height),
            )
            resources += f" /XObject << /Plate {image} 0 R >>"
            drawing = b"q 475 0 0 317 60 420 cm /Plate Do Q\n" + pdf_text(
                "## Plate 1: the Skerrow shelf\n\nLight is shallow, dark is deep."
            )
        else:
            drawing = pdf_text(text)
        content = add("", drawing)
        kids.append(max(objects) + 1)
        objects[kids[-1]] = (
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents {content} 0 R "
            f"/Resources << {resources} >> >>"
        ).encode()
    references = " ".join(f"{kid} 0 R" for kid in kids)
    objects[2] = f"<< /Type /Pages /Kids [{references}] /Count {len(kids)} >>".encode()

    out, offsets = bytearray(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n"), {}
    for number in sorted(objects):
        offsets[number] = len(out)
        out += f"{number} 0 obj\n".encode() + objects[number] + b"\nendobj\n"
    start, count = len(out), len(objects) + 1
    out += f"xref\n0 {count}\n0000000000 65535 f \n".encode()
    out += b"".join(f"{offsets[number]:010d} 00000 n \n".encode() for number in sorted(objects))
    out += f"trailer\n<< /Size {count} /Root 1 0 R /Info 5 0 R >>\n".encode()
    out += f"startxref\n{start}\n%%EOF\n".encode()
    (HERE / name).write_bytes(out)


def write_docx(name: str, text: str, table: list[list[str]] | None = None) -> None:
    """Write a DOCX: '# ' and '## ' become headings, unindented lines flow into paragraphs."""
    document = Document()
    paragraph: list[str] = []
    for line in [*text.splitlines(), "## "]:
        level = 2 if line.startswith("## ") else 1 if line.startswith("# ") else 0
        if level == 0:
            paragraph.append(line)
            continue
        if paragraph:
            document.add_paragraph(" ".join(paragraph))
            paragraph = []
        if title := line.lstrip("# "):
            document.add_heading(title, level)
    if table:
        grid = document.add_table(rows=0, cols=len(table[0]))
        for row in table:
            for cell, value in zip(grid.add_row().cells, row, strict=True):
                cell.text = value
    document.save(HERE / name)


def write_pptx(name: str) -> None:
    """Write the briefing: a title, bullets and speaker's notes a slide."""
    deck = Presentation()
    for title, bullets, notes in SLIDES:
        slide = deck.slides.add_slide(deck.slide_layouts[1])
        slide.shapes.title.text = title
        frame = slide.placeholders[1].text_frame
        frame.text = "\n".join(bullets)
        for paragraph in frame.paragraphs:
            paragraph.font.size = Pt(28)
        slide.notes_slide.notes_text_frame.text = notes
    deck.save(HERE / name)


def write_xlsx(name: str) -> None:
    """Write the budget, a sheet per area; plain values, no formulas."""
    book = Workbook()
    book.remove(book.active)
    for title, rows in BUDGET.items():
        sheet = book.create_sheet(title)
        for row in rows:
            sheet.append(row)
    book.save(HERE / name)


if __name__ == "__main__":
    write_pdf("annual-report-2025.pdf", "Annual report 2025", ANNUAL_REPORT)
    write_pdf("seabed-atlas.pdf", "Seabed atlas of the Skerrow shelf", ATLAS)
    write_docx(
        "diving-handbook.docx",
        HANDBOOK,
        [
            ["Who", "Radio channel", "Telephone"],
            ["Diving officer", "12", "0550 114"],
            ["Hyperbaric chamber, Kirkvoe", "16", "0550 900"],
            ["Coast guard", "16", "112"],
        ],
    )
    write_docx("Seegraswiesen-Zwischenbericht.docx", SEAGRASS)
    write_pptx("hollow-bank-briefing.pptx")
    write_xlsx("budget-2026.xlsx")
