"""Draws belong to their key: uniform, repeatable, independent of how many others are made."""

import numpy as np

from training.rehearsal.draws import Draws, mix


def test_the_hash_is_splitmix64() -> None:
    # First three outputs of the reference generator from state 1234567.
    states = np.array([1234567], np.uint64) + np.arange(3, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    assert mix(states).tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_a_draw_depends_on_its_key_alone() -> None:
    draws = Draws(7, 3)
    many = draws.uniform("visit", np.arange(1000))
    assert draws.uniform("visit", [17])[0] == many[17]
    assert draws.uniform("leave", [17])[0] != many[17]
    assert Draws(7, 4).uniform("visit", [17])[0] != many[17]
    assert Draws(8, 3).uniform("visit", [17])[0] != many[17]


def test_draws_are_uniform_and_uncorrelated() -> None:
    draws = Draws(1, 0)
    one, other = draws.uniform("a", np.arange(200_000)), draws.uniform("b", np.arange(200_000))
    counts = np.histogram(one, 50, (0, 1))[0]
    assert ((counts - 4000) ** 2 / 4000).sum() < 90  # chi-square with 49 degrees: 0.9997 quantile
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.01
    assert abs(np.corrcoef(one[1:], one[:-1])[0, 1]) < 0.01


def test_choice_follows_the_weights() -> None:
    draws = Draws(1, 0)
    keys = np.arange(100_000)
    shares = np.bincount(draws.choice("c", keys, [1, 0, 3]), minlength=3) / len(keys)
    assert np.allclose(shares, [0.25, 0, 0.75], atol=0.006)
    rows = np.tile([[0.0, 1.0, 0.0], [0.5, 0.0, 0.5]], (50_000, 1))
    picked = draws.choice("d", keys, rows)
    assert (picked[::2] == 1).all()
    assert abs((picked[1::2] == 2).mean() - 0.5) < 0.01
    assert set(picked[1::2].tolist()) == {0, 2}


def test_below_stays_below() -> None:
    drawn = Draws(1, 0).below("e", np.arange(10_000), np.arange(10_000) % 7)
    assert (drawn >= 0).all()
    assert (drawn < np.maximum(np.arange(10_000) % 7, 1)).all()
