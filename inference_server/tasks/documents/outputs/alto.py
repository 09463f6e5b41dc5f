"""ALTO 4.4, the Library of Congress' XML for text with places (https://www.loc.gov/standards/alto/), in pixels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from inference_server.tasks.documents.outputs.markup import MarkupWriter, attribute, comment
from inference_server.tasks.documents.outputs.places import angle_of, box_around, box_of
from inference_server.tasks.documents.values import Line, PageResult, Quad, Word

_HEAD = """<?xml version="1.0" encoding="UTF-8"?>
<alto xmlns="http://www.loc.gov/standards/alto/ns-v4#" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
 xsi:schemaLocation="http://www.loc.gov/standards/alto/ns-v4# http://www.loc.gov/standards/alto/v4/alto-4-4.xsd" SCHEMAVERSION="4.4">
<Description>
<MeasurementUnit>pixel</MeasurementUnit>
<Processing ID="processing_1"><processingSoftware><softwareName>lamina</softwareName></processingSoftware></Processing>
</Description>
<Layout>
"""
# Blocks may be turned; ALTO has the angle for these alone.
_LEVEL_DEGREES = 0.05


def alto_writer() -> MarkupWriter:
    """A page is one print space. Its lines come in reading order, in one block for each run of lines that are turned alike."""
    return MarkupWriter(head=_HEAD, page=_page, end="</Layout>\n</alto>\n")


def _page(page: PageResult) -> Iterator[str]:
    number, size = page.page_number, (page.width, page.height)
    yield f'<Page ID="page_{number}" PHYSICAL_IMG_NR="{number}" WIDTH="{page.width}" HEIGHT="{page.height}">'
    if page.error:
        # It keeps its place; the schema has none for a reason.
        yield comment(page.error)
    yield f'<PrintSpace HPOS="0" VPOS="0" WIDTH="{page.width}" HEIGHT="{page.height}">\n'
    for index, lines in enumerate(_blocks(page.lines), 1):
        angle = angle_of(lines[0].polygon)
        turned = f' ROTATION="{angle:.1f}"' if abs(angle) > _LEVEL_DEGREES else ""
        box = box_around((line.polygon for line in lines), *size)
        place = f'HPOS="{box.left}" VPOS="{box.top}" WIDTH="{box.width}" HEIGHT="{box.height}"'
        yield f'<TextBlock ID="block_{number}_{index}" {place}{turned}>\n'
        for line_number, line in enumerate(lines, 1):
            yield from _line(line, f"{number}_{index}_{line_number}", size)
        yield "</TextBlock>\n"
    yield "</PrintSpace></Page>\n"


def _blocks(lines: Iterable[Line]) -> list[list[Line]]:
    blocks: list[list[Line]] = []
    for line in lines:
        if blocks and abs(angle_of(line.polygon) - angle_of(blocks[-1][0].polygon)) < 1:
            blocks[-1].append(line)
        else:
            blocks.append([line])
    return blocks


def _line(line: Line, name: str, size: tuple[int, int]) -> Iterator[str]:
    baseline = " ".join(f"{x:.0f},{y:.0f}" for x, y in (line.polygon[3], line.polygon[2]))
    yield f'<TextLine ID="line_{name}" {_place(line.polygon, size)} BASELINE="{baseline}">{_shape(line.polygon)}'
    for index, word in enumerate(line.words, 1):
        if index > 1:
            yield _space(line.words[index - 2], word, size)
        told = f'CONTENT={attribute(word.text)} WC="{word.confidence:.4f}"'
        yield f'<String ID="string_{name}_{index}" {told} {_place(word.polygon, size)}>{_shape(word.polygon)}</String>'
    yield "</TextLine>\n"


def _place(quad: Quad, size: tuple[int, int]) -> str:
    box = box_of(quad, *size)
    return f'HPOS="{box.left}" VPOS="{box.top}" WIDTH="{box.width}" HEIGHT="{box.height}"'


def _shape(quad: Quad) -> str:
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in quad.tolist())
    return f'<Shape><Polygon POINTS="{points}"/></Shape>'


def _space(before: Word, after: Word, size: tuple[int, int]) -> str:
    gap = box_of(np.array([before.polygon[1], before.polygon[2], after.polygon[0], after.polygon[3]]), *size)
    return f'<SP HPOS="{gap.left}" VPOS="{gap.top}" WIDTH="{gap.width}"/>'
