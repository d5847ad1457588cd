"""The longest that a test waits for a process: for what hangs, not for slow machines."""

SECONDS = 1200
