"""What launchers leave behind, and what of their settings would lose a run."""

import os
from types import SimpleNamespace
from typing import Any

import pytest

from prefroute import ConfigurationError
from prefroute.training._fine_tuned import load_plainly
from prefroute.training._fine_tuning import _check_gathering


def trainer(*, fsdp: str | None = None, zero: dict[str, Any] | None = None) -> Any:
    state = SimpleNamespace(
        fsdp_plugin=SimpleNamespace(state_dict_type=fsdp),
        deepspeed_plugin=SimpleNamespace(deepspeed_config={"zero_optimization": zero or {}}),
    )
    accelerator = SimpleNamespace(state=state)
    return SimpleNamespace(
        accelerator=accelerator, is_fsdp_enabled=fsdp is not None, is_deepspeed_enabled=zero is not None
    )


def test_what_would_leave_no_whole_model_is_refused() -> None:
    _check_gathering(trainer())
    _check_gathering(trainer(fsdp="StateDictType.FULL_STATE_DICT"))
    _check_gathering(trainer(zero={"stage": 2}))
    _check_gathering(trainer(zero={"stage": 3, "stage3_gather_16bit_weights_on_model_save": True}))
    with pytest.raises(ConfigurationError, match="SHARDED_STATE_DICT, of which no router can be made"):
        _check_gathering(trainer(fsdp="StateDictType.SHARDED_STATE_DICT"))
    with pytest.raises(ConfigurationError, match="set zero3_save_16bit_model"):
        _check_gathering(trainer(zero={"stage": 3}))


def test_models_are_loaded_whole_after_training(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.integrations import deepspeed

    monkeypatch.setenv("FSDP_CPU_RAM_EFFICIENT_LOADING", "true")
    monkeypatch.setattr(deepspeed, "_hf_deepspeed_config_weak_ref", lambda: SimpleNamespace(is_zero3=lambda: True))
    load_plainly()
    assert os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] == "false"
    assert not deepspeed.is_deepspeed_zero3_enabled()
