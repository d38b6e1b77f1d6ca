"""Environment variables that name a folder or a file."""

from pathlib import Path

import pytest

from brainscore_allen2022_surface.environment import CACHE_VARIABLE, cache_path, expanded, named_path

VARIABLE = "BRAINSCORE_ALLEN2022_SURFACE_DIR"
NOBODY = "~no_such_user_of_this_machine"


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("setting", [None, ""])
def test_variable_that_is_not_set_or_empty_names_nothing(monkeypatch, setting):
    monkeypatch.delenv(VARIABLE, raising=False)
    if setting is not None:
        monkeypatch.setenv(VARIABLE, setting)

    assert named_path(VARIABLE) is None


@pytest.mark.parametrize(
    ("setting", "expected"),
    [("/data/nsd", "/data/nsd"), ("relative", "relative"), ("~/nsd", "{home}/nsd"), ("a~b", "a~b"), ("~", "{home}")],
)
def test_leading_tilde_is_the_home_folder(home, monkeypatch, setting, expected):
    monkeypatch.setenv(VARIABLE, setting)

    assert named_path(VARIABLE) == Path(expected.format(home=home))


def test_cache_is_that_of_brainscore_core(home, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, "/data/cache")
    assert cache_path() == Path("/data/cache")

    for setting in (None, ""):
        monkeypatch.delenv(CACHE_VARIABLE, raising=False)
        if setting is not None:
            monkeypatch.setenv(CACHE_VARIABLE, setting)
        assert cache_path() == home / ".brainio"
    assert CACHE_VARIABLE == "BRAINIO_HOME"


def test_home_folder_of_nobody_is_named(monkeypatch):
    monkeypatch.setenv(VARIABLE, f"{NOBODY}/nsd")
    message = f"{VARIABLE} is {NOBODY}/nsd, but there is no such home folder. Write a full path."

    with pytest.raises(ValueError) as raised:
        named_path(VARIABLE)
    assert str(raised.value) == message
    with pytest.raises(ValueError, match="^--cache is"):
        expanded(Path(NOBODY), "--cache")


def test_default_cache_without_a_home_folder_is_named(monkeypatch):
    monkeypatch.delenv(CACHE_VARIABLE, raising=False)
    monkeypatch.setattr("brainscore_allen2022_surface.environment.DEFAULT_CACHE", NOBODY)

    with pytest.raises(ValueError, match=f"^The default cache is {NOBODY}, but"):
        cache_path()
