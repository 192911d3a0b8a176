"""Grafana's dashboard `Dataflow Overview`, as code.

``python -m addons.grafana.dashboard`` prints what ``dashboards/dataflow-overview.json`` holds: that
file is what Grafana reads, and a test holds it against this.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as kinds
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    FieldColorModeId,
    GridPos,
    Threshold,
    ThresholdsMode,
)

__all__ = ["render_dashboard"]

_SOURCE = DataSourceRef(type_val="prometheus", uid="Prometheus")
_ALERT = 'max by (drill) (ALERTS{alertname="FulfillmentDelay",alertstate="firing"})'


def render_dashboard() -> str:
    """Return the dashboard as JSON, with a newline at its end."""
    board = (
        dashboard.Dashboard("Dataflow Overview")
        .uid("dataflow-overview")
        .tags(["dataflow"])
        .timezone("utc")
        .readonly()
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .refresh("5s")
        .time("now-30m", "now")
        .annotation(_annotation())
    )
    for number, panel in enumerate(_panels(), 1):
        board = board.with_panel(panel.id(number))
    return JSONEncoder(sort_keys=True, indent=2).encode(board.build()) + "\n"


def _panels() -> list[timeseries.Panel | stat.Panel]:
    waiting = 'fulfillment_artifacts_backlog_{}{{prefix!="ready/"}}'
    rate = "sum(rate(fulfillment_artifacts_{}_total[$__rate_interval]))"
    by_prefix = "sum by (prefix, origin) ({})"
    return [
        _lines(
            "Fulfillment backlog",
            "Objects that wait, by prefix and origin. Gaps: the exporter could not list the "
            "bucket, so nothing is known.",
            GridPos(x=0, y=0, w=16, h=9),
            {"{{prefix}} {{origin}}": by_prefix.format(waiting.format("objects"))},
            stacked=True,
        ).decimals(0),
        _lines(
            "Fulfillment lag",
            "Minutes since the oldest waiting object's age start; FulfillmentDelay fires over 10.",
            GridPos(x=16, y=0, w=8, h=9),
            {"{{origin}}": "max by (origin) (fulfillment_lag_minutes)"},
            unit="m",
        )
        .thresholds(_red_from(10))
        .thresholds_style(_threshold_line()),
        _lines(
            "Fulfillment backlog bytes",
            "Bytes that wait, by prefix and origin.",
            GridPos(x=0, y=9, w=8, h=8),
            {"{{prefix}} {{origin}}": by_prefix.format(waiting.format("bytes"))},
            unit="bytes",
            stacked=True,
        ),
        _lines(
            "Arrived and moved",
            "Artefacts a second into pending/ and on to ready/. Arrived over moved: the backlog "
            "grows.",
            GridPos(x=8, y=9, w=8, h=8),
            {"arrived": rate.format("arrived"), "moved": rate.format("moved")},
            unit="cps",
        ),
        _lines(
            "Failures by stage",
            "Failed artefacts a second. With failing uploads nothing enters pending/ and no lag "
            "shows.",
            GridPos(x=16, y=9, w=8, h=8),
            {
                "{{stage}} {{reason}}": "sum by (stage, reason) "
                "(rate(fulfillment_artifacts_failed_total[$__rate_interval]))"
            },
            unit="cps",
        ),
        _number(
            "Age of the exporter's refresh",
            "Seconds since the last complete listing of the bucket; old or missing: the other "
            "panels are not to be trusted.",
            GridPos(x=0, y=17, w=8, h=4),
            "time() - max(fulfillment_exporter_last_refresh_timestamp_seconds)",
            unit="s",
        ).thresholds(_red_from(120)),
        _number(
            "Objects in ready/",
            "Released and not yet taken by a consumer.",
            GridPos(x=8, y=17, w=8, h=4),
            'sum(fulfillment_artifacts_backlog_objects{prefix="ready/"})',
        ).decimals(0),
        _number(
            "Carrier latency, 95th percentile",
            "Of requests for a tracking number.",
            GridPos(x=16, y=17, w=8, h=4),
            "histogram_quantile(0.95, sum by (le) "
            "(rate(fulfillment_carrier_request_seconds_bucket[$__rate_interval])))",
            unit="s",
        ),
    ]


def _lines(
    title: str,
    description: str,
    place: GridPos,
    queries: Mapping[str, str],
    *,
    unit: str = "short",
    stacked: bool = False,
) -> timeseries.Panel:
    stacking = kinds.StackingMode.NORMAL if stacked else kinds.StackingMode.NONE
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(_SOURCE)
        .grid_pos(place)
        .unit(unit)
        .min(0)
        .line_width(2)
        .fill_opacity(10 if stacked else 0)
        .stacking(common.StackingConfig().mode(stacking))
        .legend(
            common.VizLegendOptions()
            .display_mode(kinds.LegendDisplayMode.TABLE)
            .placement(kinds.LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs(["lastNotNull", "max"])
        )
        .tooltip(
            common.VizTooltipOptions()
            .mode(kinds.TooltipDisplayMode.MULTI)
            .sort(kinds.SortOrder.DESCENDING)
        )
    )
    for name, (legend, expression) in zip("ABC", queries.items(), strict=False):
        panel = panel.with_target(_query(expression, legend, name))
    return panel


def _number(
    title: str, description: str, place: GridPos, expression: str, *, unit: str = "short"
) -> stat.Panel:
    return (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(_SOURCE)
        .grid_pos(place)
        .unit(unit)
        .min(0)
        .no_value("blind")
        .color_scheme(dashboard.FieldColor().mode(FieldColorModeId.THRESHOLDS))
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .graph_mode(kinds.BigValueGraphMode.NONE)
        .with_target(_query(expression, title))
    )


def _query(expression: str, legend: str, name: str = "A") -> prometheus.Dataquery:
    query = prometheus.Dataquery().datasource(_SOURCE).expr(expression)
    return query.legend_format(legend).ref_id(name)


def _red_from(value: float) -> dashboard.ThresholdsConfig:
    steps = [Threshold(value=None, color="green"), Threshold(value=value, color="red")]
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)


def _threshold_line() -> common.GraphThresholdsStyleConfig:
    return common.GraphThresholdsStyleConfig().mode(kinds.GraphThresholdsStyleMode.LINE)


def _annotation() -> dashboard.AnnotationQuery:
    return (
        dashboard.AnnotationQuery()
        .name("FulfillmentDelay")
        .enable(True)
        .icon_color("red")
        .datasource(_SOURCE)
        .expr(_ALERT)
    )


if __name__ == "__main__":
    sys.stdout.write(render_dashboard())
