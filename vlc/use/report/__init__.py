"""Reports: a run, a test or a demonstration as one HTML file, with all its pictures inside and nothing from elsewhere."""

from vlc.use.report.command import report
from vlc.use.report.page import Page, Part, write_page
from vlc.use.report.run import Run

__all__ = ["Page", "Part", "Run", "report", "write_page"]
