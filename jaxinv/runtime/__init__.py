"""Processes, signals, the work folder, logs and progress; no maths."""
