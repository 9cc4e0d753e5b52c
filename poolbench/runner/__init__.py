"""Planning cells, the ledger, execution."""
