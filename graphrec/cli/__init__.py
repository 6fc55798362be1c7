"""The command line: it parses, calls `graphrec.service`, and prints."""
