"""What the presets promise."""

from __future__ import annotations

from common.presets import dreamer_arxiv


def test_the_arxiv_texts_dense_networks_are_three_layers_of_300() -> None:
    """Dreamer, appendix B: "all other functions as three dense layers of size 300"."""
    model, behaviour = dreamer_arxiv().world_model, dreamer_arxiv().dreamer
    assert {
        (model.reward_layers, model.reward_units),
        (model.discount_layers, model.discount_units),
        (model.contrastive_layers, model.contrastive_units),
        (behaviour.actor_layers, behaviour.units),
        (behaviour.value_layers, behaviour.units),
    } == {(3, 300)}
