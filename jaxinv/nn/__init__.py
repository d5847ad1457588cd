"""Operators with one definition and fast gradients on CPUs; they know no model."""
