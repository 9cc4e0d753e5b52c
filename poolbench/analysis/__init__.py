"""Pure functions of results: groups, statistics, claims, the regression gate."""
