"""Looks up the locked packages in public lists of vulnerabilities: `python -m tests.audit`, where pip-audit is installed.

It exits with 1 if a package has a known vulnerability. If no list can be reached, it says so and exits with 0.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

LOCK = Path(__file__).resolve().parent.parent / "config" / "requirements.lock"
SERVICES = ("pypi", "osv")


def ask(service):
    """What pip-audit reports of the lock, or nothing, and the last line that it wrote on standard error."""
    command = [sys.executable, "-m", "pip_audit", "--progress-spinner=off", "--disable-pip", "--format=json"]
    done = subprocess.run(
        [*command, f"--vulnerability-service={service}", f"--requirement={LOCK}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return (json.loads(done.stdout) if done.stdout.strip() else {}), done.stderr.strip().rpartition("\n")[2]


def verdict(report):
    """The number of packages that were looked up, and a line for each vulnerability."""
    looked_up = [package for package in report.get("dependencies", []) if "vulns" in package]
    lines = [
        f"{package['name']} {package['version']}: {found['id']}, fixed in {', '.join(found['fix_versions']) or 'none yet'}"
        for package in looked_up
        for found in package["vulns"]
    ]
    return len(looked_up), lines


def main():
    said = []
    for service in SERVICES:
        report, last_line = ask(service)
        count, lines = verdict(report)
        if count:
            sys.stdout.write("".join(f"{line}\n" for line in lines))
            sys.stdout.write(f"{count} packages looked up in {service}: {len(lines)} vulnerabilities\n")
            return 1 if lines else 0
        said.append(f"{service}: {last_line[:80]}")
    sys.stdout.write(f"not audited: no list of vulnerabilities has an answer for any package ({'; '.join(said)})\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
