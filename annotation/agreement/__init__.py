"""How far people agree: coefficients with intervals, disputed items, reports."""
