"""A board as the JSON that Grafana reads (schema v1: Grafana 10 and later provision it from files)."""

from __future__ import annotations

import json
import warnings
from typing import cast

# The SDK recommends its builders for schema v2, which needs Grafana 12; v1 is read by all that are in use.
with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from grafana_foundation_sdk.builders import common as common_builders
    from grafana_foundation_sdk.builders import dashboard as dashboards
    from grafana_foundation_sdk.builders import prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.dashboard import DynamicConfigValue
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from sn17_dashboards.model import SELECTOR, Annotation, Board, Panel, Query, Threshold

SOURCE = common.DataSourceRef(type_val="prometheus", uid="${datasource}")
TAG = "sn17"


def to_json(board: Board) -> str:
    """The dashboard's JSON text, the same for the same board."""
    builder = (
        dashboards.Dashboard(board.title)
        .uid(f"sn17-{board.name}")
        .description(board.text)
        .tags([TAG])
        .readonly()
        .refresh("30s")
        .time("now-3h", "now")
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .link(
            dashboards.DashboardLink("sn17")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .keep_time(True)
        )
        .annotations([_annotation(a) for a in board.annotations])
    )
    for variable in _variables():
        builder = builder.with_variable(variable)
    for panel in board.panels:
        builder = builder.with_panel(_panel(panel))
    return json.dumps(builder.build(), cls=_Encoder, indent=2, sort_keys=True) + "\n"


class _Encoder(JSONEncoder):
    """A threshold that the chart fills in stands as the string ``@name@`` where Grafana wants a number."""

    def default(self, o: object) -> object:
        return str(o) if isinstance(o, Threshold) else super().default(o)


def _variables() -> list[
    dashboards.DatasourceVariable | dashboards.QueryVariable | dashboards.CustomVariable
]:
    def labels(name: str, query: str) -> dashboards.QueryVariable:
        return (
            dashboards.QueryVariable(name)
            .datasource(SOURCE)
            .query({"query": query, "refId": name, "qryType": 1})
            .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(models.VariableSort.ALPHABETICAL_ASC)
        )

    windows = [models.VariableOption(text=w, value=w, selected=w == "1h") for w in ("15m", "1h", "4h", "24h")]
    return [
        dashboards.DatasourceVariable("datasource").label("Prometheus").type("prometheus"),
        labels("namespace", "label_values(sn17_boot_info, namespace)"),
        labels("release", 'label_values(sn17_boot_info{namespace="$namespace"}, release)'),
        labels("validator", f"label_values(sn17_tasks_pulled_total{{{SELECTOR}}}, validator)")
        .label("Validator")
        .multi(True)
        .include_all(True)
        .all_value(".*"),
        dashboards.CustomVariable("window")
        .label("Window")
        .values("15m,1h,4h,24h")
        .options(windows)
        .current(windows[1]),
    ]


def _annotation(annotation: Annotation) -> dashboards.AnnotationQuery:
    return (
        dashboards.AnnotationQuery()
        .name(annotation.name)
        .datasource(SOURCE)
        .enable(True)
        .icon_color(annotation.colour)
        .expr(annotation.expr)
        .title_format(annotation.title)
    )


def _panel(panel: Panel) -> stat.Panel | timeseries.Panel | table.Panel:
    if panel.kind == "table":
        return _table(panel)
    return _number(panel) if panel.kind == "number" else _graph(panel)


def _target(query: Query, index: int, *, instant: bool) -> prometheus.Dataquery:
    target = (
        prometheus.Dataquery()
        .datasource(SOURCE)
        .ref_id(chr(ord("A") + index))
        .expr(query.expr)
        .legend_format(query.legend)
    )
    return target.instant() if instant else target.range()


def _thresholds(panel: Panel) -> dashboards.ThresholdsConfig:
    steps = [models.Threshold(value=None, color=panel.base)]
    # The encoder writes a threshold of the chart as text, which the chart turns into a number.
    steps += [models.Threshold(value=cast(float, step.value), color=step.colour) for step in panel.steps]
    return dashboards.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)


