"""The command line: verbs, the terminal's display, exit codes. The only room that prints."""
