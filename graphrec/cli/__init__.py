"""The command line: parses arguments, calls `graphrec.service`, and prints."""
