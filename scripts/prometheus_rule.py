"""Writes deploy/monitoring/prometheus-rule.yaml, the alerts in the form of the Prometheus operator: python scripts/prometheus_rule.py."""

from __future__ import annotations

from pathlib import Path

_MONITORING = Path(__file__).parents[1] / "deploy" / "monitoring"
RULES, RESOURCE = _MONITORING / "rules.yml", _MONITORING / "prometheus-rule.yaml"
_HEAD = """\
# Made from rules.yml by scripts/prometheus_rule.py; change that.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: lamina
spec:
"""


def rendered(rules: str) -> str:
    """The resource that holds some rules, without their leading comment."""
    groups = rules[rules.index("groups:") :]
    return _HEAD + "".join(f"  {line}" if line.strip() else line for line in groups.splitlines(keepends=True))


if __name__ == "__main__":
    RESOURCE.write_text(rendered(RULES.read_text(encoding="utf-8")), encoding="utf-8")
