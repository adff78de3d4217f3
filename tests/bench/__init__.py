"""The benchmark: `make bench`, or `python -m tests.bench --quick` for a smoke run. No test of the suite is timed."""
