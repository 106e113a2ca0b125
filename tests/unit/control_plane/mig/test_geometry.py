"""Legal geometries: counts that others counted too, laws, and single cases."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.mig import (
    Placement,
    Product,
    Rules,
    geometries,
    illegality,
    layout_of,
    maximal_mixes,
    mix_of,
    mixes,
    product_named,
    products,
)

A100, A30, PRO = (product_named(name) for name in ("a100-80gb", "a30-24gb", "rtx-pro-6000-96gb"))
DOUBLED = frozenset({*A100.plain, "1g.2x"})
ON_A100 = [Placement(start, it.key) for it in A100.profiles.values() for start in it.starts]


@pytest.mark.parametrize(
    ("product", "keys", "counts"),
    [
        (A100, frozenset(A100.plain), (298, 38, 12)),
        (A100, DOUBLED, (723, 78, 28)),
        (A100, None, (2319, 128, 44)),
        (product_named("h100-80gb"), frozenset(A100.plain), (298, 38, 12)),
        (A30, frozenset(A30.plain), (26, 10, 4)),
        (PRO, frozenset(PRO.plain), (26, 10, 4)),
        (product_named("l4-24gb"), None, (2, 2, 1)),
    ],
)
def test_counts_are_those_that_the_data_states(
    product: Product, keys: frozenset[str] | None, counts: tuple[int, int, int]
) -> None:
    rules = Rules(keys)
    found = list(geometries(product, rules))
    assert len(set(found)) == len(found)
    assert (len(found), len(mixes(product, rules)), len(maximal_mixes(product, rules))) == counts


def test_nineteen_plain_geometries_hold_no_more() -> None:
    found = [frozenset(it) for it in geometries(A100, Rules(frozenset(A100.plain)))]
    assert sum(not any(it < other for other in found) for it in found) == 19


@pytest.mark.parametrize(
    ("placements", "said"),
    [
        ([(0, "3g"), (4, "3g")], ""),
        ([(0, "4g"), (4, "3g")], ""),
        ([(0, "3g"), (0, "1g")], "overlaps"),
        ([(1, "2g")], "2g cannot begin at memory slice 1"),
        ([(0, "5g")], "has no profile 5g"),
        ([(0, "2g"), (2, "2g"), (4, "3g")], ""),
        ([(0, "1g.2x"), (2, "1g.2x"), (4, "1g.2x"), (6, "1g.2x")], ""),
        ([(0, "1g+me"), (1, "1g+me")], "2 of 1g+me are more than 1"),
    ],
)
def test_what_fits_beside_each_other(placements: list[tuple[int, str]], said: str) -> None:
    told = illegality(A100, [Placement(*it) for it in placements])
    assert bool(told) is bool(said)
    assert said in told


def test_compute_slices_are_a_limit_of_their_own() -> None:
    """Memory for eight of 1g is there, and compute for seven; on the A30 both end together."""
    assert illegality(A100, [Placement(0, "4g"), Placement(4, "1g.2x"), Placement(6, "1g.2x")]) == ""
    assert not any(sum(A100.profiles[it.profile].g for it in geometry) > 7 for geometry in ALL_OF_A100)
    assert max(sum(A100.profiles[it.profile].memory_slices for it in geometry) for geometry in ALL_OF_A100) == 8


def test_beside_all_media_engines_only_those_without_any_fit() -> None:
    assert illegality(PRO, [Placement(0, "1g+me.all"), Placement(3, "1g-me"), Placement(6, "1g-me")]) == ""
    assert "media" in illegality(PRO, [Placement(0, "1g+me.all"), Placement(3, "1g")])


def test_figures_are_data_and_never_the_name() -> None:
    h100 = product_named("h100-80gb").profiles
    assert (h100["3g"].multiprocessors, h100["4g"].multiprocessors, h100["1g.2x"].multiprocessors) == (60, 64, 26)
    assert A100.profiles["1g"].name == "1g.10gb"
    assert PRO.profiles["1g+gfx"].memory_bytes == PRO.profiles["1g"].memory_bytes
    assert (A100.has_mig, product_named("l4-24gb").has_mig) == (True, False)
    with pytest.raises(KeyError, match="did you mean 'a100-80gb'"):
        product_named("a100-80g")
    assert all(it.compute_capability for it in products().values())


@given(st.lists(st.sampled_from(ON_A100), max_size=8))
def test_legal_is_whatever_enumeration_finds_in_any_order(placements: list[Placement]) -> None:
    geometry = tuple(sorted(placements))
    legal = illegality(A100, placements) == ""
    assert legal is (geometry in ALL_OF_A100)
    shuffled = list(placements)
    random.Random(1).shuffle(shuffled)
    assert (illegality(A100, shuffled) == "") is legal
    if legal:
        found = layout_of(A100, mix_of(geometry))
        assert found is not None
        assert mix_of(found) == mix_of(geometry)
        for left_out in geometry:
            assert illegality(A100, [it for it in geometry if it != left_out]) == ""


ALL_OF_A100 = frozenset(geometries(A100))
