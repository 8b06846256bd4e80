"""Hostile input: whatever is sent, stored or put in a file's place, it is refused by name and harms nobody else."""
