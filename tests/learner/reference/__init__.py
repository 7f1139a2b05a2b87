"""The equations of the design in plain float64 numpy loops: slow, readable, and independent of `learner/`."""
