"""Dashboards as code: `python -m sn17_dashboards` writes the JSON files of the chart."""