def _number(panel: Panel) -> stat.Panel:
    builder = (
        stat.Panel()
        .title(panel.title)
        .description(panel.text)
        .datasource(SOURCE)
        .unit(panel.unit)
        .no_value("no data")
        .thresholds(_thresholds(panel))
        .color_mode(common.BigValueColorMode.VALUE if panel.steps else common.BigValueColorMode.NONE)
        .graph_mode(common.BigValueGraphMode.NONE)
        .text_mode(common.BigValueTextMode.VALUE_AND_NAME)
        .reduce_options(common_builders.ReduceDataOptions().calcs(["lastNotNull"]))
        .span(panel.width)
        .height(panel.height)
    )
    for index, query in enumerate(panel.queries):
        builder = builder.with_target(_target(query, index, instant=True))
    return builder


def _table(panel: Panel) -> table.Panel:
    columns = {f"Value #{chr(ord('A') + index)}": query.legend for index, query in enumerate(panel.queries)}
    order = {name: place for place, name in enumerate((panel.key, *columns))}
    organise = {
        "excludeByName": {"Time": True},
        "indexByName": order,
        "renameByName": {**columns, panel.key: panel.key.capitalize()},
    }
    builder = (
        table.Panel()
        .title(panel.title)
        .description(panel.text)
        .datasource(SOURCE)
        .unit(panel.unit)
        .no_value("no data")
        .thresholds(_thresholds(panel))
        .with_transformation(models.DataTransformerConfig(id_val="merge", options={}))
        .with_transformation(models.DataTransformerConfig(id_val="organize", options=organise))
        .span(panel.width)
        .height(panel.height)
    )
    for index, query in enumerate(panel.queries):
        target = _target(query, index, instant=True).format(PromQueryFormat.TABLE)
        builder = builder.with_target(target)
        settings = [DynamicConfigValue(id_val="unit", value=query.unit or panel.unit)]
        if panel.steps and (query.unit or panel.unit) == panel.unit:
            settings.append(DynamicConfigValue(id_val="custom.cellOptions", value={"type": "color-text"}))
        builder = builder.override_by_name(query.legend, settings)
    return builder


def _graph(panel: Panel) -> timeseries.Panel:
    builder = (
        timeseries.Panel()
        .title(panel.title)
        .description(panel.text)
        .datasource(SOURCE)
        .unit(panel.unit)
        .no_value("no data")
        .thresholds(_thresholds(panel))
        .legend(
            common_builders.VizLegendOptions()
            .display_mode(common.LegendDisplayMode.TABLE)
            .placement(common.LegendPlacement.RIGHT)
            .calcs(["lastNotNull"])
            .show_legend(True)
        )
        .tooltip(common_builders.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI))
        .line_width(2)
        .span_nulls(False)
        .show_points(common.VisibilityMode.NEVER)
        .span(panel.width)
        .height(panel.height)
    )
    if panel.minimum is not None:
        builder = builder.min(panel.minimum)
    if panel.maximum is not None:
        builder = builder.max(panel.maximum)
    if panel.kind == "bars":
        builder = (
            builder.draw_style(common.GraphDrawStyle.BARS)
            .fill_opacity(60)
            .stacking(common_builders.StackingConfig().mode(common.StackingMode.NORMAL))
        )
    for index, query in enumerate(panel.queries):
        builder = builder.with_target(_target(query, index, instant=False))
        if query.constant:
            builder = builder.override_by_query(chr(ord("A") + index), _dashed(query.constant))
    for name, colour in panel.colours:
        fixed = DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": colour})
        builder = builder.override_by_name(name, [fixed])
    return builder


def _dashed(colour: str) -> list[DynamicConfigValue]:
    return [
        DynamicConfigValue(id_val="custom.lineStyle", value={"fill": "dash", "dash": [6, 6]}),
        DynamicConfigValue(id_val="custom.lineWidth", value=1),
        DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": colour}),
    ]
