"""What did a build find, on one page that anyone can open?"""

from toolchain.report.write import write_report

__all__ = ["write_report"]
