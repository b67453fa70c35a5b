"""Flags for a config's keys, those included that its file does not mention."""

import pathlib
import sys

import pytest
from absl import flags

from kd_keras import config_flag
from kd_keras.command_line import parsed
from kd_keras.errors import InputError

QUICKSTART = pathlib.Path(__file__).resolve().parents[1] / "configs" / "quickstart.py"


@pytest.fixture
def parse(monkeypatch: pytest.MonkeyPatch):
    """Parse a command line with flags of its own, and give the config."""

    def parse(*arguments: str) -> object:
        values = flags.FlagValues()
        monkeypatch.setattr(config_flag, "FLAGS", values)
        define = config_flag.config_flags.DEFINE_config_dict
        monkeypatch.setattr(
            config_flag.config_flags,
            "DEFINE_config_dict",
            lambda *a, **k: define(*a, **k, flag_values=values),
        )
        config_flag.parse([sys.argv[0], f"--config={QUICKSTART}", *arguments], own=())
        return values.config

    return parse


def test_a_key_that_is_there(parse) -> None:
    assert parse("--config.student.epochs=3").student.epochs == 3


def test_keys_of_free_form_sections_that_the_file_is_silent_on(parse) -> None:
    config = parse(
        "--config.distillation.methods.logits_l2.weight=0.5",
        "--config.distillation.adversarial.noise_layer=none",
        "--config.data.augmentation.shift.pixels=2",
        "--config.student.options.deep=false",
        "--config.student.epochs=3",
        "--config.distillation.stages.first.label_weight=0.25",
    )
    assert config.distillation.methods.logits_l2.weight == 0.5
    assert config.distillation.adversarial.noise_layer is None
    assert config.data.augmentation.shift.pixels == 2
    assert config.student.options.deep is False
    assert config.student.epochs == 3
    assert config.distillation.stages.first.to_dict() == {
        **{"epochs": 0, "methods": {}},
        "label_weight": 0.25,
    }


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("--config.student.epoch=3", ("config.student.epoch ", "config.student.epochs")),
        ("--config.teachers.options.x=3", ("config.teachers.options.x", "closest")),
        ("--config.teacher.mean.x=3", ("config.teacher.mean.x", "closest")),
        ("--config.distillation.methods.soft_targets.weight.end=3", ("'weight' is a value",)),
    ],
)
def test_keys_that_no_config_has(parse, argument: str, words: tuple) -> None:
    with pytest.raises(InputError) as error:
        parse(argument, "--config.distillation.methods.soft_targets.weight=1.0")
    for word in words:
        assert word in str(error.value)


def test_a_switch_takes_no_value() -> None:
    values = flags.FlagValues()
    flags.DEFINE_bool("run", True, "", flag_values=values)
    with pytest.raises(flags.Error, match="--norun=false does not take an argument"):
        parsed(values, ["command", "--norun=false"])
