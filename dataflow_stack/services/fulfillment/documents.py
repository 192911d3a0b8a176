"""The two documents of an order, as small PDFs."""

from __future__ import annotations

from datetime import datetime

from fpdf import FPDF

__all__ = ["make_document"]

_TITLES = {"label": "Shipping label", "packing_slip": "Packing slip"}


def make_document(
    kind: str, *, order_id: int, carrier: str, artifact_id: str, since: datetime
) -> bytes:
    """Make a label or a packing slip.

    Parameters
    ----------
    kind
        ``label`` or ``packing_slip``.
    order_id, carrier, artifact_id, since
        What is printed. The tracking number is not: it stands in the object's metadata,
        from which the print station adds it as a barcode.
    """
    pdf = FPDF(orientation="P", unit="mm", format=(100, 150))
    # With a fixed date the same order always gives the same bytes, hence the same ETag.
    pdf.set_creation_date(since)
    pdf.set_auto_page_break(False)
    pdf.add_page()
    pdf.set_font("helvetica", style="B", size=16)
    pdf.cell(text=f"{_TITLES[kind]} {order_id}", new_x="LMARGIN", new_y="NEXT")
    pdf.set_font("helvetica", size=10)
    for line in (
        f"Carrier: {carrier}",
        f"Shipped at: {since:%Y-%m-%d %H:%M} UTC",
        f"Artefact: {artifact_id}",
    ):
        pdf.cell(text=line, new_x="LMARGIN", new_y="NEXT")
    if kind == "label":
        _draw_bars(pdf, artifact_id)
    return bytes(pdf.output())


def _draw_bars(pdf: FPDF, artifact_id: str) -> None:
    left = 10.0
    for digit in artifact_id.replace("-", "")[:24]:
        width = 0.6 + int(digit, 16) / 8
        pdf.rect(left, 60, width, 30, style="F")
        left += width + 1.0
