"""The tests of the tests: the code is broken in one place at a time, and a named test has to go red.

python -m tests.mutants                  all of them, on two cores; exit 1 if any survives
python -m tests.mutants --only epoch     those whose name contains a word
"""
