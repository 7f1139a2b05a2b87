import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from replay_service.ring import Ring


@given(st.lists(st.tuples(st.sampled_from(["add", "skip", "forget", "change"]), st.integers(1, 40)), max_size=200))
def test_a_ring_holds_what_a_dictionary_holds(actions: list[tuple[str, int]]) -> None:
    ring, held, end = Ring(), dict[int, int](), 1000
    for action, amount in actions:
        if action in ("add", "skip"):
            end += amount if action == "skip" else 0  # numbers that are never given
            ring[end] = held[end] = amount
            end += 1
        elif held and action == "change":
            number = sorted(held)[amount % len(held)]
            ring[number] = held[number] = -amount
        elif held:
            front = min(held) + amount
            ring.forget_before(front)
            held = {number: value for number, value in held.items() if number >= front}
            end = max(end, front)
    assert [ring[number] for number in range(990, end + 100)] == [held.get(n, 0) for n in range(990, end + 100)]
    numbers = np.array(sorted(held), np.int64)
    assert ring.take(numbers).tolist() == [held[number] for number in numbers.tolist()]
