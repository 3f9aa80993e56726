"""What the operating system does for the job: files written whole and synced, locks that end with their holder, signals.

If the system refuses, the error names the file, the act, and what a person can do about it.
"""

from __future__ import annotations

__all__ = ["descriptors", "files", "lock_holders", "locks", "output_folder", "process", "report_process", "signals"]
