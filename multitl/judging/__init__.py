"""How good a classifier is, for people to see. Comes in: probabilities and labels; goes out: metrics, charts,
report.html. Read `metrics.py` first, then `reporting.py`.
"""

__all__ = [
    "asked",
    "axes",
    "charts",
    "choice_page",
    "comparison_page",
    "conformal",
    "costs",
    "evaluation",
    "explanations",
    "findings",
    "judges",
    "label_findings",
    "map_rows",
    "merits",
    "metrics",
    "number_findings",
    "opening",
    "predictions",
    "proportions",
    "reporting",
    "several_heads",
    "summaries",
]
