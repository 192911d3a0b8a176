"""What a notebook shows is text first, and safe HTML."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from IPython.core.formatters import DisplayFormatter
from markupsafe import Markup

from runbook_lib.model import Finding, Line, Plot, Reading, Status
from runbook_lib.show.display import describe
from runbook_lib.show.plots import Picture, plot_ages, plot_lines, plot_reading
from runbook_lib.show.tables import Table, pill, say_value, tabulate_facts, tabulate_findings
from runbook_lib.show.text import (
    clip,
    format_bytes,
    format_duration,
    format_value,
    safe,
    say_left_out,
    visible,
)

Points = tuple[tuple[datetime, float], ...]
AT = datetime(2026, 11, 24, 3, 14, tzinfo=UTC)


def reading(**changes: Any) -> Reading:
    values: dict[str, Any] = {
        "step": "2.1",
        "name": "lag",
        "value": 27.4,
        "unit": "min",
        "status": "breach",
        "observed_at": AT,
        "source": "promql",
        "reason": "it fires",
    }
    return Reading(**{**values, **changes})


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\u202eb", "a‹U+202E›b"),
        ("a\u2066b\u2069", "a‹U+2066›b‹U+2069›"),
        ("pen\u200bding", "pen‹U+200B›ding"),
        ("a\x00b\x1b[31m", "a‹U+0000›b‹U+001B›[31m"),
        ("a\ud800b", "a‹U+D800›b"),
        ("one\r\ntwo\tthree", "one\ntwo\tthree"),
        ("\U000e0041", "‹U+E0041›"),
        ("đơn hàng 📦 ạ", "đơn hàng 📦 ạ"),
    ],
)
def test_invisible_characters_are_shown_and_letters_are_left_alone(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_stacked_marks_are_cut() -> None:
    assert len(visible("Z" + "\u0301" * 500)) < 10


def test_safe_escapes_clips_and_leaves_markup() -> None:
    assert safe('<b a="1">') == "&lt;b a=&#34;1&#34;&gt;"
    assert safe(Markup("<b>")) == "<b>"
    assert clip("x" * 30, 10) == "x" * 10 + "… (+20 characters)"


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (None, "", "–"),
        (True, "", "yes"),
        (1234567, "objects", "1,234,567 objects"),
        (1, "objects", "1 object"),
        (1.0, "s", "1 s"),
        (1, "min of lag less", "1 min of lag less"),
        (0, "releases", "0 releases"),
        (27.4, "min", "27.4 min"),
        (2.0, "", "2"),
        (4_812_800, "bytes", "4.6 MiB"),
        ("paused", "", "paused"),
        (float("nan"), "", "nan"),
    ],
)
def test_values_are_written_for_people(value: Any, unit: str, text: str) -> None:
    assert format_value(value, unit) == text


def test_sizes_and_durations() -> None:
    assert [format_bytes(n) for n in (0, 1023, 1024, 5 << 30)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "5.0 GiB",
    ]
    spans = [
        timedelta(seconds=59),
        timedelta(minutes=35),
        timedelta(hours=3, minutes=4),
        timedelta(days=3),
    ]
    assert list(map(format_duration, spans)) == ["59 s", "35 min", "3 h 04 min", "3 d 0 h"]


@pytest.mark.parametrize("status", list(Status))
def test_a_status_is_word_and_icon_and_colour(status: Status) -> None:
    html = pill(str(status))

    assert str(status).replace("_", " ") in html
    assert any(icon in html for icon in "✓✖?–")
    assert "background-color:#" in html


def test_findings_come_most_supported_first() -> None:
    names = {"refuted": "surge", "undecided": "bad_prefix", "supported": "store_down"}
    found = [Finding(name=n, status=s) for s, n in names.items()]  # type: ignore[arg-type]

    causes = [row["cause"] for row in tabulate_findings(found, "Causes").rows]
    assert causes == ["store_down", "bad_prefix", "surge"]


def test_a_table_has_caption_scope_and_escaped_cells() -> None:
    html = Table("<b>", [{"name": "<script>", "a_b": 1, "status": "ok"}]).to_html()

    assert "<caption" in html
    assert html.count('scope="col"') == 3
    assert "<script>" not in html
    assert "&lt;b&gt;" in html


def test_a_table_without_rows_says_none() -> None:
    assert "none" in Table("x", [], ("a",)).to_html()
    assert "none" in Table("x", []).to_html()


def test_a_table_is_text_too_and_the_same_cells_are_in_both() -> None:
    table = Table("x", [{"key": "k", "size_bytes": 2048, "excluded": {"a": 1}, "none": ""}])
    assert list(table.iter_cells()) == [["k", "2.0 KiB", "a 1", ""]]
    assert table.to_text() == "  k · 2.0 KiB · a 1"
    assert ">k</th>" in table.to_html()
    assert all(f">{cell}</td>" in table.to_html() for cell in ("2.0 KiB", "a 1"))


def test_a_cell_that_is_html_already_is_not_escaped_again() -> None:
    rows = [{"step": Markup("<b>2.1</b>"), "status": Markup("<i>ok</i>"), "met": True}]
    html = Table("x", [*rows, {"step": "<b>"}]).to_html()
    assert "<b>2.1</b>" in html
    assert "<i>ok</i>" in html
    assert "✓ yes" in html
    assert "&lt;b&gt;" in html


def test_a_card_shows_value_reason_source_and_rows() -> None:
    card = describe(reading(rows=[{"key": "pending/1.pdf"}] * 30, facts={"seq": 3})).to_html()

    for text in ("27.4 min", "it fires", "promql", "pending/1.pdf", "20 of 30 rows"):
        assert text in card
    assert describe(reading()).to_text().startswith("✖ breach · 2.1 lag: 27.4 min")


def test_one_row_is_no_rows_and_none_is_no_table() -> None:
    one = describe(reading(rows=[{"key": "pending/1.pdf"}])).to_html()
    assert "2.1 lag: 1 row<" in one
    assert "1 rows" not in one
    assert "<table" not in describe(reading()).to_html()


def test_facts_are_plain_and_sizes_are_for_people() -> None:
    facts = {"free_bytes": 2048, "excluded": {"synthetic": 2, "none": None}, "keys": ["a", "b"]}

    assert tabulate_facts(facts, "details").rows == [
        {"name": "free bytes", "value": "2.0 KiB"},
        {"name": "excluded", "value": "synthetic 2, none –"},
        {"name": "keys", "value": "a, b"},
    ]
    nested = {"detect_s": 5.0, "notify_s": {"slack": 5.2, "teams": None}}
    assert say_value(nested) == "detect s 5, notify s (slack 5.2, teams –)"


class TestPlots:
    points = tuple((AT + timedelta(seconds=30 * i), i / 2) for i in range(40))

    def plot(self, *, chaos: Points = (), pending: Points = (), **more: Any) -> Plot:
        lines = (Line(name="pending", points=pending), Line(name="chaos", points=chaos))
        return Plot(title="Lag", unit="min", lines=lines, **more)

    def test_the_text_says_what_the_picture_shows(self) -> None:
        picture = plot_lines(self.plot(pending=self.points, threshold=10, windows=((AT, None),)))

        assert picture.png.startswith(b"\x89PNG")
        for words in ("Lag", "pending: from 0 at 03:14:00 to 19.5", "threshold is 10 min", "alert"):
            assert words in picture.alt
        assert f'alt="{picture.alt}"' in picture._repr_mimebundle_()["text/html"]

    def test_the_beginning_of_this_incident_is_marked_where_the_lines_show_it(self) -> None:
        since = AT + timedelta(minutes=5)
        plot = self.plot(pending=self.points)

        assert "1: this incident began, 03:19:00" in plot_lines(plot, since=since).alt
        before_all = AT - timedelta(minutes=1)
        assert plot_lines(plot, since=before_all) == plot_lines(plot)

    def test_marks_are_told_by_their_numbers(self) -> None:
        marks = tuple((AT + timedelta(seconds=i), f"action {i}") for i in range(3))
        alt = plot_lines(self.plot(pending=self.points, marks=marks)).alt

        assert "Mark 3: action 2, 03:14:02." in alt

    def test_a_title_with_half_a_character_and_mathematics_is_drawn(self) -> None:
        plot = Plot(title="a \ud800 $b$", lines=(Line(name="lag", points=self.points),))

        assert plot_lines(plot).png.startswith(b"\x89PNG")

    def test_a_single_look_is_drawn_beside_lines_though_it_found_nothing(self) -> None:
        lines = [Line(name=f"line {i}", points=self.points) for i in range(6)]
        look = Line(name="listing", points=((AT, 0.0),))

        assert "listing: from 0" in plot_lines(Plot(lines=(*lines, look))).alt

    def test_the_file_holds_no_words_of_its_own(self) -> None:
        png = plot_lines(self.plot(pending=self.points)).png

        assert b"tEXt" not in png
        assert b"iTXt" not in png

    def test_lines_at_zero_are_left_out_beside_one_that_moves(self) -> None:
        zero = tuple((at, 0.0) for at, _ in self.points)

        assert "chaos" not in plot_lines(self.plot(pending=self.points, chaos=zero)).alt
        assert "chaos" in plot_lines(self.plot(chaos=zero)).alt

    def test_ages_are_counted(self) -> None:
        picture = plot_ages(((0, 5, 3), (5, 10, 2), (10, 30, 4), (30, None, 1)))

        assert picture.png.startswith(b"\x89PNG")
        for words in ("3 for 0–5 ", "2 for 5–10 ", "1 for over 30 "):
            assert words in picture.alt

    @pytest.mark.parametrize(
        "series",
        [
            [],
            [{"name": "lag", "points": []}],
            [{"name": "lag", "points": [["2026-11-24T03:14:00Z", "NaN"]]}],
        ],
    )
    def test_a_reading_without_samples_has_no_picture(self, series: list[Any]) -> None:
        assert plot_reading(reading(plot={"title": "Lag", "lines": series})) is None

    def test_ages_of_nothing_have_no_picture(self) -> None:
        plot = {"ages": [[0, 5, 0], [5, None, 0]]}

        assert plot_reading(reading(plot=plot)) is None

    def test_a_reading_with_ages_has_its_lines_drawn_apart(self) -> None:
        points = [["2026-11-24T03:14:00Z", 1], ["2026-11-24T03:15:00Z", 2]]
        plot = {"title": "Panel", "lines": [{"name": "pending", "points": points}]}
        both = reading(plot=plot | {"ages": [[0, 5, 3], [5, None, 0]]})

        assert plot_reading(both) == plot_ages(((0, 5, 3), (5, None, 0)))
        assert plot_reading(both, ages=False) == plot_reading(reading(plot=plot))

    def test_a_notebook_without_pictures_shows_the_words_not_the_bytes(self) -> None:
        picture = Picture(b"\x89PNG" * 1000, "lag\x07: 3 min")
        data, _ = DisplayFormatter().format(picture)

        assert data["text/plain"] == visible("lag\x07: 3 min")
        assert set(data) == {"text/html", "text/plain"}

    def test_samples_that_are_no_numbers_are_left_out(self) -> None:
        points = [["2026-11-24T03:14:00Z", 1], ["2026-11-24T03:15:00", "NaN"],
                  ["2026-11-24T03:16:00Z", "inf"], ["2026-11-24T03:17:00Z", 2.5]]  # fmt: skip
        picture = plot_reading(
            reading(plot={"title": "Lag", "lines": [{"name": "lag", "points": points}]})
        )

        assert picture is not None
        for words in ("1 at 03:14:00", "2.5 at 03:17:00"):
            assert words in picture.alt


def test_what_a_plan_leaves_out_is_counted_by_reason() -> None:
    words = say_left_out({"incomplete": 1038, "synthetic": 0, "too_young": 1})
    assert words == "left out: 1,038 incomplete, 1 too young"
    assert say_left_out({"synthetic": 0}) == ""
