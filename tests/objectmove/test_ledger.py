"""The states of a ledger's rows, found by row and by state."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from objectmove.ledger import RowStates
from objectmove.table import State

_COUNT = 12
_CHANGES = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(State), st.sets(st.integers(0, _COUNT - 1))),
        st.integers(0, _COUNT),
    )
)


@given(_CHANGES)
def test_states_are_found_as_if_all_rows_were_looked_at(
    changes: list[tuple[State, set[int]] | int],
) -> None:
    states = RowStates(_COUNT)
    expected = dict.fromkeys(range(_COUNT), State.NONE)
    begun = 0
    for change in changes:
        if isinstance(change, int):
            states.begin(change)
            begun = max(begun, change)
        else:
            state, rows = change
            states.put(state, rows)
            expected.update(dict.fromkeys(rows, state))
    assert dict(states) == expected
    assert states.begun == begun
    waiting_again = {row for row in range(begun) if expected[row] is State.NONE}
    assert states.waiting_again == waiting_again
    for state in State:
        assert states.find(state) == [row for row in expected if expected[row] is state]
