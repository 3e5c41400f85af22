"""The command line: arguments, gin files and one small object a command."""
