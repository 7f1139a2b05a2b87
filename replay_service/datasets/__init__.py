"""Replay data in a folder that travels: one safetensors file an episode, and `dataset.json`, which describes them."""
