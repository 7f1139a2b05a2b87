"""`dreamfleet inspect`: what a run's world model predicts, and how far it can be trusted."""
