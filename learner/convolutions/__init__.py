"""Convolutions of images, there and back, in the forms that a CPU computes fastest."""
