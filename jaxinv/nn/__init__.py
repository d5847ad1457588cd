"""Operators of convolutional networks with fast gradients on CPUs; independent of any model."""
