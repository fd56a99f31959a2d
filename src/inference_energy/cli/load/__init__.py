"""`load-test` on the command line: its options and its progress display."""
