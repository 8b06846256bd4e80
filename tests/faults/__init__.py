"""Part 2: an error at the N-th call of the disk, for every N."""
