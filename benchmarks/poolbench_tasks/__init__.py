"""The tasks, one per module; torch is imported inside their functions so that planning stays fast."""
