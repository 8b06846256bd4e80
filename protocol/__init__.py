"""What the processes of Outlive say to each other and keep on disk.

Both sides import this package and it imports neither of them. Read it in this order: `changes` (what a
mutation is), `frames` and `segments` (how the outbox keeps it), `messages` (how it travels), `folding` (how
changes are coalesced), `values` and `records` (what a bot stores), `errors` (everything that can be said no to).
"""
