"""Projections of the ledger: tables, statistics, claims, report, regression gate, MLflow."""
