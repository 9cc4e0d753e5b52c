"""bisect: the first commit that moves the results of a group. Nothing here imports torch."""
