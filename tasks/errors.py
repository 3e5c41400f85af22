"""Errors of tasks, of their settings and of their data; each message is one line."""


class TaskError(ValueError):
    """A task, a setting of it or its data that cannot be used; the message says which and what to do."""


class BadLine(TaskError):
    """One line of a data file that cannot be used; the message names file, line and reason."""
