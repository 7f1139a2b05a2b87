import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from replay_service.sum_tree import SumTree


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), max_size=300), st.integers(0, 1000))
def test_every_tick_finds_the_number_that_owns_it(actions: list[tuple[int, int]], first: int) -> None:
    tree, weights, front = SumTree(), dict[int, int](), first
    for number, (action, weight) in enumerate(actions, start=first):
        tree[number] = weights[number] = weight
        if action == 0:  # evict the oldest
            tree[front] = 0
            tree.forget_before(front + 1)
            del weights[front]
            front += 1
        elif action == 1:  # change one in the middle
            middle = (front + number) // 2
            tree[middle] = weights[middle] = weight + 1
    assert tree.total == sum(weights.values())
    assert all(tree[number] == weight for number, weight in weights.items())
    numbers, rests = tree.find(np.arange(tree.total))
    owners = [(number, rest) for number, weight in weights.items() for rest in range(weight)]
    assert list(zip(numbers.tolist(), rests.tolist(), strict=True)) == owners


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5), st.integers(0, 5)), max_size=200), st.integers(1, 4))
def test_two_trees_are_searched_as_if_they_were_one(actions: list[tuple[bool, int, int]], factor: int) -> None:
    one, other, both, front = SumTree(), SumTree(), SumTree(), 0
    for number, (leaves, left, right) in enumerate(actions):
        one[number], other[number], both[number] = left, right, left + factor * right
        if leaves:
            front += 1
            for tree in (one, other, both):
                tree.forget_before(front)
    if not both.total:
        return
    ticks = np.arange(both.total)
    for found, expected in zip(one.find_with(other, factor, ticks), both.find(ticks), strict=True):
        np.testing.assert_array_equal(found, expected)
