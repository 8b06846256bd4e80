"""What people use on a data directory: look into it (`inspect`), decide what only a person can (`admin`).

Programs of their own, started by `outlive show | accept | forget`. Nothing of the running process imports them.
"""
