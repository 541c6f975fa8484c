"""The report: one HTML page a run."""

from darkroom.report.build import ReportInputs, build_report

__all__ = ["ReportInputs", "build_report"]
