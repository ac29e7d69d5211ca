"""Settings and shop profiles: defaults, overrides, and errors that name the key."""

from __future__ import annotations

import datetime as dt
import pathlib

import pytest

from contracts.settings import RETAILERS, SettingsError, read_retailer, read_settings

PROFILE = """
name: corner
title: Corner shop
source: complete_journey
first_day: 2017-01-01
last_day: 2017-02-01
"""


def profile(tmp_path: pathlib.Path, text: str) -> dict[str, str]:
    path = tmp_path / "corner.yaml"
    path.write_text(text)
    return {"RETAILER": str(path), "CONTINUUM_HOME": str(tmp_path)}


def test_every_profile_in_the_box_is_valid() -> None:
    for path in RETAILERS.glob("*.yaml"):
        assert read_retailer(read_settings({"RETAILER": path.stem})).name == path.stem


def test_a_misspelt_key_is_named(tmp_path: pathlib.Path) -> None:
    settings = read_settings(profile(tmp_path, PROFILE + "curency: USD\n"))
    with pytest.raises(SettingsError, match=r"corner.yaml.*curency"):
        read_retailer(settings)


def test_a_nested_value_out_of_range_is_named(tmp_path: pathlib.Path) -> None:
    settings = read_settings(profile(tmp_path, PROFILE + "retraining: {min_new_events: 0}\n"))
    with pytest.raises(SettingsError, match=r"min_new_events"):
        read_retailer(settings)


def test_an_unknown_shop_lists_the_known(tmp_path: pathlib.Path) -> None:
    with pytest.raises(SettingsError, match="complete_journey"):
        read_retailer(read_settings({"RETAILER": "nowhere"}))


def test_last_day_before_first_day_is_refused(tmp_path: pathlib.Path) -> None:
    environment = {**profile(tmp_path, PROFILE), "CONTINUUM_LAST_DAY": "2016-12-31"}
    with pytest.raises(SettingsError, match="last_day"):
        read_retailer(read_settings(environment))


def test_the_environment_moves_the_last_day(tmp_path: pathlib.Path) -> None:
    environment = {**profile(tmp_path, PROFILE), "CONTINUUM_LAST_DAY": "2017-01-15"}
    assert read_retailer(read_settings(environment)).last_day == dt.date(2017, 1, 15)


@pytest.mark.parametrize(
    ("variable", "value"),
    [("CONTINUUM_PORT", "eighty"), ("CONTINUUM_PORT", "70000"), ("CONTINUUM_LAST_DAY", "soon")],
)
def test_a_bad_variable_is_named(variable: str, value: str) -> None:
    with pytest.raises(SettingsError, match=variable):
        read_settings({variable: value})
