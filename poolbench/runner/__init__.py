"""Plan the cells, keep the ledger, execute."""
