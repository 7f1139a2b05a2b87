"""The world model, the behaviours learnt in it, the policy, and their optimisation."""
